"""Reading messages as a provider that speaks them sends them: whole, as events, and counts of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from typing_extensions import override

from model_gateway.dialects.answers import Reader
from model_gateway.dialects.messages.usage import usage_from_messages
from model_gateway.money import Usage

_SAID: Final = ("text", "thinking", "partial_json")
"""Members of blocks and deltas that are generated text."""


class MessagesReader(Reader):
    """Reads a message, or its events.

    Counts are sums until then: the newest of each holds. Those that a stream begins with are no usage yet, as they
    know nothing of the output: whoever leaves before the end is counted by the gateway.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, Any] = {}
        self._stopped = False

    @property
    @override
    def complete(self) -> bool:
        return self._stopped

    @override
    def reply(self, parsed: dict[str, Any]) -> None:
        self._note_counts(parsed)
        self.usage = usage_from_messages(self._counts)
        self.finish_reason = _text(parsed.get("stop_reason"))
        content = parsed.get("content")
        for block in content if isinstance(content, list) else ():
            self._said += _said(block)

    @override
    def chunk(self, parsed: dict[str, Any]) -> None:
        match parsed.get("type"):
            case "message_start":
                self._note_counts(parsed.get("message"))
            case "content_block_start":
                self._said += _said(parsed.get("content_block"))
            case "content_block_delta":
                self._said += _said(parsed.get("delta"))
            case "message_delta":
                self._end(parsed)
            case "message_stop":
                self.finishing = self._stopped = True

    def _end(self, event: dict[str, Any]) -> None:
        if self._note_counts(event):
            self.usage = usage_from_messages(self._counts)
        delta = event.get("delta")
        reason = _text(delta.get("stop_reason")) if isinstance(delta, dict) else ""
        self.finish_reason = reason or self.finish_reason
        self.finishing = bool(self.finish_reason)

    def _note_counts(self, holder: Any) -> bool:
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            self._counts |= {name: value for name, value in usage.items() if value is not None}
        return isinstance(usage, dict)


class CountReader(Reader):
    """Reads a count of tokens, which costs nothing."""

    @property
    @override
    def complete(self) -> bool:
        return False

    @override
    def reply(self, parsed: dict[str, Any]) -> None:
        self.usage = Usage()

    @override
    def chunk(self, parsed: dict[str, Any]) -> None:
        raise AssertionError("a count is not streamed")


def _said(part: Any) -> Iterator[str]:
    """Everything that a block or a delta says; a call's name and arguments too."""
    members: Mapping[str, Any] = part if isinstance(part, dict) else {}
    yield from (members[name] for name in _SAID if isinstance(members.get(name), str))
    if members.get("type") == "tool_use":
        yield _text(members.get("name"))
        if members.get("input"):
            yield orjson.dumps(members["input"]).decode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
