"""Content blocks one after the other, as the Messages API has them, out of a chat's deltas, which may come crosswise.

The oldest block that is not at its end is open, and what is added to it goes out at once. What belongs to a later one
waits, unless the open block can be closed: text and thinking always can, a call once its arguments are a whole object.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from model_gateway.dialects.saying import invalid

JSON = dict[str, Any]

TEXT: Final = "text"
THINKING: Final = "thinking"


@dataclass(slots=True)
class _Block:
    """A block that has begun.

    Attributes:
        key: what its deltas are known by.
        start: the block as it begins.
        waiting: deltas that have not gone out.
        arguments: a call's, until now.
    """

    key: str
    start: JSON
    waiting: list[JSON] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing more has to come."""
        if self.start["type"] != "tool_use":
            return True
        # Looked at each time that a later block grows: put together only where it may have come to its end.
        last = next((piece for piece in reversed(self.arguments) if piece.strip()), "")
        return last.rstrip().endswith("}") and _is_object("".join(self.arguments))


class BlockSequence:
    """The blocks of one message, as events."""

    def __init__(self) -> None:
        self._index = 0
        self._blocks: deque[_Block] = deque()
        self._calls: dict[int, tuple[str, str]] = {}
        self._number = 0

    @property
    def thinks(self) -> bool:
        """Whether the newest block is one of thinking, not signed yet."""
        return bool(self._blocks) and self._blocks[-1].key == THINKING

    def text(self, text: str) -> Iterator[JSON]:
        """More of the text."""
        yield from self._add(TEXT, {"type": "text", "text": ""}, {"type": "text_delta", "text": text})

    def thinking(self, text: str) -> Iterator[JSON]:
        """More of the thinking."""
        start = {"type": "thinking", "thinking": "", "signature": ""}
        yield from self._add(THINKING, start, {"type": "thinking_delta", "thinking": text})

    def signature(self, signature: str) -> Iterator[JSON]:
        """The end of the newest block, one of thinking: what comes after it is another's."""
        yield from self._put(self._blocks[-1], {"type": "signature_delta", "signature": signature})
        self._blocks[-1].key = ""

    def whole(self, block: JSON) -> Iterator[JSON]:
        """A block in one piece."""
        yield from self._begin(_Block("", block))

    def call(self, number: int, name: str, call: str, arguments: str) -> Iterator[JSON]:
        """More of a call; its name and id come with the first of it.

        Raises:
            GatewayError: ``upstream_invalid_response``: it begins without a name, or goes on after its end.
        """
        known, key = self._calls.get(number, ("", ""))
        if not key or (call and known and call != known):
            key = f"call {self._number}"
            self._number += 1
            self._calls[number] = (call, key)
            yield from self._begin(_Block(key, _call(name, call)))
        if arguments:
            yield from self._arguments(key, arguments)

    def end(self) -> Iterator[JSON]:
        """Everything that waits, and the end of the last block."""
        while self._blocks:
            yield from self._close()

    def _arguments(self, key: str, text: str) -> Iterator[JSON]:
        block = next((block for block in self._blocks if block.key == key), None)
        if block is None:
            if text.strip():
                raise invalid("a tool call that goes on after its end")
            return
        block.arguments.append(text)
        yield from self._put(block, {"type": "input_json_delta", "partial_json": text})

    def _add(self, key: str, start: JSON, delta: JSON) -> Iterator[JSON]:
        """Add to the newest block, if it is of this kind, else begin one."""
        block = self._blocks[-1] if self._blocks and self._blocks[-1].key == key else None
        if block is None:
            block = _Block(key, start)
            yield from self._begin(block)
        yield from self._put(block, delta)

    def _begin(self, block: _Block) -> Iterator[JSON]:
        self._blocks.append(block)
        if self._blocks[0] is block:
            yield self._started()
        yield from self._advance(block)

    def _put(self, block: _Block, delta: JSON) -> Iterator[JSON]:
        yield from self._advance(block)
        if self._blocks[0] is block:
            yield self._delta(delta)
        else:
            block.waiting.append(delta)

    def _advance(self, block: _Block) -> Iterator[JSON]:
        """Close what can be closed in front of a block."""
        while self._blocks[0] is not block and self._blocks[0].whole:
            yield from self._close()

    def _close(self) -> Iterator[JSON]:
        """Close the open block, and open the next with what waits."""
        self._blocks.popleft()
        yield {"type": "content_block_stop", "index": self._index}
        self._index += 1
        if self._blocks:
            yield self._started()
            yield from map(self._delta, self._blocks[0].waiting)
            self._blocks[0].waiting.clear()

    def _started(self) -> JSON:
        return {"type": "content_block_start", "index": self._index, "content_block": self._blocks[0].start}

    def _delta(self, delta: JSON) -> JSON:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _call(name: str, call: str) -> JSON:
    if not name:
        raise invalid("a tool call without a name")
    return {"type": "tool_use", "id": call or f"toolu_{secrets.token_hex(12)}", "name": name, "input": {}}


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False
