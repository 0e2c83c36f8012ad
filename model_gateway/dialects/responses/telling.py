"""What a chat's message says, in one piece or bit by bit, told as the items of a response."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

from model_gateway.dialects.responses.output import CALL_KINDS, CallItem, Item, MessageItem, ReasoningItem
from model_gateway.dialects.responses.turns import EXTRA
from model_gateway.errors import GatewayError

JSON = dict[str, Any]

_REASONING: Final = ("reasoning_content", "reasoning")
"""By what name servers tell their reasoning."""


class Output:
    """The items, and which of them are still being said: one of reasoning or text, and calls side by side.

    Args:
        sealed: whether reasoning is also to be given for sending back.

    Attributes:
        items: those of the response, in order.
    """

    def __init__(self, *, sealed: bool) -> None:
        self.items: list[JSON] = []
        self._sealed = sealed
        self._open: ReasoningItem | MessageItem | None = None
        self._calls: dict[int, CallItem] = {}

    def tell(self, said: Mapping[str, Any], logprobs: Any = None) -> Iterator[JSON]:
        """The events of a message or a delta.

        Args:
            said: it.
            logprobs: the choice's.

        Raises:
            GatewayError: ``upstream_invalid_response``: it makes no sense.
        """
        thought = next((text for name in _REASONING if (text := _text(said, name))), "")
        blocks = _objects(said.get("thinking_blocks"))
        if thought or blocks:
            reasoning = yield from self._reasoning()
            yield from reasoning.add(thought, blocks)
        text, probabilities = _text(said, "content"), _logprobs(logprobs)
        if text or probabilities:
            message = yield from self._message()
            yield from message.say(text, probabilities)
        for note in _annotations(said):
            message = yield from self._message()
            yield from message.annotate(note)
        refusal = _text(said, "refusal")
        if refusal:
            message = yield from self._message()
            yield from message.refuse(refusal)
        if isinstance(self._open, MessageItem):
            self._open.item |= _extra(said)
        for part in _objects(said.get("tool_calls")):
            yield from self._called(part)

    def close(self, status: str) -> Iterator[JSON]:
        """The events of the end; an answer of nothing is an empty message.

        Args:
            status: of what is still open: ``completed``, or ``incomplete``.
        """
        if not self.items:
            message = yield from self._message()
            yield from message.say("", [])
        yield from self._end(status)
        for call in self._calls.values():
            yield from call.close(status)
        self._calls = {}

    def _reasoning(self) -> Generator[JSON, None, ReasoningItem]:
        """The open item, of reasoning."""
        if not isinstance(self._open, ReasoningItem):
            yield from self._end("completed")
            self._open = ReasoningItem(len(self.items), sealed=self._sealed)
            yield from self._begin(self._open)
        return self._open

    def _message(self) -> Generator[JSON, None, MessageItem]:
        """The open item, a message."""
        if not isinstance(self._open, MessageItem):
            yield from self._end("completed")
            self._open = MessageItem(len(self.items))
            yield from self._begin(self._open)
        return self._open

    def _called(self, part: JSON) -> Iterator[JSON]:
        """A call or more of one. Servers that do not number them give each in one piece, or one after the other."""
        kind = "custom" if isinstance(part.get("custom"), dict) else "function"
        details = part.get(kind)
        function: JSON = details if isinstance(details, dict) else {}
        name, index = _text(function, "name"), part.get("index")
        if not isinstance(index, int):
            index = len(self._calls) if name else len(self._calls) - 1
        if index not in self._calls:
            if not name:
                raise _invalid("a tool call without a name")
            yield from self._end("completed")
            call = CallItem(len(self.items), CALL_KINDS[kind], _text(part, "id"), name, _extra(part))
            self._calls[index] = call
            yield from self._begin(call)
        yield from self._calls[index].add(_text(function, "input" if kind == "custom" else "arguments"))

    def _begin(self, item: Item) -> Iterator[JSON]:
        self.items.append(item.item)
        yield from item.open()

    def _end(self, status: str) -> Iterator[JSON]:
        """Close what is being reasoned or said."""
        ended, self._open = self._open, None
        if ended is not None:
            yield from ended.close(status)


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _invalid(f"a message whose {name} is no text")
    return value


def _extra(holder: Mapping[str, Any]) -> JSON:
    """What some vendors want back with a text or a call, where they signed it (Google); it goes out as it came."""
    return {EXTRA: holder[EXTRA]} if holder.get(EXTRA) is not None else {}


def _objects(value: Any) -> list[JSON]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _annotations(said: Mapping[str, Any]) -> Iterator[JSON]:
    """Notes on the text: a chat has the members of one under its type."""
    for note in _objects(said.get("annotations")):
        kind = note.get("type")
        if isinstance(kind, str) and isinstance(note.get(kind), dict):
            yield {"type": kind, **note[kind]}


def _logprobs(logprobs: Any) -> list[JSON]:
    """A choice's tokens with their probabilities."""
    found = _objects(logprobs.get("content")) if isinstance(logprobs, dict) else []
    return [
        {**_token(entry), "top_logprobs": [_token(top) for top in _objects(entry.get("top_logprobs"))]}
        for entry in found
    ]


def _token(entry: JSON) -> JSON:
    return {"token": entry.get("token"), "bytes": entry.get("bytes") or [], "logprob": entry.get("logprob")}


def _invalid(what: str) -> GatewayError:
    return GatewayError("upstream_invalid_response", f"the provider answered with {what}")
