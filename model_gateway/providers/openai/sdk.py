"""The same requests through the official SDK, for what needs it; costs about ten times the CPU.

Its typed objects are left aside: the same code reads the reply's bytes as over plain HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
from openai import APIConnectionError, AsyncOpenAI, AsyncStream, Omit

from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.transport import Reply, connect_seconds

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_FAILURES = (APIConnectionError, httpx2.RequestError, ssl.SSLError, anyio.EndOfStream, TimeoutError)


class _ErrorStatusError(Exception):
    """Carries a reply past the SDK, which would read it without a bound, and lose the status if that fails."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _HttpClient(httpx2.AsyncClient):
    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = await super().send(request, **options)
        if not response.is_success:
            raise _ErrorStatusError(response)
        return response


class SdkTransport:
    """A POST by ``AsyncOpenAI``: no retries, no redirects, no settings but the row's."""

    def __init__(self, settings: ProviderSettings, base_url: str) -> None:
        self._settings = settings
        timeout = httpx2.Timeout(settings.timeout, connect=connect_seconds(settings))
        self._client = AsyncOpenAI(
            api_key=settings.api_key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            http_client=_HttpClient(
                timeout=timeout,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
                follow_redirects=False,
                trust_env=settings.http is not None and settings.http.trust_env,
            ),
        )
        # Said in each request: what is unset the SDK takes from variables that are meant for the vendor.
        self._headers: dict[str, str | Omit] = {
            "Authorization": f"Bearer {settings.api_key}" if settings.api_key else Omit(),
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
            "Accept-Encoding": "identity",
        }

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Reply]:
        """POST a JSON body; see ``Transport``."""
        try:
            async with AsyncExitStack() as stack:
                yield await self._send(path, body, stack)
        except _FAILURES as error:
            failure = self._failure(error)
        else:
            return
        # Outside of the handler: the SDK's errors hold the request's headers, not to become its context.
        raise failure

    async def _send(self, path: str, body: Mapping[str, Any], stack: AsyncExitStack) -> Reply:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        try:
            async with asyncio.timeout_at(deadline):
                stream = await self._client.post(
                    path,
                    cast_to=object,
                    body=body,
                    options={"headers": self._headers},
                    stream=True,
                    stream_cls=AsyncStream[object],
                )
            response = stream.response
        except _ErrorStatusError as error:
            response = error.response
        stack.push_async_callback(response.aclose)
        return Reply(response.status_code, response.headers, _parts(response, deadline))

    def _failure(self, error: Exception) -> GatewayError:
        cause = error.__cause__ if isinstance(error, APIConnectionError) else error
        if isinstance(cause, _NOT_SENT):
            return upstream_errors.unreachable(self._settings)
        if isinstance(cause, (TimeoutError, httpx2.TimeoutException)):
            return upstream_errors.timed_out(self._settings)
        return upstream_errors.cut(self._settings)

    async def close(self) -> None:
        """Close the SDK's connections."""
        await self._client.close()


async def _parts(response: httpx2.Response, deadline: float) -> AsyncIterator[bytes]:
    """The body as it arrives; the SDK's own time-outs are for each read, not for the whole."""
    parts = response.aiter_bytes()
    while True:
        async with asyncio.timeout_at(deadline):
            part = await anext(parts, None)
        if part is None:
            return
        yield part
