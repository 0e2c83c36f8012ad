"""What a model runs on: providers, prices, what a call can cost, and how many calls may run at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from model_gateway.dialects import ChatRequest, EmbeddingsRequest, Request
from model_gateway.errors import GatewayError
from model_gateway.money import Price, Usage
from model_gateway.prices import load_prices
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.providers.factory import is_served, key_variables
from model_gateway.settings import ConfigError, DeploymentRow, GatewayConfig, deployment_name
from model_gateway.tokens import MESSAGE_OVERHEAD

_OVERHEAD: Final = 256
"""Input tokens that a provider's own framing may add to any call."""

_ESTIMATE_MARGIN: Final = 1.1
_OWN_FIELDS: Final = frozenset({"messages", "model", "stream", "stream_options"})
_FREE_OPERATIONS: Final = frozenset({"count_tokens"})

OnCancel = Callable[[Callable[[], object]], object]
"""Takes what is to be called when a request is cancelled."""


@dataclass(slots=True)
class Deployment:
    """One deployment of a model, ready to be called.

    Attributes:
        name: ``<model>`` where it is the model's only one, else ``<model>#<deployment>``.
        model: the model's name.
        max_tokens: the model's bound on output tokens.
    """

    name: str
    model: str
    row: DeploymentRow
    max_tokens: int
    price: Price
    provider: ProviderInterface
    _capacity: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._capacity = asyncio.Semaphore(self.row.max_concurrency)

    @property
    def engine(self) -> str:
        """The provider's name for the model."""
        return self.row.engine or self.model

    @property
    def full(self) -> bool:
        """Whether a call would have to wait for another to end."""
        return self._capacity.locked()

    @asynccontextmanager
    async def capacity(self, park: AbstractContextManager[bool], on_cancel: OnCancel) -> AsyncIterator[None]:
        """One of the calls that may run at once, waited for in ``park``, which says whether there is room to wait.

        Raises:
            GatewayError: ``model_overloaded``, after ``queue_timeout`` seconds or at once; once it is cancelled too.
        """
        if self._capacity.locked():
            with park as room:
                await self._wait(room, on_cancel)
        else:
            await self._capacity.acquire()
        try:
            yield
        finally:
            self._capacity.release()

    async def _wait(self, room: bool, on_cancel: OnCancel) -> None:
        try:
            async with asyncio.timeout(self.row.queue_timeout if room else 0) as limit:

                def give_up() -> None:
                    if not limit.expired():
                        limit.reschedule(0)

                on_cancel(give_up)
                try:
                    await self._capacity.acquire()
                finally:
                    on_cancel(lambda: None)
        except TimeoutError:
            raise GatewayError(
                "model_overloaded",
                f"{self.name} has {self.row.max_concurrency} calls running in this process; try again",
                retry_after=1,
                billed=False,
            ) from None

    # -- what a call can cost

    def reservation(self, request: Request, body_bytes: int) -> int:
        """The most that the call can cost, in nano-dollars."""
        if request.operation in _FREE_OPERATIONS:
            return 0
        tokens = self.input_bound(request, body_bytes)
        return self.price.reserve(tokens, self.output_bound(request), request.choices, request.service_tier)

    def output_bound(self, request: Request) -> int:
        """Output tokens at most, for one choice."""
        if isinstance(request, EmbeddingsRequest):
            return 0
        return request.output_bound or self.max_tokens

    def input_bound(self, request: Request, body_bytes: int) -> int:
        """Input tokens at most: a byte-level token is at least one byte, and JSON only adds bytes to the text."""
        if self.row.reserve == "estimate":
            found = int(self.count_input(request) * _ESTIMATE_MARGIN) + _OVERHEAD
        else:
            found = body_bytes - request.attachments.data_bytes + self._attached(request) + _OVERHEAD
        return found if self.row.max_input_tokens is None else min(found, self.row.max_input_tokens)

    def _attached(self, request: Request) -> int:
        """What attachments are reserved at."""
        row, attached = self.row, request.attachments
        return (
            attached.images * row.image_tokens + attached.files * row.file_tokens + attached.audios * row.audio_tokens
        )

    def count_input(self, request: Request) -> int:
        """Input tokens by our own count; an attachment counts as what it is reserved at."""
        count = self.provider.count_tokens
        numbers = request.token_inputs() if isinstance(request, EmbeddingsRequest) else 0
        texts = sum(count(text, self.engine) + MESSAGE_OVERHEAD for text in request.texts())
        return self._attached(request) + numbers + texts

    def count_output(self, text: str) -> int:
        """Output tokens by our own count."""
        return self.provider.count_tokens(text, self.engine) if text else 0

    def cost(self, request: Request, usage: Usage) -> int:
        """What a call cost, in nano-dollars."""
        return 0 if request.operation in _FREE_OPERATIONS else self.price.cost(usage)

    # -- what goes out

    def speaks(self, request: Request) -> bool:
        """Whether the provider takes the request in its own dialect."""
        return request.operation in self.provider.speaks

    def counts_here(self, request: Request) -> bool:
        """Whether the gateway answers with a count of its own, and nobody is called."""
        return request.operation == "count_tokens" and not self.speaks(request)

    def fields(self, request: ChatRequest) -> dict[str, Any]:
        """A chat completion's fields for the provider, with an output bound."""
        found = {
            name: value
            for name, value in request.payload.items()
            if name not in _OWN_FIELDS and not (value is None and name.startswith("max_"))
        }
        if "max_tokens" not in found and "max_completion_tokens" not in found:
            found[self.provider.max_tokens_field] = self.output_bound(request)
        return found

    def body(self, request: Request) -> dict[str, Any]:
        """The body for a provider that speaks the request's dialect."""
        return request.native_body(self.engine, self.output_bound(request))


