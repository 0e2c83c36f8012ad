"""What a model runs on: its provider, its price, what a call can cost, and how many calls may run at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from model_gateway.chat import ChatRequest
from model_gateway.errors import GatewayError
from model_gateway.money import Price
from model_gateway.prices import load_prices
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.providers.factory import is_served, key_env
from model_gateway.settings import ConfigError, GatewayConfig, ModelRow
from model_gateway.tokens import MESSAGE_OVERHEAD

_OVERHEAD: Final = 256
"""Input tokens that a provider's own framing may add to any call."""

_ESTIMATE_MARGIN: Final = 1.1
_OWN_FIELDS: Final = frozenset({"messages", "model", "stream", "stream_options"})


@dataclass(slots=True)
class Deployment:
    """One row, ready to be called."""

    name: str
    row: ModelRow
    price: Price
    provider: ProviderInterface
    _capacity: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._capacity = asyncio.Semaphore(self.row.max_concurrency)

    @property
    def engine(self) -> str:
        """The provider's name for the model."""
        return self.row.engine or self.name

    @asynccontextmanager
    async def capacity(self, park: AbstractContextManager[bool]) -> AsyncIterator[None]:
        """One of the calls that may run at once, waited for in ``park``, which says whether there is room to wait.

        Raises:
            GatewayError: ``model_overloaded``, after ``queue_timeout`` seconds or at once.
        """
        if self._capacity.locked():
            with park as room:
                await self._wait(room)
        else:
            await self._capacity.acquire()
        try:
            yield
        finally:
            self._capacity.release()

    async def _wait(self, room: bool) -> None:
        try:
            async with asyncio.timeout(self.row.queue_timeout if room else 0):
                await self._capacity.acquire()
        except TimeoutError:
            raise GatewayError(
                "model_overloaded",
                f"{self.name} has {self.row.max_concurrency} calls running in this process; try again",
                retry_after=1,
            ) from None

    def reservation(self, request: ChatRequest, body_bytes: int) -> int:
        """The most that the call can cost, in nano-dollars."""
        output = request.output_bound or self.row.max_tokens
        return self.price.reserve(self._input_bound(request, body_bytes), output, request.choices)

    def _input_bound(self, request: ChatRequest, body_bytes: int) -> int:
        """Input tokens at most: a byte-level token is at least one byte, and JSON only adds bytes to the text."""
        if self.row.reserve == "estimate":
            return int(self.count_input(request) * _ESTIMATE_MARGIN) + _OVERHEAD
        return body_bytes - request.data_bytes + request.images * self.row.image_tokens + _OVERHEAD

    def fields(self, request: ChatRequest) -> dict[str, Any]:
        """The request's fields for the provider, with an output bound."""
        found = {
            name: value
            for name, value in request.payload.items()
            if name not in _OWN_FIELDS and not (value is None and name.startswith("max_"))
        }
        if request.output_bound is None:
            found[self.provider.max_tokens_field] = self.row.max_tokens
        return found

    def count_input(self, request: ChatRequest) -> int:
        """Input tokens by our own count; an image counts as what it is reserved at."""
        count = self.provider.count_tokens
        texts = (*request.text(), *request.schemas())
        return request.images * self.row.image_tokens + sum(
            count(text, self.engine) + MESSAGE_OVERHEAD for text in texts
        )

    def count_output(self, text: str) -> int:
        """Output tokens by our own count."""
        return self.provider.count_tokens(text, self.engine) if text else 0


class Deployments:
    """The rows that this process can serve: those whose key is set."""

    def __init__(self, config: GatewayConfig, deployments: Mapping[str, Deployment]) -> None:
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
        found: dict[str, Deployment] = {}
        problems: list[str] = []
        for name, row in config.models.items():
            try:
                if is_served(row, environment):
                    provider = ProviderFactory.create(name, row, http, environment)
                    found[name] = Deployment(name, row, prices[name], provider)
            except ConfigError as error:
                problems += error.problems
            except (LookupError, ValueError) as error:
                problems.append(f"models.{name}: {error}")
        if problems:
            raise ConfigError("config", problems)
        return cls(config, found)

    @property
    def names(self) -> list[str]:
        """The models that are served here."""
        return list(self._deployments)

    def find(self, name: str) -> Deployment:
        """The deployment that a model's or a task's name stands for.

        Raises:
            GatewayError: ``model_not_found``.
        """
        model = self._config.resolve(name)
        if model is None:
            raise GatewayError("model_not_found", f"there is no model or task {name!r}", param="model")
        if model not in self._deployments:
            variable = key_env(self._config.models[model])
            raise GatewayError("model_not_found", f"{model!r} is not served here: {variable} is not set", param="model")
        return self._deployments[model]

    async def close(self) -> None:
        """Let the providers go."""
        for deployment in self._deployments.values():
            await deployment.provider.close()
