"""What a provider is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

JSONObject = Mapping[str, Any] | bytes
"""A JSON object, or its text: text is passed on byte for byte."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One deployment's settings, out of its row and the environment.

    Attributes:
        name: the row's name, for messages.
        engine: the provider's name for the model.
        api_base: the server; empty for the vendor's own.
        api_key: the key; never shown.
        timeout: seconds for one call.
        transport: ``http`` (the shared session) or ``sdk`` (the vendor's).
        max_tokens_field: the field for an injected output bound; empty: the provider decides.
        options: the provider's own settings.
        http: the process's shared session; None where a provider brings its own.
    """

    name: str = ""
    engine: str = ""
    api_base: str = ""
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    transport: str = "http"
    max_tokens_field: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    http: aiohttp.ClientSession | None = None


class ProviderInterface(ABC):
    """One deployment of one provider.

    The gateway makes one attempt per call: a provider never retries. Errors are ``GatewayError``;
    one with ``billed=False`` (an HTTP error status, a connection that failed) costs nothing, every other
    exception is charged as unknown, since the provider may have been paid.
    """

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        self.settings = settings or ProviderSettings()

    @property
    def max_tokens_field(self) -> str:
        """The field of the request in which the gateway sends an output bound that the client left unset."""
        return self.settings.max_tokens_field or "max_tokens"

    @abstractmethod
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> JSONObject:
        """One whole chat completion. ``kwargs`` are the request's other fields, passed through.

        Raises:
            GatewayError: what the provider answered.
        """

    @abstractmethod
    def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[JSONObject]:
        """The chunks of a streamed chat completion, the one with ``usage`` included; an async generator.

        A stream that ends without a ``finish_reason`` is taken as cut.

        Raises:
            GatewayError: what the provider answered, before or between chunks.
        """

    @abstractmethod
    def count_tokens(self, text: str, model: str) -> int:
        """Tokens in ``text``, for when the provider does not report usage."""

    async def close(self) -> None:
        """Let go of what the provider holds; called once."""
        return
