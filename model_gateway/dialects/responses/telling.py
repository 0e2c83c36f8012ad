"""What a chat's message says, in one piece or bit by bit, told as the items of a response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model_gateway.dialects.responses.output import CALL_KINDS, CallItem, Item, MessageItem, ReasoningItem
from model_gateway.errors import GatewayError

JSON = dict[str, Any]


class Output:
    """The items, and who of them is still being said: one of reasoning or text, and calls side by side.

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

        Raises:
            GatewayError: ``upstream_invalid_response``: it is none.
        """
        yield from self._reason(said)
        text, notes = _text(said, "content"), _annotations(said)
        probs = _logprobs(logprobs)
        if text or probs:
            yield from self._opened_message()
            yield from self._message().say(text, probs)
        for note in notes:
            yield from self._opened_message()
            yield from self._message().annotate(note)
        refusal = _text(said, "refusal")
        if refusal:
            yield from self._opened_message()
            yield from self._message().refuse(refusal)
        for position, call in enumerate(_objects(said.get("tool_calls"))):
            yield from self._call(call, position)

    def close(self, status: str) -> Iterator[JSON]:
        """The events of the end; an answer of nothing is an empty message.

        Args:
            status: of what is still open: ``completed`` or ``incomplete``.
        """
        if not self.items:
            yield from self._opened_message()
            yield from self._message().say("", [])
        yield from self._end(status)
        for call in self._calls.values():
            yield from call.close(status)
        self._calls = {}
