"""Every provider that ships keeps what the conformance suite for plug-ins promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from model_gateway.providers import ProviderInterface, ProviderSettings
from model_gateway.providers.echo import EchoOptions, EchoProvider
from model_gateway.testing import FAILURES, ProviderConformance, Scenario
from tests.providers.conformance import OfTheOpenAIFamily, OverTheWire, anthropic_tools, google_tools
from tests.upstream_anthropic import anthropic_speech
from tests.upstream_google import google_speech


class TestOpenAI(OfTheOpenAIFamily):
    provider = "openai"


class TestOpenAIOverItsSdk(TestOpenAI):
    transport = "sdk"


class TestAzure(OfTheOpenAIFamily):
    provider = "azure"
    base = ""


class TestGroq(OfTheOpenAIFamily):
    provider = "groq"
    base = "/openai/v1"


class TestAnthropic(OverTheWire):
    provider = "anthropic"
    speech = anthropic_speech
    tools = anthropic_tools()


class TestAnthropicOverItsSdk(TestAnthropic):
    transport = "sdk"


class TestGoogle(OverTheWire):
    provider = "google"
    speech = google_speech
    tools = google_tools()


class TestGoogleOverItsSdk(TestGoogle):
    transport = "sdk"


class TestVertex(TestGoogle):
    provider = "vertex"
    options = MappingProxyType({"project": "my-project"})


class TestEcho(ProviderConformance):
    """Nobody is called: it has neither tools nor errors, and leaves the time to the gateway."""

    cannot = frozenset({Scenario.TOOLS, Scenario.CUT_MIDWAY, *FAILURES})
    keeps_time = False
    provider: EchoProvider

    @asynccontextmanager
    async def serve(self, scenario: Scenario, settings: ProviderSettings) -> AsyncIterator[ProviderInterface]:
        options: dict[Scenario, dict[str, Any]] = {
            Scenario.NO_USAGE: {"usage": False},
            Scenario.HANGING: {"delay_ms": 3_600_000},
            Scenario.HANGING_MIDWAY: {"chunk_delay_ms": 3_600_000},
        }
        self.provider = EchoProvider(replace(settings, options=options.get(scenario, {})))
        yield self.provider

    async def arrived(self) -> None:
        """The call has begun to wait; the next one shall not."""
        await asyncio.sleep(0)
        self.provider.options = EchoOptions()
