"""Whom a request is put to, decided over a clock that the test sets; nobody is called."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gateway_worker.deployments import Deployment
from gateway_worker.records import Admission, Note, Outcome
from gateway_worker.routing import Router, note_of
from gateway_worker.standing import Latency, RetryBudget
from model_gateway.money import FREE
from model_gateway.providers.echo import EchoProvider
from model_gateway.settings import DeploymentRow, Routing

SETTINGS = Routing.model_validate({"retries": 2, "backoff_seconds": 1, "max_backoff_seconds": 8})
DONE = Outcome("done", [])


class Hands:
    """A clock's hands, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


def deployment(name: str, **row: object) -> Deployment:
    given = DeploymentRow.model_validate({"provider": "echo", **row})
    return Deployment(name, name, given, 100, FREE, EchoProvider())


def failed(code: str, **fields: object) -> Outcome:
    unknown = code in ("upstream_timeout", "upstream_truncated", "upstream_invalid_response")
    return Outcome("failed", [], error_code=code, **{"unknown": unknown} | fields)


def route(
    clock: Hands, *groups: list[Deployment], routing: str = "order", router: Router | None = None, **more: object
):
    router = router or Router(SETTINGS, clock, lambda: 1.0)
    amounts = more.get("amounts", {})
    return router.route([(routing, group) for group in groups], lambda each: amounts.get(each.name, 1), 100.0)


def calls(found, outcomes: list[Outcome], clock: Hands) -> list[tuple[str, float]]:
    """Who is called, and after what wait, while the calls end so."""
    told = []
    for outcome in outcomes:
        chosen = found.next()
        if chosen is None:
            break
        candidate, wait = chosen
        clock.now += wait
        told.append((candidate.deployment.name, wait))
        found.entered(candidate)
        if not found.ended(candidate, outcome, 0.1):
            break
    return told


# -- after a failure


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "upstream_error", "upstream_unavailable"])
def test_what_can_pass_is_tried_again_after_a_wait_that_doubles(clock, code):
    found = route(clock, [deployment("a")])
    assert calls(found, [failed(code)] * 9, clock) == [("a", 0.0), ("a", 1.0), ("a", 2.0)]


@pytest.mark.parametrize("code", ["upstream_timeout", "upstream_truncated", "upstream_unauthorized"])
def test_what_may_have_been_paid_or_can_not_pass_is_asked_elsewhere_once(clock, code):
    found = route(clock, [deployment("a"), deployment("b")])
    assert calls(found, [failed(code)] * 9, clock) == [("a", 0.0), ("b", 0.0)]


@pytest.mark.parametrize(
    "code", ["upstream_rejected", "invalid_value", "cancelled", "outcome_unknown", "internal_error"]
)
def test_the_clients_own_mistake_is_tried_nowhere_else(clock, code):
    found = route(clock, [deployment("a"), deployment("b")])
    assert calls(found, [failed(code)] * 9, clock) == [("a", 0.0)]


def test_a_stream_that_has_begun_is_tried_nowhere_else(clock):
    found = route(clock, [deployment("a"), deployment("b")])
    assert calls(found, [failed("upstream_error", chunks=1)] * 9, clock) == [("a", 0.0)]


def test_other_deployments_are_asked_at_once_before_any_is_asked_again(clock):
    found = route(clock, [deployment("a"), deployment("b")])
    assert calls(found, [failed("upstream_error")] * 4, clock) == [("a", 0.0), ("b", 0.0), ("a", 1.0), ("b", 0.0)]


def test_fallback_models_come_in_order_when_the_models_own_deployments_are_used_up(clock):
    found = route(clock, [deployment("a")], [deployment("b")], [deployment("c")])
    names = [name for name, _ in calls(found, [failed("upstream_unauthorized")] * 9, clock)]
    assert names == ["a", "b", "c"]
    found = route(clock, [deployment("a")], [deployment("b")])
    names = [name for name, _ in calls(found, [failed("upstream_error")] * 9, clock)]
    assert names == ["a", "a", "a", "b", "b", "b"]


def test_the_wait_that_the_provider_asks_for_is_kept(clock):
    found = route(clock, [deployment("a")])
    assert calls(found, [failed("rate_limit_exceeded", retry_after=5)] * 2, clock) == [("a", 0.0), ("a", 5.0)]


def test_a_wait_beyond_the_longest_backoff_is_not_waited_for(clock):
    found = route(clock, [deployment("a")])
    assert calls(found, [failed("rate_limit_exceeded", retry_after=9)] * 2, clock) == [("a", 0.0)]


def test_jitter_shortens_the_wait_but_never_to_nothing(clock):
    for chance, wait in ((0.0, 0.1), (0.5, 0.55), (1.0, 1.0)):
        router = Router(SETTINGS, clock, lambda chance=chance: chance)
        found = route(clock, [deployment("a")], router=router)
        assert calls(found, [failed("upstream_error")] * 2, clock)[1][1] == pytest.approx(wait)


def test_nothing_is_begun_past_the_requests_own_time(clock):
    found = route(clock, [deployment("a")])
    candidate, _ = found.next()
    found.entered(candidate)
    clock.now += 99.0
    assert found.ended(candidate, failed("upstream_error"), 99.0)
    assert found.next() is None


