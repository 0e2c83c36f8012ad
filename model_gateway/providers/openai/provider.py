"""OpenAI's chat completions, from the vendor itself or from any server that speaks the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final

from model_gateway.providers.http import HttpProvider, refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.transport import HttpTransport, Transport, fixed

VENDOR: Final = "https://api.openai.com/v1"


class OpenAIProvider(HttpProvider):
    """Chat completions, whole and streamed; replies are passed on byte for byte."""

    speaks: ClassVar[frozenset[str]] = frozenset({"responses"})

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        refuse_settings(settings_problems(self.settings, self.settings.api_base or VENDOR))
        self._transport = _transport(self.settings)

    @classmethod
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        """OpenAI's own variable."""
        return ("OPENAI_API_KEY",)

    @property
    def max_tokens_field(self) -> str:
        """The vendor's reasoning models refuse ``max_tokens``; many compatible servers know nothing else."""
        return self.settings.max_tokens_field or ("max_tokens" if self.settings.api_base else "max_completion_tokens")

    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> bytes:
        """One whole chat completion: the provider's own bytes."""
        return await self.post("/chat/completions", {"model": model, "messages": messages, **kwargs})

    async def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[bytes]:
        """The chunks, unparsed, as the caller has to read them anyway; usage is always asked for."""
        async for event in self.post_events("/chat/completions", _stream_body(messages, model, kwargs)):
            yield event

    async def embed(self, /, inputs: list[Any], model: str, **kwargs: Any) -> bytes:
        """Embeddings: the provider's own bytes."""
        return await self.post("/embeddings", {"model": model, "input": inputs, **kwargs})

    async def native(self, /, operation: str, body: dict[str, Any]) -> bytes:
        """A response, whole."""
        return await self.post(f"/{operation}", body)

    async def native_stream(self, /, operation: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """A response's events."""
        async for event in self.post_events(f"/{operation}", body):
            yield event


def _stream_body(messages: list[dict[str, Any]], model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(fields.get("stream_options") or {}), "include_usage": True}
    return {"model": model, "messages": messages, **fields, "stream": True, "stream_options": options}


def _transport(settings: ProviderSettings) -> Transport:
    base = (settings.api_base or VENDOR).rstrip("/")
    if settings.transport != "sdk":
        credentials = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        return HttpTransport(settings, base, fixed(credentials))
    # Half a second to load: only for who asks for it.
    from model_gateway.providers.openai.sdk import SdkTransport  # noqa: PLC0415

    return SdkTransport(settings, base)
