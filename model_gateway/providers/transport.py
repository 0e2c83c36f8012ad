"""How a request reaches a provider: what a transport is, and the one over the shared HTTP session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import orjson
from yarl import URL

from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.interface import ProviderSettings


class ReplyTooLargeError(ValueError):
    """A reply passed its bound."""


@dataclass(slots=True)
class Reply:
    """A reply whose head has arrived.

    Attributes:
        status: the HTTP status.
        headers: by name, in any case.
        parts: the body, as it arrives.
    """

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]

    async def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            ReplyTooLargeError: it is longer than ``most`` bytes.
        """
        size, parts = 0, []
        async for part in self.parts:
            size += len(part)
            if size > most:
                raise ReplyTooLargeError(f"a reply of more than {most} bytes")
            parts.append(part)
        return b"".join(parts)

    async def rest(self, most: int, seconds: float) -> bytes:
        """As much of the body as comes in time, for when a failure can't change what is known already."""
        body = bytearray()
        with suppress(Exception):
            async with asyncio.timeout(seconds):
                async for part in self.parts:
                    body += part
                    if len(body) >= most:
                        break
        return bytes(body[:most])


class Transport(Protocol):
    """Carries one request to a provider, once, and the reply back; leaving early cuts the connection."""

    def post(self, path: str, body: Mapping[str, Any]) -> AbstractAsyncContextManager[Reply]:
        """POST a JSON body.

        Args:
            path: what follows the base, a query included: ``/chat/completions``.
            body: the JSON object. ``stream`` in it says whether the reply is to be read as it comes.

        Raises:
            GatewayError: on entering and while reading: unreachable, cut or out of time.
        """
        ...

    async def close(self) -> None:
        """Let go of what the transport holds."""
        ...


def connect_seconds(settings: ProviderSettings) -> float:
    """How long a connection may take; less than the call, so that a failure to connect shows as such."""
    return min(settings.connect_timeout, settings.timeout / 2)


Credentials = Callable[[], Awaitable[Mapping[str, str]]]
"""The headers that let a call in; awaited before each, so that a token can be renewed. They are never shown.

Raises:
    GatewayError: they can't be had; ``billed=False``.
"""


def fixed(headers: Mapping[str, str]) -> Credentials:
    """Credentials that never change, such as a key."""

    async def credentials() -> Mapping[str, str]:
        return headers

    return credentials


class HttpTransport:
    """A POST over the process's shared session, or over its own where none is given.

    Redirects are not followed; aiohttp repeats a request only where the method is idempotent: never a POST.
    """

    def __init__(self, settings: ProviderSettings, base: str, credentials: Credentials) -> None:
        self._settings = settings
        self._base = base.rstrip("/")
        self._credentials = credentials
        self._own: aiohttp.ClientSession | None = None
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout, connect=connect_seconds(settings))
        # A compressed stream is one that is held back somewhere.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Reply]:
        """POST a JSON body; see ``Transport``."""
        headers = {**self._headers, **await self._credentials()}
        try:
            async with self._session().post(
                URL(self._base + path, encoded=True),
                data=orjson.dumps(body),
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                yield Reply(response.status, response.headers, response.content.iter_any())
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = self._failure(error)
        else:
            return
        # Outside of the handler: aiohttp's errors hold the request's headers, not to become its context.
        raise failure

    def _session(self) -> aiohttp.ClientSession:
        if self._settings.http is not None:
            return self._settings.http
        if self._own is None:
            self._own = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._own

    def _failure(self, error: Exception) -> GatewayError:
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)):
            return upstream_errors.unreachable(self._settings)
        if isinstance(error, TimeoutError):
            return upstream_errors.timed_out(self._settings)
        return upstream_errors.cut(self._settings)

    async def close(self) -> None:
        """Close the session, where it is the transport's own."""
        if self._own is not None:
            await self._own.close()
