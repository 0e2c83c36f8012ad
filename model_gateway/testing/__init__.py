"""The conformance suite for providers: what the gateway relies on, as tests that a plug-in's author runs with pytest.

    class TestParrot(ProviderConformance):
        @asynccontextmanager
        async def serve(self, scenario, settings):
            async with ScriptedServer(scenario, answer) as server:
                yield ParrotProvider(replace(settings, api_base=server.url))

``answer(scenario, body)`` is what the vendor answers to a request's body, in its own words; see ``ScriptedServer``. A
scenario that the provider can't be put into stands in ``cannot``. Needs ``model-gateway[testing]``; nothing but tests
should import this. The page docs/providers.md tells more, ``examples/provider_plugin`` is a whole plug-in.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("model_gateway.testing.answers", "model_gateway.testing.faults")

from model_gateway.testing.conformance import ProviderConformance  # noqa: E402 - after the line above, which it is for
from model_gateway.testing.scenarios import (  # noqa: E402
    CALLS,
    FAILURES,
    KEY,
    MESSAGES,
    SAID,
    TOOLS,
    UNKNOWN_FIELD,
    Failure,
    Scenario,
)
from model_gateway.testing.server import Answer, ScriptedServer  # noqa: E402

__all__ = [
    "CALLS",
    "FAILURES",
    "KEY",
    "MESSAGES",
    "SAID",
    "TOOLS",
    "UNKNOWN_FIELD",
    "Answer",
    "Failure",
    "ProviderConformance",
    "Scenario",
    "ScriptedServer",
]
