"""Content blocks as parts of a chat message: pure functions.

What says nothing to the model is left out: ``cache_control`` (a hint about prices, and chat providers cache by
themselves), and the ``citations`` of a text, which tell where an earlier answer had it from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.dialects.messages.content import JSON, blocks_in
from model_gateway.dialects.refusing import CANT, only, wrong
from model_gateway.dialects.strict_json import unsupported

_TEXT: Final = frozenset({"type", "text", "citations", "cache_control"})
_IMAGE: Final = frozenset({"type", "source", "transformations", "cache_control"})
_DOCUMENT: Final = frozenset({"type", "source", "title", "context", "citations", "cache_control"})
_SEARCH_RESULT: Final = frozenset({"type", "source", "title", "content", "citations", "cache_control"})
_DATA: Final = frozenset({"type", "media_type", "data"})
_NO_TRANSFORMATION: Final[tuple[Any, ...]] = (None, {}, {"oversized_image": "downsize"})


def parts(content: Any, path: str) -> list[JSON]:
    """A content's blocks as parts; empty texts are none.

    Args:
        content: a text, or a list of blocks.
        path: where it stands, for errors.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise wrong(path, "must be a text or a list of blocks")
    return [part for place, block in blocks_in(content, path) for part in block_parts(block, place)]


def block_parts(block: JSON, path: str) -> list[JSON]:
    """One block as parts: a document may be several.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    make = _MAKE.get(str(block.get("type")))
    if make is None:
        raise unsupported(f"{path}.type", f"{block.get('type')!r} {CANT}")
    return make(block, path)


def plain(found: list[JSON]) -> str | list[JSON]:
    """A user's content: a text where there is nothing else, as every provider takes it."""
    return found[0]["text"] if len(found) == 1 and found[0]["type"] == "text" else found


def text_of(block: JSON, path: str) -> str:
    """A text block's text.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    only(block, _TEXT, path)
    return _string(block, "text", path)


def _text(text: str) -> list[JSON]:
    return [{"type": "text", "text": text}] if text else []


def _text_block(block: JSON, path: str) -> list[JSON]:
    return _text(text_of(block, path))


def _image(block: JSON, path: str) -> list[JSON]:
    only(block, _IMAGE, path)
    if block.get("transformations") not in _NO_TRANSFORMATION:
        raise unsupported(f"{path}.transformations", CANT)
    source = _source(block, path)
    if source.get("type") == "url":
        only(source, frozenset({"type", "url"}), f"{path}.source")
        return [{"type": "image_url", "image_url": {"url": _string(source, "url", f"{path}.source")}}]
    return [{"type": "image_url", "image_url": {"url": _data_url(source, f"{path}.source")}}]


def _document(block: JSON, path: str) -> list[JSON]:
    """A PDF is a file; a document that is text is said as text, below its title and context."""
    only(block, _DOCUMENT, path)
    _refuse_citations(block, path)
    source, title = _source(block, path), block.get("title") or ""
    context = _text(block.get("context") or "")
    match source.get("type"):
        case "text":
            only(source, _DATA, f"{path}.source")
            return [*_text(title), *context, *_text(_string(source, "data", f"{path}.source"))]
        case "content":
            only(source, frozenset({"type", "content"}), f"{path}.source")
            return [*_text(title), *context, *parts(source.get("content"), f"{path}.source.content")]
    file = {"filename": title or "document.pdf", "file_data": _data_url(source, f"{path}.source")}
    return [*context, {"type": "file", "file": file}]


def _search_result(block: JSON, path: str) -> list[JSON]:
    only(block, _SEARCH_RESULT, path)
    _refuse_citations(block, path)
    head = f"{_string(block, 'title', path)}\n{_string(block, 'source', path)}"
    return [*_text(head), *parts(block.get("content"), f"{path}.content")]


def _refuse_citations(block: JSON, path: str) -> None:
    wanted = block.get("citations")
    if isinstance(wanted, dict) and wanted.get("enabled"):
        raise unsupported(f"{path}.citations", CANT)


def _source(block: JSON, path: str) -> JSON:
    source = block.get("source")
    if not isinstance(source, dict):
        raise wrong(f"{path}.source", "must be an object")
    return source


def _data_url(source: JSON, path: str) -> str:
    """Inline data; where else it may lie (a file's id, a document's URL) no chat provider can look."""
    if source.get("type") != "base64":
        raise unsupported(f"{path}.type", f"{source.get('type')!r} {CANT}; send base64")
    only(source, _DATA, path)
    return f"data:{_string(source, 'media_type', path)};base64,{_string(source, 'data', path)}"


def _string(holder: Mapping[str, Any], name: str, path: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise wrong(f"{path}.{name}", "must be a text")
    return value


_MAKE: Final[Mapping[str, Callable[[JSON, str], list[JSON]]]] = {
    "text": _text_block,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
