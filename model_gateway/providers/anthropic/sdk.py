"""The same requests through the official SDK, for what needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2
from anthropic import APIConnectionError, AsyncAnthropic, AsyncStream, Omit
from typing_extensions import override

from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.sdk_transport import SdkTransport, http_client, time_limits

_NO_KEY: Final = "none"
"""What the SDK gets in place of a key, so that it looks for none in the environment; it is never sent."""

_UNSET: Final[Mapping[str, str | Omit]] = {"Authorization": Omit(), "Accept-Encoding": "identity"}
"""The SDK would send the key as a bearer token; the vendor takes both, and ``x-api-key`` for longer."""


class _Client(AsyncAnthropic):
    """The SDK's client: no retries, no settings but the row's."""

    def __init__(self, settings: ProviderSettings, base: str) -> None:
        super().__init__(
            api_key=_NO_KEY,
            base_url=base,
            max_retries=0,
            timeout=time_limits(settings),
            http_client=http_client(settings),
            open_telemetry=False,
        )
        # Those of ANTHROPIC_CUSTOM_HEADERS, which win over a request's own defaults.
        self._custom_headers = {}


class AnthropicSdkTransport(SdkTransport):
    """A POST by ``AsyncAnthropic``.

    Args:
        settings: the deployment's.
        base: the server.
        headers: what lets a call in, and how it is meant.
    """

    def __init__(self, settings: ProviderSettings, base: str, headers: Mapping[str, str]) -> None:
        super().__init__(settings, APIConnectionError)
        self._headers = {**_UNSET, **headers}
        self._client = _Client(settings, base)

    @override
    async def open(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        stream = await self._client.post(
            path,
            cast_to=object,
            body=body,
            options={"headers": self._headers},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        return stream.response

    @override
    async def close(self) -> None:
        await self._client.close()
