"""OpenAI's chat completions, from the vendor itself or from any server that speaks the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import orjson
from yarl import URL

from model_gateway import tokens
from model_gateway.providers import upstream_errors
from model_gateway.providers.interface import ProviderInterface, ProviderSettings
from model_gateway.providers.sse import EventTooLargeError, SSEParser
from model_gateway.providers.transport import (
    HttpTransport,
    Reply,
    ReplyTooLargeError,
    Transport,
)
from model_gateway.settings import ConfigError

VENDOR: Final = "https://api.openai.com/v1"
MAX_REPLY_BYTES: Final = 64 * 2**20
_MAX_REST_BYTES: Final = 64 * 2**10
_ERROR_SECONDS: Final = 5.0
"""Time for the body of an error status, which has said enough by itself."""
_DRAIN_SECONDS: Final = 0.1
"""Time for the last bytes after ``[DONE]``, with which the connection can be used again."""


class OpenAIProvider(ProviderInterface):
    """Chat completions, whole and streamed; replies are passed on byte for byte."""

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        _check(self.settings)
        self._transport = _transport(self.settings)

    @property
    def max_tokens_field(self) -> str:
        """The vendor's reasoning models refuse ``max_tokens``; many compatible servers know nothing else."""
        return self.settings.max_tokens_field or ("max_tokens" if self.settings.api_base else "max_completion_tokens")

    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> bytes:
        """One whole chat completion: the provider's own bytes, if they are an object and no error."""
        async with self._transport.post({"model": model, "messages": messages, **kwargs}) as reply:
            await self._check_status(reply)
            try:
                body = await reply.read(MAX_REPLY_BYTES)
            except ReplyTooLargeError as error:
                raise upstream_errors.invalid(self.settings, str(error)) from None
        self._check_reply(body)
        return body

    async def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[bytes]:
        """The ``data`` of each event, without ``[DONE]``; usage is always asked for.

        Chunks are passed on unparsed, as the caller has to read them anyway.
        """
        parser, empty = SSEParser(), True
        async with self._transport.post(_stream_body(messages, model, kwargs)) as reply:
            await self._check_status(reply)
            async for part in reply.parts:
                chunks, done = self._chunks(parser, part)
                for chunk in chunks:
                    self._check_chunk(chunk)
                    empty = False
                    yield chunk
                if done:
                    await reply.rest(_MAX_REST_BYTES, _DRAIN_SECONDS)
                    break
        if empty:
            raise upstream_errors.invalid(self.settings, "a stream without a chunk")

    def _chunks(self, parser: SSEParser, part: bytes) -> tuple[list[bytes], bool]:
        """The chunks that ``part`` completes, and whether they are the last."""
        try:
            events = parser.feed(part)
        except EventTooLargeError as error:
            raise upstream_errors.invalid(self.settings, str(error)) from None
        for index, event in enumerate(events):
            if event.startswith(b"[DONE]"):
                return events[:index], True
        return events, False

    async def _check_status(self, reply: Reply) -> None:
        if not 200 <= reply.status < 300:
            body = await reply.rest(_MAX_REST_BYTES, _ERROR_SECONDS)
            raise upstream_errors.from_status(self.settings, reply.status, reply.headers, body)

    def _check_reply(self, body: bytes) -> None:
        try:
            members = orjson.loads(body)
        except ValueError:
            what = "something that is not JSON" if body.strip() else "an empty body"
            raise upstream_errors.invalid(self.settings, what) from None
        if not isinstance(members, dict):
            raise upstream_errors.invalid(self.settings, "JSON that is not an object")
        self._check_error(members)

    def _check_chunk(self, chunk: bytes) -> None:
        if b'"error"' not in chunk:
            return
        try:
            members = orjson.loads(chunk)
        except ValueError:
            return
        if isinstance(members, dict):
            self._check_error(members)

    def _check_error(self, members: Mapping[str, Any]) -> None:
        error = upstream_errors.in_reply(self.settings, members)
        if error is not None:
            raise error

    def count_tokens(self, text: str, model: str) -> int:
        """Tokens in ``text``, by the model's own encoding where it is known."""
        return tokens.count_tokens(text, model)

    async def close(self) -> None:
        """Let go of the transport's connections, where they are its own."""
        await self._transport.close()


def _stream_body(messages: list[dict[str, Any]], model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(fields.get("stream_options") or {}), "include_usage": True}
    return {"model": model, "messages": messages, **fields, "stream": True, "stream_options": options}


def _check(settings: ProviderSettings) -> None:
    """Refuse what could only fail later, at each request."""
    problems = []
    if settings.options:
        problems.append(f"models.{settings.name}.options: the provider 'openai' has none")
    if not (settings.api_key.isascii() and settings.api_key.isprintable()):
        problems.append(f"models.{settings.name}: its API key holds characters that no HTTP header can carry")
    if not _is_url(settings.api_base or VENDOR):
        problems.append(f"models.{settings.name}.api_base: is not a URL")
    if problems:
        raise ConfigError("config", problems)


def _is_url(text: str) -> bool:
    try:
        return bool(URL(text).host)
    except ValueError:
        return False


def _transport(settings: ProviderSettings) -> Transport:
    base = (settings.api_base or VENDOR).rstrip("/")
    if settings.transport != "sdk":
        return HttpTransport(settings, f"{base}/chat/completions")
    # Half a second to load: only for who asks for it.
    from model_gateway.providers.openai_sdk import SdkTransport  # noqa: PLC0415

    return SdkTransport(settings, base)