class Deployments:
    """What this process can serve: the deployments whose key is set."""

    def __init__(self, config: GatewayConfig, deployments: Mapping[str, list[Deployment]]) -> None:
        self._config = config
        self._deployments = deployments

    @classmethod
    def load(
        cls, config: GatewayConfig, http: aiohttp.ClientSession, environment: Mapping[str, str] = os.environ
    ) -> Deployments:
        """Every served row of the config.

        Raises:
            ConfigError: a row without a price, or with an unknown provider or options.
        """
        prices = load_prices(config)
        found: dict[str, list[Deployment]] = {}
        problems: list[str] = []
        for model, row in config.models.items():
            for label, deployment in row.rows():
                try:
                    if is_served(deployment, environment):
                        name = deployment_name(model, label)
                        provider = ProviderFactory.create(name, _with_engine(deployment, model), http, environment)
                        made = Deployment(name, model, deployment, row.max_tokens, prices[name], provider)
                        found.setdefault(model, []).append(made)
                except ConfigError as error:
                    problems += error.problems
                except (LookupError, ValueError) as error:
                    problems.append(f"models.{model}: {error}")
        if problems:
            raise ConfigError("config", problems)
        return cls(config, found)

    @property
    def names(self) -> list[str]:
        """The models that are served here, by themselves or by a fallback."""
        return [model for model in self._config.models if self._route(model)]

    def find(self, name: str) -> tuple[str, list[tuple[str, list[Deployment]]]]:
        """What a model's or a task's name stands for.

        Returns:
            The model, and for each model that may answer, itself first, its ``routing`` and its deployments.

        Raises:
            GatewayError: ``model_not_found``.
        """
        model = self._config.resolve(name)
        if model is None:
            raise GatewayError("model_not_found", f"there is no model or task {name!r}", param="model")
        route = self._route(model)
        if not route:
            row = self._config.models[model]
            missing = [" or ".join(key_variables(deployment)) for _, deployment in row.rows()]
            raise GatewayError(
                "model_not_found", f"{model!r} is not served here: {', '.join(missing)} is not set", param="model"
            )
        return model, route

    def _route(self, model: str) -> list[tuple[str, list[Deployment]]]:
        names = [name for name in self._config.route(model) if name in self._deployments]
        return [(self._config.models[name].routing, self._deployments[name]) for name in names]

    async def close(self) -> None:
        """Let the providers go."""
        for deployments in self._deployments.values():
            for deployment in deployments:
                await deployment.provider.close()


def _with_engine(row: DeploymentRow, model: str) -> DeploymentRow:
    """The row, with the provider's name for the model."""
    return row if row.engine else row.model_copy(update={"engine": model})
