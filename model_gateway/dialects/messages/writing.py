"""A chat completion said as a message, whole or as events: one mapper for both.

- ``reasoning_content`` (some vendors call it ``reasoning``) becomes a block of thinking. Its signature, and thinking
  that is redacted, come in ``thinking_blocks`` from providers whose vendor signs; else the signature is empty.
- A refusal is text, and the stop reason ``refusal``.
- Ends: ``stop`` is ``end_turn``, or ``tool_use`` where a tool is called, as some vendors call it too; ``length`` is
  ``max_tokens``. Whether a stop sequence was met a chat does not tell.
- A stream's ``message_start`` knows no counts; the sums stand in ``message_delta``. They are 0 where the provider says
  nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import jiter
import orjson
from typing_extensions import override

from model_gateway.dialects.answers import Piece, Writer, named
from model_gateway.dialects.chat import ChatUsage, chat_usage, choices_of, index_of
from model_gateway.dialects.messages.blocks import JSON, BlockSequence
from model_gateway.dialects.messages.usage import messages_from_usage
from model_gateway.dialects.saying import calls_of, content_of, invalid, objects, reasoning_of, text_in
from model_gateway.money import Usage

_STOP_REASONS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""By finish reason; one that is not known is ``end_turn``."""

_ADDED: Final[Mapping[str, str]] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
"""Which member of a delta is added to its block."""


class MessageWriter(Writer):
    """Says one chat completion as a message.

    Args:
        model: the name that the message gives.
        show_thinking: whether the client wants to read what the model thought.
        usage_of: tokens by kind out of a completion or a chunk of this provider's.
    """

    def __init__(self, model: str, *, show_thinking: bool = True, usage_of: ChatUsage = chat_usage) -> None:
        self._model = model
        self._show_thinking = show_thinking
        self._usage_of = usage_of
        self._blocks = BlockSequence()
        self._usage: Usage | None = None
        self._begun = self._calls = self._refused = False
        self._unnumbered = 0
        self._finish = ""

    @override
    def reply(self, parsed: dict[str, Any], text: bytes) -> bytes:
        choice = next(iter(choices_of(parsed)), None)
        message = choice.get("message") if choice else None
        if choice is None or not isinstance(message, dict):
            raise invalid("a completion without a message")
        self._usage = self._usage_of(parsed)
        self._finish = str(choice.get("finish_reason") or "")
        content = _gathered([*self._deltas(message), *self._blocks.end()], cut=self._finish == "length")
        return orjson.dumps(self._message(parsed, content, self._stop_reason()))

    @override
    def chunk(self, parsed: dict[str, Any], text: bytes) -> Iterator[Piece]:
        if not self._begun:
            self._begun = True
            yield named({"type": "message_start", "message": self._message(parsed, [], None)})
        self._usage = self._usage_of(parsed) or self._usage
        for choice in choices_of(parsed):
            if index_of(choice) == 0:
                self._finish = str(choice.get("finish_reason") or self._finish)
                yield from map(named, self._deltas(choice.get("delta")))

    @override
    def end(self) -> Iterator[Piece]:
        yield from map(named, self._blocks.end())
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        yield named({"type": "message_delta", "delta": delta, "usage": messages_from_usage(self._usage)})
        yield named({"type": "message_stop"})

    def _message(self, parsed: Mapping[str, Any], content: list[JSON], stop_reason: str | None) -> JSON:
        return {
            "id": f"msg_{parsed.get('id') or secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": messages_from_usage(self._usage),
        }

    def _stop_reason(self) -> str:
        reason = _STOP_REASONS.get(self._finish, "end_turn")
        if reason == "end_turn" and self._refused:
            return "refusal"
        return "tool_use" if reason == "end_turn" and self._calls else reason

    def _deltas(self, delta: Any) -> Iterator[JSON]:
        """The events of what is added by a chunk, or said by a whole message."""
        if not isinstance(delta, dict):
            return
        yield from self._thinking(delta)
        if said := content_of(delta):
            yield from self._blocks.text(said)
        if refusal := text_in(delta, "refusal"):
            self._refused = True
            yield from self._blocks.text(refusal)
        for call in calls_of(delta):
            yield from self._call(call)

    def _thinking(self, delta: JSON) -> Iterator[JSON]:
        """Thinking as it comes; and whole blocks of it, which say the same again, with a signature."""
        signed = objects(delta.get("thinking_blocks"))
        thought = reasoning_of(delta)
        if thought and self._show_thinking and not signed:
            yield from self._blocks.thinking(thought)
        for block in signed:
            if block.get("type") != "thinking":
                yield from self._blocks.whole(_unnumbered(block))
                continue
            if not self._blocks.thinks:
                yield from self._blocks.thinking(text_in(block, "thinking") if self._show_thinking else "")
            yield from self._blocks.signature(text_in(block, "signature"))

    def _call(self, call: JSON) -> Iterator[JSON]:
        """A call or more of one. Servers that do not number them give each in one piece, or one after the other."""
        function = call.get("function")
        if not isinstance(function, dict):
            raise invalid("a tool call that is no function's")
        self._calls = True
        name, number = text_in(function, "name"), call.get("index")
        if not isinstance(number, int):
            self._unnumbered -= 1 if name else 0
            number = self._unnumbered
        yield from self._blocks.call(number, name, text_in(call, "id"), text_in(function, "arguments"))


def _gathered(events: Iterable[JSON], *, cut: bool) -> list[JSON]:
    """The blocks that events make, as a client puts them together; ``cut``: the output bound came before their end."""
    blocks: list[JSON] = []
    for event in events:
        match event["type"]:
            case "content_block_start":
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                name = _ADDED[event["delta"]["type"]]
                blocks[-1][name] = blocks[-1].get(name, "") + event["delta"][name]
    return [_with_input(block, cut=cut) for block in blocks]


def _with_input(block: JSON, *, cut: bool) -> JSON:
    """A call with its arguments read; of those that were cut, as much as a client of the stream can read."""
    if block["type"] != "tool_use":
        return block
    try:
        arguments = (block.pop("partial_json", "") or "{}").encode()
        found = jiter.from_json(arguments, allow_inf_nan=False, partial_mode=cut)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise invalid("a tool call whose arguments are no JSON object")
    return {**block, "input": found}


def _unnumbered(block: JSON) -> JSON:
    """A block of thinking as its vendor made it, without its place in the chat's list.

    Raises:
        GatewayError: ``upstream_invalid_response``: it is of no kind.
    """
    text_in(block, "type")
    if not block.get("type"):
        raise invalid("a block of thinking without a type")
    return {name: value for name, value in block.items() if name != "index"}
