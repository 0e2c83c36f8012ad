"""What a chat's message says, in one piece or bit by bit, told as the items of a response."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from model_gateway.dialects.responses.output import CALL_KINDS, CallItem, Item, MessageItem, ReasoningItem
from model_gateway.dialects.responses.turns import EXTRA
from model_gateway.dialects.saying import calls_of, content_of, invalid, objects, reasoning_of, text_in

JSON = dict[str, Any]


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
        self._calls: list[CallItem] = []
        self._numbered: dict[int, tuple[str, CallItem]] = {}

    def tell(self, said: Mapping[str, Any], logprobs: Any = None) -> Iterator[JSON]:
        """The events of a message or a delta.

        Args:
            said: it.
            logprobs: the choice's.

        Raises:
            GatewayError: ``upstream_invalid_response``: it makes no sense.
        """
        thought = reasoning_of(said)
        blocks = objects(said.get("thinking_blocks"))
        if thought or blocks:
            reasoning = yield from self._reasoning()
            yield from reasoning.add(thought, blocks)
        text, probabilities = content_of(said), _logprobs(logprobs)
        if text or probabilities:
            message = yield from self._message()
            yield from message.say(text, probabilities)
        for note in _annotations(said):
            message = yield from self._message()
            yield from message.annotate(note)
        refusal = text_in(said, "refusal")
        if refusal:
            message = yield from self._message()
            yield from message.refuse(refusal)
        if isinstance(self._open, MessageItem):
            self._open.item |= _extra(said)
        for part in calls_of(said):
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
        for call in self._calls:
            yield from call.close(status)
        self._calls, self._numbered = [], {}

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
        name, given, index = text_in(function, "name"), text_in(part, "id"), part.get("index")
        if not isinstance(index, int):
            index = len(self._calls) if name else len(self._calls) - 1
        known, call = self._numbered.get(index, ("", None))
        # Servers that give all calls the same number tell them apart by their ids.
        if call is None or (given and known and given != known):
            if not name:
                raise invalid("a tool call without a name")
            yield from self._end("completed")
            call = CallItem(len(self.items), CALL_KINDS[kind], given, name, _extra(part))
            self._calls.append(call)
            self._numbered[index] = given, call
            yield from self._begin(call)
        yield from call.add(text_in(function, "input" if kind == "custom" else "arguments"))

    def _begin(self, item: Item) -> Iterator[JSON]:
        self.items.append(item.item)
        yield from item.open()

    def _end(self, status: str) -> Iterator[JSON]:
        """Close what is being reasoned or said."""
        ended, self._open = self._open, None
        if ended is not None:
            yield from ended.close(status)


def _extra(holder: Mapping[str, Any]) -> JSON:
    """What some vendors want back with a text or a call, where they signed it (Google); it goes out as it came."""
    return {EXTRA: holder[EXTRA]} if holder.get(EXTRA) is not None else {}


def _annotations(said: Mapping[str, Any]) -> Iterator[JSON]:
    """Notes on the text: a chat has the members of one under its type."""
    for note in objects(said.get("annotations")):
        kind = note.get("type")
        if isinstance(kind, str) and isinstance(note.get(kind), dict):
            yield {"type": kind, **note[kind]}


def _logprobs(logprobs: Any) -> list[JSON]:
    """A choice's tokens with their probabilities."""
    found = objects(logprobs.get("content")) if isinstance(logprobs, dict) else []
    return [
        {**_token(entry), "top_logprobs": [_token(top) for top in objects(entry.get("top_logprobs"))]}
        for entry in found
    ]


def _token(entry: JSON) -> JSON:
    return {"token": entry.get("token"), "bytes": entry.get("bytes") or [], "logprob": entry.get("logprob")}
