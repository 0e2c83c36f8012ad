"""A message, whole or as events, as a chat completion or its chunks: pure, one mapper for both.

What a chat completion has no member for is told in the gateway's own:

- ``reasoning_content``: what the model says of its thinking.
- ``thinking_blocks``: the same as signed blocks, to be sent back with the assistant's message; in a stream each comes
  whole, once it is complete.
- ``citations``: of the text, as the vendor gives them.

In a stream the entries of the last two bear their ``index``, as those of ``tool_calls`` do: OpenAI's SDK puts no list
together without.

Ends: ``end_turn`` and ``stop_sequence`` are ``stop``; ``max_tokens``, a full context and ``pause_turn`` (the turn is
not over) are ``length``; ``tool_use`` is ``tool_calls``; ``refusal`` is ``content_filter``, with the explanation as
``refusal``. A reason that is not known passes as it is. Blocks and deltas that are not known (tools that the vendor
runs itself can't be asked for here) make the reply invalid; events that are not known are passed over, as the vendor's
rules for its versions ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson

from model_gateway.providers.anthropic.usage import JSON, chat_members

T = TypeVar("T")

MAX_KEPT: Final = 16 * 2**20
"""Characters of thinking that are kept until its block is complete."""

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_BLOCKS: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


class BadReplyError(ValueError):
    """A reply that is no message; says what it is instead."""


def completion(message: Mapping[str, Any], created: int) -> JSON:
    """A whole message as a chat completion; without ``usage`` where the message has none.

    Args:
        message: the reply.
        created: seconds since the epoch.

    Raises:
        BadReplyError: it is no message.
    """
    mapper = MessageMapper(created)
    mapper.start(message)
    said: JSON = {}
    for index, block in enumerate(_take(message, "content", list)):
        _gather(said, mapper.open(index, block))
        _gather(said, mapper.close(index))
    _gather(said, mapper.finish(message))
    empty = {"role": "assistant", "content": None if "tool_calls" in said else "", "refusal": None}
    choice = {"index": 0, "message": {**empty, **said}, "logprobs": None, "finish_reason": mapper.finish_reason}
    return mapper.envelope("chat.completion", [choice]) | mapper.cost(message)


def _gather(said: JSON, deltas: Iterator[JSON]) -> None:
    """Put deltas together, as a client does; a call's first one has its id."""
    for delta in deltas:
        for call in delta.pop("tool_calls", ()):
            del call["index"]
            if "id" in call:
                said.setdefault("tool_calls", []).append(call)
            else:
                said["tool_calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
        for name, value in delta.items():
            if isinstance(value, list):
                said.setdefault(name, []).extend(_without_index(entry) for entry in value)
            else:
                said[name] = said[name] + value if name in said else value


def _without_index(entry: JSON) -> JSON:
    return {name: value for name, value in entry.items() if name != "index"}


@dataclass(slots=True)
class _Block:
    """A block that has begun: as it came, what was added to its members since, and the number of its call."""

    block: JSON
    added: dict[str, list[str]] = field(default_factory=dict)
    call: int = -1
    bare: bool = False

    def whole(self) -> JSON:
        """The block with all that was added."""
        return self.block | {name: str(self.block.get(name) or "") + "".join(more) for name, more in self.added.items()}


class MessageMapper:
    """Turns the events of one message into chunks; a whole message is taken apart by the same methods.

    Args:
        created: seconds since the epoch.

    Attributes:
        finish_reason: why it ended, in a chat's words; None until it has.
    """

    def __init__(self, created: int) -> None:
        self.finish_reason: str | None = None
        self._created = created
        self._message: Mapping[str, Any] = {}
        self._usage: JSON = {}
        self._open: dict[int, _Block] = {}
        self._calls = self._thoughts = self._citations = 0
        self._kept = 0

    def chunks(self, event: Mapping[str, Any]) -> Iterator[JSON]:
        """The chunks that an event becomes.

        Raises:
            BadReplyError: it makes no sense.
        """
        match _take(event, "type", str):
            case "message_start":
                self.start(_take(event, "message", dict))
                yield self._chunk({"role": "assistant", "content": ""})
            case "content_block_start":
                yield from map(self._chunk, self.open(_take(event, "index", int), event.get("content_block")))
            case "content_block_delta":
                yield from map(self._chunk, self.add(_take(event, "index", int), event.get("delta")))
            case "content_block_stop":
                yield from map(self._chunk, self.close(_take(event, "index", int)))
            case "message_delta":
                yield from self._end(event)

    def start(self, message: Mapping[str, Any]) -> None:
        """Note what a message says of itself."""
        if message.get("type") != "message":
            raise BadReplyError("JSON that is no message")
        self._message = message

    def open(self, index: int, block: Any) -> Iterator[JSON]:
        """The deltas of a block as it begins: empty in a stream, all of it otherwise."""
        if not self._message:
            raise BadReplyError("a block without its message")
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or kind not in _BLOCKS:
            raise BadReplyError(f"a block of the unknown type {kind!r}")
        state = self._open[index] = _Block(dict(block))
        if kind == "text":
            yield from _told("content", _take(block, "text", str))
            found = block.get("citations") or []
            yield from map(self._cite, found if isinstance(found, list) else [found])
        elif kind == "thinking":
            yield from _told("reasoning_content", _take(block, "thinking", str))
        elif kind == "tool_use":
            yield self._begin_call(state)

    def add(self, index: int, delta: Any) -> Iterator[JSON]:
        """The deltas of what is added to a block."""
        state = self._state(index)
        match delta.get("type") if isinstance(delta, dict) else None:
            case "text_delta":
                yield from _told("content", _take(delta, "text", str))
            case "citations_delta":
                yield self._cite(delta.get("citation"))
            case "input_json_delta":
                yield from self._arguments(state, _take(delta, "partial_json", str))
            case "thinking_delta":
                yield from _told("reasoning_content", self._keep(state, "thinking", delta))
            case "signature_delta":
                self._keep(state, "signature", delta)
            case kind:
                raise BadReplyError(f"a delta of the unknown type {kind!r}")

    def close(self, index: int) -> Iterator[JSON]:
        """The deltas of a block's end."""
        state = self._state(index)
        del self._open[index]
        if state.block["type"] in ("thinking", "redacted_thinking"):
            yield {"thinking_blocks": [{"index": self._thoughts, **state.whole()}]}
            self._thoughts += 1
        elif state.bare:
            yield _call(state, {"function": {"arguments": "{}"}})

    def finish(self, delta: Mapping[str, Any]) -> Iterator[JSON]:
        """The deltas of the message's end: what a refusal explains."""
        if self._open:
            raise BadReplyError("a message that ends within a block")
        reason = delta.get("stop_reason")
        if isinstance(reason, str):
            self.finish_reason = _FINISH.get(reason, reason)
        details = delta.get("stop_details")
        explanation = details.get("explanation") if isinstance(details, dict) else None
        if isinstance(explanation, str):
            yield from _told("refusal", explanation)

    def cost(self, said: Mapping[str, Any]) -> JSON:
        """The members for what it cost, by the newest ``usage``: each count is the sum until then."""
        newest = said.get("usage")
        if not isinstance(newest, dict):
            return {}
        first = self._message.get("usage")
        counts = first if isinstance(first, dict) else {}
        return chat_members({**counts, **{name: value for name, value in newest.items() if value is not None}})

    def envelope(self, kind: str, choices: list[JSON]) -> JSON:
        """What a completion and its chunks share."""
        head = {"id": self._message.get("id"), "object": kind, "created": self._created}
        return {**head, "model": self._message.get("model"), "choices": choices}

    def _end(self, event: Mapping[str, Any]) -> Iterator[JSON]:
        """The end, then what it cost. ``message_stop`` adds nothing to them."""
        yield from map(self._chunk, self.finish(_take(event, "delta", dict)))
        if self.finish_reason is not None:
            yield self._chunk({}, self.finish_reason)
        cost = self.cost(event)
        if cost:
            yield self.envelope("chat.completion.chunk", []) | cost

    def _chunk(self, delta: JSON, finish_reason: str | None = None) -> JSON:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self.envelope("chat.completion.chunk", [choice])

    def _state(self, index: int) -> _Block:
        if index not in self._open:
            raise BadReplyError("a delta without its block")
        return self._open[index]

    def _begin_call(self, state: _Block) -> JSON:
        state.call, self._calls = self._calls, self._calls + 1
        given = _take(state.block, "input", dict)
        state.bare = not given
        function = {"name": _take(state.block, "name", str), "arguments": orjson.dumps(given).decode() if given else ""}
        return _call(state, {"id": _take(state.block, "id", str), "type": "function", "function": function})

    def _cite(self, citation: Any) -> JSON:
        if not isinstance(citation, dict):
            raise BadReplyError("a citation that is none")
        number, self._citations = self._citations, self._citations + 1
        return {"citations": [{"index": number, **citation}]}

    def _arguments(self, state: _Block, text: str) -> Iterator[JSON]:
        if state.call < 0:
            raise BadReplyError("arguments without a call")
        if text:
            state.bare = False
            yield _call(state, {"function": {"arguments": text}})

    def _keep(self, state: _Block, name: str, delta: Mapping[str, Any]) -> str:
        text = _take(delta, name, str)
        self._kept += len(text)
        if self._kept > MAX_KEPT:
            raise BadReplyError(f"thinking of more than {MAX_KEPT} characters")
        state.added.setdefault(name, []).append(text)
        return text


def _call(state: _Block, members: JSON) -> JSON:
    return {"tool_calls": [{"index": state.call, **members}]}


def _told(name: str, value: Any) -> Iterator[JSON]:
    if value:
        yield {name: value}


def _take(members: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = members.get(name)
    if not isinstance(value, kind):
        raise BadReplyError(f"a message whose {name} is no {kind.__name__}")
    return value
