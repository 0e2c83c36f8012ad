"""Google's Gemini API: the transport part, which Vertex AI shares."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import orjson
from typing_extensions import override

from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.google import errors
from model_gateway.providers.google.embeddings import embedding_body, embeddings
from model_gateway.providers.google.reply import BadReplyError, ReplyMapper
from model_gateway.providers.google.request import content_body
from model_gateway.providers.google.terms import OPTIONS, Terms, base_of, option_problems, terms_of
from model_gateway.providers.http import HttpProvider, refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.transport import Credentials, HttpTransport, Transport, fixed

VENDOR: Final = "https://generativelanguage.googleapis.com"

VERSION: Final = "v1beta"
"""The API's version. The vendor's SDK posts to ``v1`` since its version 3; ``v1beta`` has all of that, and also the
``gemini-*-latest`` names and fields that have not got to ``v1`` yet. ``options.api_version`` chooses."""


class GeminiFamily(HttpProvider):
    """Models that speak ``generateContent``, wherever they are served.

    Tokens are counted by OpenAI's encoding (``count_tokens``), where an answer tells no usage: Gemini's own tokens are
    of about the same size, and its tokenizer is not published for all models.

    Args:
        settings: the deployment's.
        terms: how requests are put.
        transport: the way to the server.
        vertex: whether it is Vertex AI.
    """

    def __init__(self, settings: ProviderSettings, terms: Terms, transport: Transport, *, vertex: bool) -> None:
        super().__init__(settings)
        self._terms = terms
        self._transport = transport
        self._vertex = vertex

    def resource(self, model: str) -> str:
        """A model's name as in the path: ``models/<model>``, unless it has its own collection."""
        return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"

    @override
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> dict[str, Any]:
        body = content_body(messages, model, kwargs, self._terms)
        reply = await self.post(self._path(model, "generateContent"), body)
        with self._reading():
            return self._mapper(model, body).completion(orjson.loads(reply))

    @override
    async def stream(
        self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        body = content_body(messages, model, kwargs, self._terms)
        mapper = self._mapper(model, body)
        async for event in self.post_events(self._path(model, "streamGenerateContent?alt=sse"), body):
            with self._reading():
                chunks = list(mapper.chunks(_members(event)))
            for chunk in chunks:
                yield chunk
        if not mapper.complete:
            raise upstream_errors.cut(self.settings)
        for chunk in mapper.end():
            yield chunk

    @override
    async def embed(self, /, inputs: list[Any], model: str, **kwargs: Any) -> dict[str, Any]:
        resource = self.resource(model)
        method, body = embedding_body(inputs, resource, kwargs, self._terms, vertex=self._vertex)
        reply = await self.post(self._path(model, method), body)
        with self._reading():
            return embeddings(orjson.loads(reply), len(inputs), model, kwargs.get("encoding_format"))

    @override
    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        return errors.failure(self.settings, status, headers, body)

    @override
    def _check_error(self, members: Mapping[str, Any]) -> None:
        error = errors.in_reply(self.settings, members)
        if error is not None:
            raise error

    def _path(self, model: str, method: str) -> str:
        return f"/{quote(self.resource(model), safe='/@')}:{method}"

    def _mapper(self, model: str, body: Mapping[str, Any]) -> ReplyMapper:
        return ReplyMapper(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model, body.get("serviceTier", ""))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BadReplyError as error:
            raise upstream_errors.invalid(self.settings, str(error)) from None


class GoogleProvider(GeminiFamily):
    """The Gemini API, with a key.

    Options: ``api_version`` (``v1beta``), ``thinking`` (how ``reasoning_effort`` is said: by ``level``, by ``budget``,
    or ``none``; by default as the model's name says), ``include_thoughts`` (whether answers tell what was thought; by
    default where an effort is asked for), ``safety_settings`` (the vendor's own), ``task_type`` (of embeddings).
    """

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        settings = settings or ProviderSettings()
        problems = option_problems(settings)
        base = base_of(settings.api_base, VENDOR, settings.options.get("api_version"), VERSION)
        refuse_settings(settings_problems(settings, base, OPTIONS) + problems)
        credentials = fixed({"x-goog-api-key": settings.api_key} if settings.api_key else {})
        super().__init__(settings, terms_of(settings), transport_of(settings, base, credentials), vertex=False)

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return ("GEMINI_API_KEY", "GOOGLE_API_KEY")


def transport_of(settings: ProviderSettings, base: str, credentials: Credentials, *, vertex: bool = False) -> Transport:
    """The row's way to a server.

    Args:
        settings: the deployment's.
        base: the server, with the API's version.
        credentials: what lets a call in.
        vertex: whether it is Vertex AI.
    """
    if settings.transport != "sdk":
        return HttpTransport(settings, base, credentials)
    # A second to load: only for who asks for it.
    from model_gateway.providers.google.sdk import GoogleSdkTransport  # noqa: PLC0415

    return GoogleSdkTransport(settings, base, credentials, vertex=vertex)


def _members(event: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(event)
    except ValueError:
        raise BadReplyError("an event that is not JSON") from None
    if not isinstance(members, dict):
        raise BadReplyError("an event that is not an object")
    return members
