"""The suite: subclass it, say how your provider is put into a scenario, and pytest runs every check."""

from __future__ import annotations

from model_gateway.testing.answers import AnswerChecks
from model_gateway.testing.faults import FaultChecks


class ProviderConformance(AnswerChecks, FaultChecks):
    """What the gateway relies on in every provider, as tests.

    A subclass, whose name begins with ``Test``, overrides ``serve``; the rest of ``Served`` has defaults.
    """
