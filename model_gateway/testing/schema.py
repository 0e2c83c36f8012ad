"""OpenAI's chat completion, as far as every client relies on it; further members are free."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from model_gateway.providers import JSONObject

Finish = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
Index = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Function(_Shape):
    """What is called; the arguments are JSON text."""

    name: Text
    arguments: str


class ToolCall(_Shape):
    """One call of a tool."""

    id: Text
    type: Literal["function"]
    function: Function


class Message(_Shape):
    """A whole answer."""

    role: Literal["assistant"]
    content: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1)] | None = None


class Choice(_Shape):
    """One of a whole reply's answers."""

    index: Index
    message: Message
    finish_reason: Finish


class _Object(_Shape):
    id: Text
    created: Annotated[int, Field(gt=0)]
    model: Text


class Completion(_Object):
    """A whole reply."""

    object: Literal["chat.completion"]
    choices: Annotated[list[Choice], Field(min_length=1)]


class FunctionDelta(_Shape):
    """A piece of what is called."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Shape):
    """A piece of one call; the index says of which."""

    index: Index
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta | None = None


class Delta(_Shape):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(_Shape):
    """What a chunk says of one of the answers."""

    index: Index
    delta: Delta
    finish_reason: Finish | None = None


class Chunk(_Object):
    """One chunk of a stream; the one that tells usage may have no choices."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


def members(answer: JSONObject) -> dict[str, Any]:
    """A provider's object, parsed, whichever way it gave it.

    Raises:
        ValueError: it is no JSON object.
    """
    found = orjson.loads(answer if isinstance(answer, bytes) else orjson.dumps(answer))
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} in place of a JSON object")  # noqa: TRY004 - it is the value's fault
    return found


def joined_calls(chunks: list[Chunk], choice: int = 0) -> list[ToolCall]:
    """The tool calls that a stream's pieces make together, checked like those of a whole reply."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in call_pieces(chunks, choice):
        call = calls.setdefault(piece.index, {"id": "", "type": None, "function": {"name": "", "arguments": ""}})
        call["id"] += piece.id or ""
        call["type"] = piece.type or call["type"]
        if piece.function:
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""
    return [ToolCall.model_validate(calls[index]) for index in sorted(calls)]


def call_pieces(chunks: list[Chunk], choice: int = 0) -> list[ToolCallDelta]:
    """The pieces of a stream's tool calls, in order."""
    return [piece for delta in _deltas(chunks, choice) for piece in delta.tool_calls or ()]


def joined_text(chunks: list[Chunk], choice: int = 0) -> str:
    """The text that a stream's pieces make together."""
    return "".join(delta.content or "" for delta in _deltas(chunks, choice))


def _deltas(chunks: list[Chunk], choice: int) -> list[Delta]:
    return [found.delta for chunk in chunks for found in chunk.choices if found.index == choice]
