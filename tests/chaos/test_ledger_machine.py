"""Random sequences of what workers, clients and faults can do to the ledger, held against a reference model.

Each step runs the real scripts on a real server. Answers may be lost, calls are sent again at any later time, and
deliveries whose token has become stale go on as if nothing had happened.
"""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.ledger_machine import LedgerMachine, Tally
from tests.chaos.scale import FULL, SEED, scaled

RUNS, STEPS = scaled(120, 3), 60
EXAMPLES = 10
"""In a run; a longer one would try near copies of what it has tried."""

PHASES = [Phase.generate, Phase.shrink] if FULL else [Phase.generate]
"""Shrinking what fails takes minutes: the long form does."""


@pytest.mark.timeout(scaled(900, 120))
def test_whatever_order_things_happen_in_the_ledger_is_what_the_model_says(redis_url, record_property):
    tally = Tally()
    found = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    for number in range(RUNS):
        run_state_machine_as_test(seed(SEED + number)(partial(LedgerMachine, redis_url, tally)), settings=found)
    record_property("fault", "any order of steps, lost answers and stale tokens, against a reference model")
    record_property("examples", tally.examples)
    record_property("steps", tally.steps.total())
    for what in ("settle: settled", "advance: admitted", "admit: exhausted"):
        assert tally.steps[what] or not FULL, f"never tried: {what}"