# -- the retry budget


def test_in_an_outage_retries_are_a_tenth_of_the_requests_and_a_few(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    told: Counter[str] = Counter()
    for _ in range(200):
        found = route(clock, [deployment("a")], router=router)
        told.update(name for name, _ in calls(found, [failed("upstream_error")] * 9, clock))
    assert 200 < told["a"] <= 200 * 1.1 + RetryBudget.MINIMUM


def test_a_few_retries_come_back_with_time(clock):
    budget = RetryBudget(0.1, clock)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 60
    assert [budget.take() for _ in range(2)] == [True, False]
    clock.now += 10_000
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_without_a_budget_nothing_is_retried(clock):
    budget = RetryBudget(0.0, clock)
    clock.now += 10_000
    assert not budget.take()


# -- which deployment comes first


def test_weights_are_shares(clock):
    router = Router(SETTINGS, clock, Random(7).random)
    group = [deployment("heavy", weight=3), deployment("light", weight=1), deployment("never", weight=0)]
    firsts = Counter(route(clock, group, routing="weighted", router=router).first.name for _ in range(4000))
    assert firsts["never"] == 0
    assert firsts["heavy"] / firsts["light"] == pytest.approx(3, rel=0.15)


def test_a_deployment_of_no_weight_is_still_there_when_the_others_fail(clock):
    group = [deployment("never", weight=0), deployment("heavy", weight=1)]
    found = route(clock, group, routing="weighted")
    assert [name for name, _ in calls(found, [failed("upstream_unauthorized")] * 3, clock)] == ["heavy", "never"]


def test_the_cheapest_for_this_request_comes_first(clock):
    group = [deployment("dear"), deployment("cheap")]
    assert route(clock, group, routing="cost", amounts={"dear": 9, "cheap": 2}).first.name == "cheap"


def test_the_fastest_of_late_comes_first_and_who_was_not_tried_before_that(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    group = [deployment("slow"), deployment("fast")]
    for name, seconds in (("slow", 2.0), ("fast", 0.5)):
        found = route(clock, group, routing="latency", router=router)
        assert found.first.name == name
        candidate, _ = found.next()
        found.entered(candidate)
        found.ended(candidate, DONE, seconds)
    assert route(clock, group, routing="latency", router=router).first.name == "fast"


def test_old_latency_is_forgotten(clock):
    latency = Latency(clock)
    latency.add(9.0)
    assert latency.expected == 9.0
    clock.now += 61
    assert latency.expected == 0.0
    latency.add(1.0)
    assert latency.expected == 1.0


# -- gates


def gate(found, reason: str, wait: float):
    candidate, _ = found.next()
    found.gated(candidate, Admission("gated", reason=reason, wait=wait))


def test_a_broken_deployment_is_refused_at_once_and_said_to_come_back(clock):
    found = route(clock, [deployment("a")])
    gate(found, "circuit_open", 4.2)
    assert found.next() is None
    assert (found.refusal.code, found.refusal.status, found.refusal.retry_after) == ("upstream_unavailable", 503, 5)


def test_a_full_rate_is_waited_for_where_the_wait_is_short(clock):
    found = route(clock, [deployment("a", queue_timeout=10)])
    gate(found, "rate_limited", 3.0)
    assert found.next()[1] == 3.0


def test_a_full_rate_is_not_waited_for_without_end(clock):
    found = route(clock, [deployment("a", queue_timeout=10)])
    for _ in range(3):
        gate(found, "rate_limited", 4.0)
        clock.now += 4.0
    assert found.next() is None
    assert (found.refusal.code, found.refusal.status) == ("rate_limit_exceeded", 429)


def test_who_has_a_fallback_does_not_wait_for_a_rate(clock):
    found = route(clock, [deployment("a")], [deployment("b")])
    gate(found, "rate_limited", 3.0)
    candidate, wait = found.next()
    assert (candidate.deployment.name, wait) == ("b", 0.0)


def test_what_redis_said_a_moment_ago_is_not_asked_again(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    gate(route(clock, [deployment("a")], router=router), "circuit_open", 5.0)
    assert route(clock, [deployment("a")], router=router).next() is None
    clock.now += 1.1
    assert route(clock, [deployment("a")], router=router).next() is not None


# -- what a call says of its deployment


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (DONE, "ok"),
        (failed("upstream_error"), "error"),
        (failed("upstream_unavailable"), "error"),
        (failed("upstream_truncated"), "error"),
        (failed("upstream_timeout"), "timeout"),
        (failed("upstream_rejected"), "ok"),
        (failed("rate_limit_exceeded"), "none"),
        (failed("unsupported_parameter"), "none"),
        (Outcome("cancelled", [], error_code="cancelled"), "none"),
    ],
)
def test_a_circuit_breaker_hears_of_failures_of_the_provider_and_of_no_others(outcome, result):
    assert note_of(outcome, 0.0).result == result


def test_a_deployment_is_left_alone_for_as_long_as_it_asks_within_bounds():
    assert note_of(failed("rate_limit_exceeded", retry_after=7), 0.0) == Note("none", 7.0)
    assert note_of(failed("upstream_unavailable", retry_after=10**6), 0.0).blocked_seconds == 300.0
    assert note_of(DONE, 12.5) == Note("ok", 12.5)
