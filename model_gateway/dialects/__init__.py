"""Dialects: how a request is put and how its answer is told, apart from who answers.

A provider that speaks a request's dialect gets the client's own body, and its answer is passed on. Any other is asked
in the inner language, OpenAI's chat completions, and the dialect says the answer in its own words. The operations are
those of an envelope's ``op``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from model_gateway.dialects.chat import ChatRequest, parse_chat
from model_gateway.dialects.embeddings import EmbeddingsRequest, parse_embeddings
from model_gateway.dialects.messages import (
    KEEP_ALIVE,
    anthropic_error,
    parse_count_tokens,
    parse_messages,
)
from model_gateway.dialects.request import Attachments, Request, check_for, unpriced
from model_gateway.dialects.responses import parse_responses
from model_gateway.dialects.responses import stream_error as responses_stream_error
from model_gateway.errors import GatewayError


class Parse(Protocol):
    """Checks a body. Raises ``GatewayError`` (400)."""

    def __call__(self, body: bytes, *, max_choices: int = 16) -> Request:
        """The checked request."""
        ...


def openai_error(error: GatewayError) -> dict[str, Any]:
    """An error in OpenAI's shape, the same in one piece and in a stream."""
    return error.body()


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a dialect has of its own.

    Attributes:
        parse: checks a body.
        error: an error's object, as the whole answer.
        stream_error: the same as an event of a stream; its ``type`` member, if any, is the event's name.
        done: what follows a stream's last event on the wire; empty where that event says it.
        keep_alive: what is sent in silence: a comment, or an event of the dialect.
    """

    parse: Parse
    error: Callable[[GatewayError], dict[str, Any]] = openai_error
    stream_error: Callable[[GatewayError], dict[str, Any]] = openai_error
    done: bytes = b""
    keep_alive: bytes = b": keep-alive\n\n"

    def error_json(self, error: GatewayError) -> bytes:
        """An error as the whole answer, as UTF-8 JSON."""
        return orjson.dumps(self.error(error))


DIALECTS: Final[Mapping[str, Dialect]] = {
    "chat": Dialect(parse_chat, done=b"data: [DONE]\n\n"),
    "embeddings": Dialect(parse_embeddings),
    "responses": Dialect(parse_responses, stream_error=responses_stream_error),
    "messages": Dialect(parse_messages, anthropic_error, anthropic_error, keep_alive=KEEP_ALIVE),
    "count_tokens": Dialect(parse_count_tokens, anthropic_error, anthropic_error),
}
"""By operation."""

OPERATIONS: Final = frozenset(DIALECTS)

__all__ = [
    "DIALECTS",
    "OPERATIONS",
    "Attachments",
    "ChatRequest",
    "Dialect",
    "EmbeddingsRequest",
    "Request",
    "check_for",
    "openai_error",
    "unpriced",
]
