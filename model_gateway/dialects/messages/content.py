"""What a request's content blocks carry: texts for counting, attachments for the reservation, and what has no price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from model_gateway.dialects.request import Attachments

JSON = dict[str, Any]

_BOUNDED: Final = frozenset(
    {"text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result"}
)
"""Blocks whose input tokens have a bound. Any other may point at something of any size, or is a tool's that the
provider runs itself."""

_TEXTS: Final = ("text", "thinking", "name", "title", "context")


def unbounded(payload: Mapping[str, Any]) -> dict[str, str]:
    """Blocks that no row can price, by their paths, as ``Request.priced`` has them."""
    return {f"{path}.type": "" for path, block in _all_blocks(payload) if str(block.get("type")) not in _BOUNDED}


def attachments(payload: Mapping[str, Any]) -> Attachments:
    """Images and documents, those within tool results and other documents included."""
    return sum((_attachment(block) for _, block in _all_blocks(payload)), Attachments())


def texts(payload: Mapping[str, Any]) -> Iterator[str]:
    """Every text that the model reads: the system prompt, each message, each tool, the format of the answer."""
    system = _joined(payload.get("system"))
    if system:
        yield system
    for message in payload["messages"]:
        yield _joined(message["content"])
    yield from (orjson.dumps(tool).decode() for tool in payload.get("tools") or ())
    for holder in (payload.get("output_config"), payload):
        wanted = holder.get("format" if holder is not payload else "output_format") if holder else None
        if wanted:
            yield orjson.dumps(wanted).decode()


def blocks_in(content: Any, path: str) -> Iterator[tuple[str, JSON]]:
    """The blocks of a content that is a list, each with its path; a text has none."""
    if isinstance(content, list):
        for index, block in enumerate(content):
            if isinstance(block, dict):
                yield f"{path}[{index}]", block


def _all_blocks(payload: Mapping[str, Any]) -> Iterator[tuple[str, JSON]]:
    """Every block of every message, at any depth."""
    waiting = [(f"messages[{index}].content", message["content"]) for index, message in enumerate(payload["messages"])]
    while waiting:
        path, content = waiting.pop()
        for place, block in blocks_in(content, path):
            yield place, block
            waiting += _within(block, place)


def _within(block: JSON, path: str) -> Iterator[tuple[str, Any]]:
    """Contents within a block: a result's, and those of a document made of blocks."""
    yield f"{path}.content", block.get("content")
    source = block.get("source")
    if isinstance(source, dict):
        yield f"{path}.source.content", source.get("content")


def _attachment(block: JSON) -> Attachments:
    source = block.get("source")
    if not isinstance(source, dict):
        return Attachments()
    kind = source.get("type")
    if block.get("type") == "image":
        return Attachments(images=1, data_bytes=_inline(source))
    if block.get("type") == "document" and kind not in ("text", "content"):
        return Attachments(files=1, data_bytes=_inline(source))
    return Attachments()


def _inline(source: JSON) -> int:
    """Bytes of base64, which are no text."""
    data = source.get("data")
    return len(data) if source.get("type") == "base64" and isinstance(data, str) and data.isascii() else 0


def _joined(content: Any) -> str:
    """Every text in a content, at any depth."""
    if isinstance(content, str):
        return content
    return "".join(part for _, block in blocks_in(content, "") for part in _said(block))


def _said(block: JSON) -> Iterator[str]:
    yield from (block[name] for name in _TEXTS if isinstance(block.get(name), str))
    if block.get("input"):
        yield orjson.dumps(block["input"]).decode()
    source = block.get("source")
    if isinstance(source, str):
        yield source
    elif isinstance(source, dict):
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            yield source["data"]
        yield _joined(source.get("content"))
    yield _joined(block.get("content"))
