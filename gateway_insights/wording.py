"""The text of a request and of its reply out of their JSON, whatever the dialect. Pure, and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from model_gateway.dialects.answers import Reader
from model_gateway.dialects.chat import ChatReader
from model_gateway.dialects.messages.reading import MessagesReader
from model_gateway.dialects.responses.reading import ResponsesReader

MOST_CHARACTERS: Final = 65_536
"""Of one text that are kept: its beginning."""

_PARTS: Final = ("text", "content", "refusal", "thinking", "tool_calls", "function", "arguments", "output", "input")
"""Members of messages, items and parts that hold text, or parts that do. Images, files and audio have others."""

_MOST_DEPTH: Final = 12

_READERS: Final[Mapping[str, Callable[[], Reader]]] = {
    "chat": ChatReader,
    "messages": MessagesReader,
    "responses": ResponsesReader,
}
"""By operation; the others answer without words."""


def request_text(operation: str, body: bytes) -> str:
    """What was asked: a lone user's message as it is, else each message behind its role.

    Empty where the body can't be read, or says nothing in words.
    """
    said = [(role, text) for role, text in _messages(operation, _object(body)) if text.strip()]
    if len(said) == 1 and said[0][0] == "user":
        return said[0][1][:MOST_CHARACTERS]
    return "\n\n".join(f"{role}: {text}" for role, text in said)[:MOST_CHARACTERS]


class ReplyText:
    """Puts a reply's text together from its entries, as they come."""

    def __init__(self, operation: str) -> None:
        make = _READERS.get(operation)
        self._reader = make() if make is not None else None
        self._error = ""

    def add(self, kind: str, data: bytes) -> None:
        """One entry: ``reply``, ``chunk`` or ``error``, with its JSON. What can't be read is passed over."""
        parsed = _object(data)
        if kind == "error":
            self._error = _error_message(parsed)
        elif self._reader is not None:
            _read(self._reader, kind, parsed)

    @property
    def text(self) -> str:
        """What was said so far; of a reply without words the error's message."""
        said = self._reader.text if self._reader is not None else ""
        return (said or self._error)[:MOST_CHARACTERS]


def _read(reader: Reader, kind: str, parsed: dict[str, Any]) -> None:
    try:
        if kind == "reply":
            reader.reply(parsed)
        else:
            reader.chunk(parsed)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return  # a provider's own shape, passed on as it was


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _messages(operation: str, payload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and text of each message."""
    for name in ("system", "instructions"):
        if payload.get(name):
            yield "system", _text(payload[name])
    given = payload.get("input" if operation in ("responses", "embeddings") else "messages")
    if isinstance(given, str):
        yield "user", given
    elif operation == "embeddings":
        yield "user", "\n".join(text for text in _list(given) if isinstance(text, str))
    else:
        for message in _list(given):
            if isinstance(message, dict):
                yield _role(message), _text(message)


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role") or message.get("type")
    return role[:32] if isinstance(role, str) else "user"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return "\n".join(text for text in _said(value, _MOST_DEPTH) if text)


def _said(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, list):
        for part in value:
            yield from _said(part, depth - 1)
    elif depth and isinstance(value, dict):
        for name in _PARTS:
            if name in value:
                yield from _said(value[name], depth - 1)


def _error_message(parsed: Mapping[str, Any]) -> str:
    error = parsed.get("error")
    message = error.get("message") if isinstance(error, dict) else parsed.get("message")
    return message if isinstance(message, str) else ""
