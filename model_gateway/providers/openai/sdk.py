"""The same requests through the official SDK, for what needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx2
from openai import APIConnectionError, AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, Omit
from typing_extensions import override

from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.sdk_transport import SdkTransport, http_client, time_limits
from model_gateway.providers.transport import Credentials

_NO_KEY: Final = "none"
"""What the SDK gets in place of a key, so that it looks for none in the environment; it is never sent."""

_OURS: Final[Mapping[str, str | Omit]] = {
    "Authorization": Omit(),
    "api-key": Omit(),
    "OpenAI-Organization": Omit(),
    "OpenAI-Project": Omit(),
    "Accept-Encoding": "identity",
}
"""Said in each request: what is unset the SDK takes from variables that are meant for the vendor."""


def openai_client(settings: ProviderSettings, base: str) -> AsyncOpenAI:
    """The SDK's client: no retries, no settings but the row's."""
    return AsyncOpenAI(api_key=_NO_KEY, base_url=base, **_options(settings))


def azure_client(settings: ProviderSettings, endpoint: str, api_version: str) -> AsyncOpenAI:
    """The same for Azure: its base is ``<endpoint>/openai``, and it puts the deployment into a path that needs one."""
    return AsyncAzureOpenAI(api_key=_NO_KEY, azure_endpoint=endpoint, api_version=api_version, **_options(settings))


def _options(settings: ProviderSettings) -> dict[str, Any]:
    return {"max_retries": 0, "timeout": time_limits(settings), "http_client": http_client(settings)}


class OpenAISdkTransport(SdkTransport):
    """A POST by ``AsyncOpenAI``, or what is made of it for Azure."""

    def __init__(self, settings: ProviderSettings, client: AsyncOpenAI, credentials: Credentials) -> None:
        super().__init__(settings, APIConnectionError)
        self._client = client
        self._credentials = credentials

    @override
    async def open(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        path, _, query = path.partition("?")
        headers = {**_OURS, **await self._credentials()}
        # Azure's client adds a version to each call, where one of its paths must have none.
        params = {"api-version": Omit(), **dict(parse_qsl(query))}
        stream = await self._client.post(
            path,
            cast_to=object,
            body=body,
            options={"headers": headers, "params": params},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        return stream.response

    @override
    async def close(self) -> None:
        await self._client.close()
