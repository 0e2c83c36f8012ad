"""What a provider is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp

from model_gateway.dialects.chat import chat_usage
from model_gateway.errors import GatewayError
from model_gateway.money import Usage
from model_gateway.providers.rate_limits import LearnedLimits

JSONObject = Mapping[str, Any] | bytes
"""A JSON object, or its text: text is passed on byte for byte."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One deployment's settings, out of its row and the environment.

    Attributes:
        name: the deployment's name, for messages.
        provider: the name that the row calls its provider by; one class may serve several.
        engine: the provider's name for the model.
        api_base: the server; empty for the vendor's own.
        api_key: the key; never shown.
        timeout: seconds for one call.
        connect_timeout: seconds until a connection stands.
        transport: ``http`` (the shared session) or ``sdk`` (the vendor's).
        max_tokens_field: the field for an injected output bound; empty: the provider decides.
        drop_params: leave out what the provider can't do, rather than refuse it.
        options: the provider's own settings.
        environment: variables, for what one key can't say.
        http: the process's shared session; None where a provider brings its own.
    """

    name: str = ""
    provider: str = ""
    engine: str = ""
    api_base: str = ""
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    connect_timeout: float = 10.0
    transport: str = "http"
    max_tokens_field: str = ""
    drop_params: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    http: aiohttp.ClientSession | None = None


class ProviderInterface(ABC):
    """One deployment of one provider.

    The gateway makes one attempt per call: a provider never retries. Errors are ``GatewayError``;
    one with ``billed=False`` (an HTTP error status, a connection that failed, a request refused before it was sent)
    costs nothing, every other exception is charged as unknown, since the provider may have been paid.

    Attributes:
        speaks: operations besides ``chat`` and ``embeddings`` in which it takes and gives the dialect's own JSON.
        limits: what its replies say about the rate that is left.
        own_servers: whether each customer has a server of its own, so that ``api_base`` is the vendor's too, and the
            vendor's key goes there.
    """

    speaks: ClassVar[frozenset[str]] = frozenset()
    own_servers: ClassVar[bool] = False

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        self.settings = settings or ProviderSettings()
        self.limits = LearnedLimits()

    @classmethod
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        """The variables of which one must hold the key of a row that names none itself; empty: it needs no key.

        Args:
            provider: the name that the row calls its provider by.
        """
        return ()

    @property
    def max_tokens_field(self) -> str:
        """The field of the request in which the gateway sends an output bound that the client left unset."""
        return self.settings.max_tokens_field or "max_tokens"

    @abstractmethod
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> JSONObject:
        """One whole chat completion. ``kwargs`` are the request's other fields, as the client sent them.

        Raises:
            GatewayError: what the provider answered; ``unsupported_parameter`` for a field that it can't do.
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

    async def embed(self, /, inputs: list[Any], model: str, **kwargs: Any) -> JSONObject:
        """Embeddings of texts (or of lists of tokens), in OpenAI's shape.

        Raises:
            GatewayError: ``unsupported_operation`` where it has none.
        """
        raise self.cannot("embeddings")

    async def native(self, /, operation: str, body: dict[str, Any]) -> JSONObject:
        """A whole answer to a body in the dialect of one of ``speaks``, in that dialect."""
        raise self.cannot(operation)

    def native_stream(self, /, operation: str, body: dict[str, Any]) -> AsyncIterator[JSONObject]:
        """The events of a streamed answer, in the same way: each one's JSON object."""
        raise self.cannot(operation)

    def chat_usage(self, members: Mapping[str, Any]) -> Usage | None:
        """Tokens by kind out of a completion or a chunk of this provider's; None where it tells none."""
        return chat_usage(members)

    def cannot(self, operation: str) -> GatewayError:
        """The error for an operation that the provider does not have."""
        name = self.settings.provider or type(self).__name__
        return GatewayError(
            "unsupported_operation", f"the provider '{name}' does not offer {operation}", param="model", billed=False
        )

    async def close(self) -> None:
        """Let go of what the provider holds; called once."""
        return
