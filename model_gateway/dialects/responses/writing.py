"""A chat completion told as a response, whole or as the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from typing_extensions import override

from model_gateway.dialects.answers import Piece, Writer, named
from model_gateway.dialects.chat import ChatUsage, chat_usage, choices_of, index_of
from model_gateway.dialects.responses.envelope import ended, new_response, status_of, usage_of
from model_gateway.dialects.responses.telling import Output
from model_gateway.dialects.responses.to_chat import ENCRYPTED, included
from model_gateway.errors import GatewayError

JSON = dict[str, Any]


class ResponsesWriter(Writer):
    """Tells one chat completion as a response.

    Args:
        payload: the request's body.
        model: the name that the response gives.
        usage_of: tokens by kind out of a completion or a chunk of this provider's.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        payload: Mapping[str, Any],
        model: str,
        usage_of: ChatUsage = chat_usage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._usage_of = usage_of
        self._clock = clock
        self._response = new_response(payload, model, int(clock()))
        self._output = Output(sealed=included(payload, ENCRYPTED))
        self._finish_reason = ""
        self._events = 0

    @override
    def reply(self, parsed: dict[str, Any], text: bytes) -> bytes:
        """The whole response.

        Raises:
            GatewayError: ``upstream_invalid_response``: the completion has no choice, or none that makes sense.
        """
        if not choices_of(parsed):
            raise GatewayError("upstream_invalid_response", "the provider answered without a choice")
        # The events are only a way to the items here.
        list(self._told(parsed, "message"))
        list(self._output.close(status_of(self._finish_reason)))
        return orjson.dumps(self._ended())

    @override
    def chunk(self, parsed: dict[str, Any], text: bytes) -> Iterator[Piece]:
        if not self._events:
            yield self._event({"type": "response.created", "response": self._response})
            yield self._event({"type": "response.in_progress", "response": self._response})
        yield from map(self._event, self._told(parsed, "delta"))

    @override
    def end(self) -> Iterator[Piece]:
        status = status_of(self._finish_reason)
        yield from map(self._event, self._output.close(status))
        yield self._event({"type": f"response.{status}", "response": self._ended()})

    def _told(self, parsed: JSON, member: str) -> Iterator[JSON]:
        """The events of a completion or a chunk, whose choice says what it says in ``member``."""
        usage = self._usage_of(parsed)
        if usage is not None:
            self._response["usage"] = usage_of(usage)
        if isinstance(parsed.get("service_tier"), str):
            self._response["service_tier"] = parsed["service_tier"]
        for choice in choices_of(parsed):
            if index_of(choice) == 0:
                said = choice.get(member)
                yield from self._output.tell(said if isinstance(said, dict) else {}, choice.get("logprobs"))
                self._finish_reason = str(choice.get("finish_reason") or self._finish_reason)

    def _ended(self) -> JSON:
        return ended(self._response, self._output.items, self._finish_reason, int(self._clock()))

    def _event(self, event: JSON) -> Piece:
        """An event with its number, written down at once."""
        number, self._events = self._events, self._events + 1
        return named({**event, "sequence_number": number})
