"""A small reference model: how a request goes on whose worker was killed, by the rules, given what it had got done."""

from __future__ import annotations

MODELS = {
    "whole": "paid",
    "streamed": "held-midway",
    "retried": "flaky",
    "cancelled": "held",
    "dear": "dear",
    "refused": "none",
    "forged": "",
    "isolated": "paid",
    "misdirected": "",
}
"""Scenarios, and the model that each asks."""

NEVER_RUN = ("forged", "misdirected")
BY_INGRESS = ("isolated", "misdirected")

Life = list[tuple[str, int]]
"""A request's events in order: each one's kind, and the attempt that it tells of."""


def undisturbed(scenario: str) -> tuple[Life, int]:
    """The life of a request with nobody killed, and how often it calls the provider."""
    if scenario in NEVER_RUN:
        return [], 0
    if scenario == "cancelled":
        return [("start", 1), ("cancelled", 1)], 1
    return _run(scenario, 1, 0)


def rest_of(scenario: str, life: Life, calls: int) -> tuple[Life, int]:
    """What must follow once another worker has taken a request over, and how often that calls the provider.

    Args:
        scenario: what was asked.
        life: its events until its worker was killed.
        calls: how often the provider had been called.
    """
    kinds = [kind for kind, _ in life]
    attempt = max((number for _, number in life), default=0)
    if {"complete", "failed", "cancelled"} & set(kinds) or scenario in NEVER_RUN:
        return [], 0
    if not attempt:  # nothing was reserved, nobody was called
        return _run(scenario, 1, calls)
    charged = [("unknown", attempt)]
    if scenario == "cancelled":
        return [*charged, ("cancelled", attempt)], 0
    if "model.streaming.start" in kinds:
        return [*charged, ("failed", attempt)], 0
    rest, more = _run(scenario, attempt + 1, calls)
    return charged + rest, more


def _run(scenario: str, attempt: int, calls: int) -> tuple[Life, int]:
    """From an attempt on, with nobody killed any more."""
    match scenario:
        case "dear":
            return [("model.budget.exceeded", 0), ("failed", 0)], 0
        case "refused":
            return [("failed", 0)], 0
        case "cancelled":  # its client left before it was run at all
            return [("cancelled", 0)], 0
        case "retried" if calls == 0:  # the provider's first answer is a failure
            again = [("start", attempt + 1), ("complete", attempt + 1)]
            return [("start", attempt), ("retry", attempt), *again], 2
    streaming = [("model.streaming.start", attempt)] if scenario == "streamed" else []
    return [("start", attempt), *streaming, ("complete", attempt)], 1


def told_of(scenario: str, life: Life) -> str:
    """How its client sees a request end."""
    if scenario in ("cancelled", "dear", "refused"):
        return {"cancelled": "left", "dear": "budget_exceeded", "refused": "model_not_found"}[scenario]
    return "outcome_unknown" if ("failed" in dict(life)) else "done"
