"""Anthropic's Messages API: the transport part."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import orjson
from typing_extensions import override

from model_gateway.providers import upstream_errors
from model_gateway.providers.anthropic.errors import in_message
from model_gateway.providers.anthropic.reply import BadReplyError, MessageMapper, completion
from model_gateway.providers.anthropic.request import message_body
from model_gateway.providers.anthropic.terms import OPTIONS, Terms, option_problems, terms_of
from model_gateway.providers.http import HttpProvider, refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.sse import SSEParser
from model_gateway.providers.transport import HttpTransport, Transport, fixed

VENDOR: Final = "https://api.anthropic.com"
MESSAGES: Final = "/v1/messages"

_PATHS: Final[Mapping[str, str]] = {"messages": MESSAGES, "count_tokens": f"{MESSAGES}/count_tokens"}

TOKEN_MARGIN: Final = 1.5
"""Claude's tokens for one of OpenAI's encoding. Chosen to be rather too many than too few, and not measured: Anthropic
publishes no tokenizer. It counts only where the vendor told no usage, and for ``reserve: estimate``."""


class AnthropicProvider(HttpProvider):
    """Messages for clients that speak them, passed on byte for byte; chat completions, by mapping.

    Options: ``beta`` (values of ``anthropic-beta``), ``version`` (the ``anthropic-version``: ``2023-06-01``, or
    ``2026-10-21``, which takes no temperature, top_p or top_k), ``thinking`` (how ``reasoning_effort`` is said:
    ``adaptive``, or ``budget`` for Claude 4.5 and older).
    """

    speaks: ClassVar[frozenset[str]] = frozenset(_PATHS)

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        base = self.settings.api_base or VENDOR
        refuse_settings(settings_problems(self.settings, base, OPTIONS) + option_problems(self.settings))
        self._terms = terms_of(self.settings)
        # As OpenAI's base is written with its version, so may this one be.
        self._transport = _transport(self.settings, base.rstrip("/").removesuffix("/v1"), self._terms)

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return ("ANTHROPIC_API_KEY",)

    @override
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> dict[str, Any]:
        body = message_body(messages, model, kwargs, self._terms)
        reply = await self.post(MESSAGES, body)
        with self._reading():
            return completion(orjson.loads(reply), int(time.time()))

    @override
    async def stream(
        self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        body = {**message_body(messages, model, kwargs, self._terms), "stream": True}
        mapper = MessageMapper(int(time.time()))
        async for event in self.post_events(MESSAGES, body):
            with self._reading():
                chunks = list(mapper.chunks(_members(event)))
            for chunk in chunks:
                yield chunk

    @override
    async def native(self, /, operation: str, body: dict[str, Any]) -> bytes:
        return await self.post(self._path(operation), body)

    @override
    async def native_stream(self, /, operation: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async for event in self.post_events(self._path(operation), body):
            yield event

    @override
    async def post_events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The data of each event, ``message_stop`` included: without it the stream was cut, whatever came before.

        Raises:
            GatewayError: what the vendor answered.
        """
        event = b""
        async for event in super().post_events(path, body):
            yield event
        if not _is_last(event):
            raise upstream_errors.cut(self.settings)

    @override
    def _events(self, parser: SSEParser, part: bytes) -> tuple[list[bytes], bool]:
        events, done = super()._events(parser, part)
        for index, event in enumerate(events):
            if _is_last(event):
                return events[: index + 1], True
        return events, done

    @override
    def _check_error(self, members: Mapping[str, Any]) -> None:
        error = in_message(self.settings, members)
        if error is not None:
            raise error

    @override
    def count_tokens(self, text: str, model: str) -> int:
        return math.ceil(super().count_tokens(text, model) * TOKEN_MARGIN)

    def _path(self, operation: str) -> str:
        if operation not in _PATHS:
            raise self.cannot(operation)
        return _PATHS[operation]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BadReplyError as error:
            raise upstream_errors.invalid(self.settings, str(error)) from None


def _members(event: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(event)
    except ValueError:
        raise BadReplyError("an event that is not JSON") from None
    if not isinstance(members, dict):
        raise BadReplyError("an event that is not an object")
    return members


def _is_last(event: bytes) -> bool:
    if b'"message_stop"' not in event:
        return False
    try:
        return bool(_members(event).get("type") == "message_stop")
    except BadReplyError:
        return False


def _transport(settings: ProviderSettings, base: str, terms: Terms) -> Transport:
    headers = _headers(settings, terms)
    if settings.transport != "sdk":
        return HttpTransport(settings, base, fixed(headers))
    # Half a second to load: only for who asks for it.
    from model_gateway.providers.anthropic.sdk import AnthropicSdkTransport  # noqa: PLC0415

    return AnthropicSdkTransport(settings, base, headers)


def _headers(settings: ProviderSettings, terms: Terms) -> dict[str, str]:
    headers = {"anthropic-version": terms.version}
    if settings.api_key:
        headers["x-api-key"] = settings.api_key
    if terms.beta:
        headers["anthropic-beta"] = ",".join(terms.beta)
    return headers
