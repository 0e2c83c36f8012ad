"""The same requests through the official SDK, for what needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2
from google import genai
from google.genai import errors, types
from typing_extensions import override

from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.sdk_transport import SdkTransport, time_limits
from model_gateway.providers.transport import Credentials

_NO_KEY: Final = "none"
"""What the SDK gets in place of a key, so that it looks for none in the environment; it is never sent."""

_KEY_HEADER: Final = "x-goog-api-key"
_PLACEHOLDER: Final = "-"
"""What the typed call is given for content; ``extra_body``, in which the whole body goes, takes its place."""


class _AnsweredError(Exception):
    """Carries a reply past the SDK, which would read it without a bound and into its own objects."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _HttpClient(httpx2.AsyncClient):
    """The HTTP client for the SDK: no redirects, no settings but the row's. Each answer is raised, its body unread."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            trust_env=settings.http is not None and settings.http.trust_env,
        )
        self._within = time_limits(settings).as_dict()

    @override
    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        # The SDK sets no time-outs, or one for each read; and it always sends a key.
        request.extensions = {**request.extensions, "timeout": self._within}
        if request.headers.get(_KEY_HEADER) == _NO_KEY:
            del request.headers[_KEY_HEADER]
        raise _AnsweredError(await super().send(request, stream=True, follow_redirects=False))


class GoogleSdkTransport(SdkTransport):
    """A POST by the typed calls of ``google.genai``: no retries, no settings but the row's.

    Args:
        settings: the deployment's.
        base: the server, with the API's version.
        credentials: what lets a call in.
        vertex: whether it is Vertex AI.
    """

    def __init__(self, settings: ProviderSettings, base: str, credentials: Credentials, *, vertex: bool) -> None:
        super().__init__(settings, errors.APIError)
        self._credentials = credentials
        self._http = _HttpClient(settings)
        options = types.HttpOptions(
            base_url=base,
            # The base is whole: neither a version is added, nor a project.
            base_url_resource_scope=types.ResourceScope.COLLECTION,
            httpx_async_client=self._http,
        )
        self._client = genai.Client(vertexai=vertex, api_key=_NO_KEY, http_options=options)

    @override
    async def open(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        model, _, method = path.removeprefix("/").rpartition(":")
        headers = {"Accept-Encoding": "identity", **await self._credentials()}
        options = types.HttpOptions(headers=headers, extra_body=dict(body))
        try:
            await self._call(method.partition("?")[0], model, options)
        except _AnsweredError as answered:
            return answered.response
        raise AssertionError("the SDK did not ask")

    async def _call(self, method: str, model: str, options: types.HttpOptions) -> None:
        models = self._client.aio.models
        if method == "generateContent":
            config = types.GenerateContentConfig(http_options=options)
            await models.generate_content(model=model, contents=_PLACEHOLDER, config=config)
        elif method == "streamGenerateContent":
            config = types.GenerateContentConfig(http_options=options)
            stream = await models.generate_content_stream(model=model, contents=_PLACEHOLDER, config=config)
            await anext(stream)
        else:
            # How many there are makes the method, on Vertex AI.
            contents = [_PLACEHOLDER] * (1 if method == "embedContent" else 2)
            embedding = types.EmbedContentConfig(http_options=options)
            await models.embed_content(model=model, contents=list(contents), config=embedding)

    @override
    async def close(self) -> None:
        await self._http.aclose()
        self._client.close()
