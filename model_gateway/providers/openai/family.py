"""What OpenAI's API is to a provider, whoever serves it: chat completions, embeddings and responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from typing_extensions import override

from model_gateway.money import Usage
from model_gateway.providers.http import HttpProvider
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.openai import quirks
from model_gateway.providers.openai.vendors import Vendor
from model_gateway.providers.transport import Transport

_CHAT: Final = "/chat/completions"
_EMBEDDINGS: Final = "/embeddings"
RESPONSES: Final = "responses"


class OpenAIFamily(HttpProvider):
    """OpenAI's API, whole and streamed; replies are passed on byte for byte.

    Args:
        settings: the deployment's.
        vendor: in what its server differs from OpenAI.
        transport: the way to it.
    """

    def __init__(self, settings: ProviderSettings, vendor: Vendor, transport: Transport) -> None:
        super().__init__(settings)
        self._vendor = vendor
        self._transport = transport

    @property
    def speaks(self) -> frozenset[str]:  # type: ignore[override] # here it depends on the deployment
        """Responses, where the server has them."""
        return frozenset({RESPONSES}) if self._vendor.responses else frozenset()

    @property
    @override
    def max_tokens_field(self) -> str:
        return self._vendor.max_tokens_field

    @override
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> bytes:
        return await self.post(self.path(_CHAT, model), self._chat_body(messages, model, kwargs))

    @override
    async def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[bytes]:
        """The chunks, unparsed, as the caller has to read them anyway; usage is always asked for."""
        body = quirks.stream_body(self._vendor, self._chat_body(messages, model, kwargs))
        async for event in self.post_events(self.path(_CHAT, model), body):
            yield event

    @override
    async def embed(self, /, inputs: list[Any], model: str, **kwargs: Any) -> bytes:
        rules = self._vendor.embeddings
        if rules is None:
            raise self.cannot("embeddings")
        fields = quirks.shaped(rules, kwargs, drop=self.settings.drop_params)
        return await self.post(self.path(_EMBEDDINGS, model), {"model": model, "input": inputs, **fields})

    @override
    async def native(self, /, operation: str, body: dict[str, Any]) -> bytes:
        return await self.post(self._native_path(operation, body), body)

    @override
    async def native_stream(self, /, operation: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """The events; the last one says how it ended, and no ``[DONE]`` follows."""
        async for event in self.post_events(self._native_path(operation, body), body):
            yield event

    @override
    def chat_usage(self, members: Mapping[str, Any]) -> Usage | None:
        return quirks.vendor_usage(self._vendor.usage, members)

    def path(self, operation: str, model: str) -> str:
        """Where an operation lies after the transport's base, a query included.

        Args:
            operation: ``/chat/completions``, ``/embeddings`` or ``/responses``.
            model: the server's name for the model.
        """
        return operation

    def _native_path(self, operation: str, body: Mapping[str, Any]) -> str:
        if operation not in self.speaks:
            raise self.cannot(operation)
        return self.path(f"/{operation}", str(body.get("model", "")))

    def _chat_body(self, messages: list[dict[str, Any]], model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return quirks.chat_body(self._vendor, messages, model, fields, drop=self.settings.drop_params)
