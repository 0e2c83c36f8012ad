"""What all checks stand on: how a provider comes to be in a scenario, and which checks then apply to it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol, TypeVar

import aiohttp
import pytest

from model_gateway.providers import ProviderInterface, ProviderSettings
from model_gateway.testing.scenarios import KEY, MESSAGES, Scenario
from model_gateway.testing.schema import members

LIMIT_SECONDS: Final = 30.0
"""For whatever must end; a provider that takes longer hangs."""

PROMPT_SECONDS: Final = 5.0
"""For what must end at once, with a margin for a slow machine; less than ``CALL_SECONDS``, which would end it too."""

CALL_SECONDS: Final = 20.0
_OUTPUT_TOKENS: Final = 1000
_ARRIVAL_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.002

JSON = dict[str, Any]
CheckT = TypeVar("CheckT", bound=Callable[..., Any])


def over(*scenarios: Scenario, timed: bool = False) -> Callable[[CheckT], CheckT]:
    """Run a check once for each of these that the provider can be put into; without any it is left out.

    Args:
        scenarios: what the check is given.
        timed: leave it out where the provider does not end a call by itself.
    """

    def mark(check: CheckT) -> CheckT:
        check.over, check.timed = scenarios, timed  # type: ignore[attr-defined] # read in this file only
        return check

    return mark


class Call(Protocol):
    """One call, whole or streamed."""

    async def __call__(self, provider: ProviderInterface, model: str, **fields: Any) -> list[JSON]:
        """All that came, parsed."""
        ...


def request_fields(provider: ProviderInterface, fields: Mapping[str, Any]) -> JSON:
    """The fields of a call; the gateway always sends a bound for the output."""
    return {provider.max_tokens_field: _OUTPUT_TOKENS, **fields}


async def whole(provider: ProviderInterface, model: str, **fields: Any) -> list[JSON]:
    """A whole reply, alone."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return [members(await provider.complete(MESSAGES, model, **request_fields(provider, fields)))]


async def stream(provider: ProviderInterface, model: str, **fields: Any) -> list[JSON]:
    """A stream's chunks."""
    async with asyncio.timeout(LIMIT_SECONDS):
        chunks = provider.stream(MESSAGES, model, **request_fields(provider, fields))
        return [members(chunk) async for chunk in chunks]


both_ways = pytest.mark.parametrize("call", [whole, stream], ids=["whole", "stream"])


class Served(ABC):
    """What a subclass says of its provider.

    Attributes:
        cannot: scenarios that the provider can't be put into; what needs them is not checked.
        model: the provider's name for the model.
        secrets: what no error may hold.
        passes_unknown_fields: whether a field that nobody has heard of is the server's business, as with servers that
            speak OpenAI's language; else it has to be refused.
        keeps_time: whether the provider ends a call by itself after ``settings.timeout`` seconds. If not, the gateway
            does.
    """

    pytestmark: ClassVar[Any] = pytest.mark.asyncio

    cannot: ClassVar[Collection[Scenario]] = ()
    model: ClassVar[str] = "model-x"
    secrets: ClassVar[Sequence[str]] = (KEY,)
    passes_unknown_fields: ClassVar[bool] = False
    keeps_time: ClassVar[bool] = True

    @abstractmethod
    def serve(self, scenario: Scenario, settings: ProviderSettings) -> AbstractAsyncContextManager[ProviderInterface]:
        """A provider in a scenario. It is closed by the check; the server ends with the context.

        Args:
            scenario: what its server does.
            settings: what the provider is made of, but for ``api_base`` and whatever else leads it to the server:
                ``MyProvider(replace(settings, api_base=server.url))``.
        """

    def requests(self) -> Sequence[Mapping[str, Any]] | None:
        """The bodies of the requests that the server has got, in order; None where that can't be known.

        With it, fields that get lost and calls that are repeated are found too.
        """
        return None

    async def arrived(self) -> None:
        """Wait until the server has the first request; needs no change where ``requests`` tells."""
        async with asyncio.timeout(LIMIT_SECONDS):
            if self.requests() is None:
                await asyncio.sleep(_ARRIVAL_SECONDS)
                return
            while not self.requests():  # noqa: ASYNC110 - whose server it is, and what it can signal, is not known
                await asyncio.sleep(_POLL_SECONDS)

    def __init_subclass__(cls, **options: Any) -> None:
        """Leave out the checks of which no scenario is left: pytest passes over what can't be called."""
        super().__init_subclass__(**options)
        for name in dir(cls):
            check: Any = getattr(cls, name, None)
            if hasattr(check, "over") and not (cls._possible(check.over) and (cls.keeps_time or not check.timed)):
                setattr(cls, name, None)

    @classmethod
    def _possible(cls, scenarios: Collection[Scenario]) -> list[Scenario]:
        return [scenario for scenario in scenarios if scenario not in cls.cannot]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a check in each of its scenarios that is left."""
        if "scenario" in metafunc.fixturenames:
            possible = self._possible(metafunc.function.over)
            metafunc.parametrize("scenario", possible, ids=[scenario.name.lower() for scenario in possible])

    @asynccontextmanager
    async def served(self, scenario: Scenario, **settings: Any) -> AsyncIterator[ProviderInterface]:
        """A provider in a scenario, with a session as the gateway shares it, closed at the end."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            given = ProviderSettings("conformance", engine=self.model, api_key=KEY, timeout=CALL_SECONDS, http=session)
            async with self.serve(scenario, replace(given, **settings)) as provider:
                try:
                    yield provider
                finally:
                    async with asyncio.timeout(PROMPT_SECONDS):
                        await provider.close()
