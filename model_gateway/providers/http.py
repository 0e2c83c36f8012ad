"""What every adapter of a JSON-over-HTTP vendor does alike: post, look at the status, read the reply or its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import orjson
from yarl import URL

from model_gateway import tokens
from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.interface import ProviderInterface, ProviderSettings
from model_gateway.providers.sse import EventTooLargeError, SSEParser
from model_gateway.providers.transport import Reply, ReplyTooLargeError, Transport
from model_gateway.settings import ConfigError

MAX_REPLY_BYTES: Final = 64 * 2**20
_MAX_REST_BYTES: Final = 64 * 2**10
_ERROR_SECONDS: Final = 5.0
"""Time for the body of an error status, which has said enough by itself."""
_DRAIN_SECONDS: Final = 0.1
"""Time for the last bytes after ``[DONE]``, with which the connection can be used again."""


class HttpProvider(ProviderInterface):
    """An adapter's transport part. A subclass makes ``_transport``, and maps bodies and replies by pure functions."""

    _transport: Transport

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """One whole reply: the vendor's own bytes, if they are a JSON object and no error.

        Raises:
            GatewayError: what the vendor answered.
        """
        async with self._transport.post(path, body) as reply:
            await self._check_status(reply)
            try:
                data = await reply.read(MAX_REPLY_BYTES)
            except ReplyTooLargeError as error:
                raise upstream_errors.invalid(self.settings, str(error)) from None
        self._check_reply(data)
        return data

    async def post_events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The ``data`` of each server-sent event, as it comes, up to ``[DONE]`` or the end of the body.

        Raises:
            GatewayError: what the vendor answered; an event that tells of an error; a stream without any.
        """
        parser, empty = SSEParser(), True
        async with self._transport.post(path, body) as reply:
            await self._check_status(reply)
            async for part in reply.parts:
                events, done = self._events(parser, part)
                for event in events:
                    self._check_event(event)
                    empty = False
                    yield event
                if done:
                    await reply.rest(_MAX_REST_BYTES, _DRAIN_SECONDS)
                    break
        if empty:
            raise upstream_errors.invalid(self.settings, "a stream without a chunk")

    def _events(self, parser: SSEParser, part: bytes) -> tuple[list[bytes], bool]:
        """The events that ``part`` completes, and whether they are the last."""
        try:
            events = parser.feed(part)
        except EventTooLargeError as error:
            raise upstream_errors.invalid(self.settings, str(error)) from None
        for index, event in enumerate(events):
            if event.startswith(b"[DONE]"):
                return events[:index], True
        return events, False

    async def _check_status(self, reply: Reply) -> None:
        self.limits.learn(reply.headers)
        if not 200 <= reply.status < 300:
            body = await reply.rest(_MAX_REST_BYTES, _ERROR_SECONDS)
            raise self.failure(reply.status, reply.headers, body)

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error for a status that is not 2xx; an adapter whose vendor has its own ways looks first."""
        return upstream_errors.from_status(self.settings, status, headers, body)

    def _check_reply(self, body: bytes) -> None:
        try:
            members = orjson.loads(body)
        except ValueError:
            what = "something that is not JSON" if body.strip() else "an empty body"
            raise upstream_errors.invalid(self.settings, what) from None
        if not isinstance(members, dict):
            raise upstream_errors.invalid(self.settings, "JSON that is not an object")
        self._check_error(members)

    def _check_event(self, event: bytes) -> None:
        if b'"error"' not in event:
            return
        try:
            members = orjson.loads(event)
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


def settings_problems(settings: ProviderSettings, base: str, options: frozenset[str] = frozenset()) -> list[str]:
    """What could only fail later, at each request: unknown options, a key that no header can carry, a bad base.

    Args:
        settings: the deployment's.
        base: where its server is.
        options: those that the adapter knows.
    """
    problems = [
        f"models.{settings.name}.options.{name}: the provider '{settings.provider}' has no such option"
        for name in sorted(set(settings.options) - options)
    ]
    if not (settings.api_key.isascii() and settings.api_key.isprintable()):
        problems.append(f"models.{settings.name}: its API key holds characters that no HTTP header can carry")
    if not _is_url(base):
        problems.append(f"models.{settings.name}.api_base: is not a URL")
    return problems


def refuse_settings(problems: list[str]) -> None:
    """Refuse settings that have problems.

    Raises:
        ConfigError: there are some.
    """
    if problems:
        raise ConfigError("config", problems)


def _is_url(text: str) -> bool:
    try:
        return bool(URL(text).host)
    except ValueError:
        return False
