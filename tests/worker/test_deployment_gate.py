"""A deployment's circuit breaker and rates, in the scripts, against a real Redis and a clock that the test sets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway_worker.records import Ended, Gate, Note, Outcome
from model_gateway.ledger import initialise
from model_gateway.settings import parse_config
from model_gateway.streams import GROUP
from tests.invariants import check_budget, check_idle, events_of
from tests.worker.test_transitions import KEYS, LIMIT, REFUSAL, REPLY, Bench, paid

CONFIG = """
models: {echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002}}
budget: {daily_limit_usd: 0.001, warning_threshold: 0.5}
routing:
  breaker: {window_seconds: 10, min_calls: 4, error_rate: 0.5, timeouts: 2, open_seconds: 5, max_open_seconds: 12}
"""
OPEN = Gate(probe_seconds=30)


class Caller:
    """Requests at one deployment, as a worker makes them."""

    def __init__(self, bench):
        self.bench = bench
        self.count = 0

    async def admit(self, gate=OPEN, deployment="echo"):
        self.count += 1
        name = f"r{self.count}"
        subject = await self.bench.take(name, token=f"t{self.count}")
        subject = at(subject, deployment)
        admission = await self.bench.transitions().admit(subject, 1000, REFUSAL, old=False, gate=gate)
        return subject, admission

    async def end(self, called, result, blocked=0.0):
        subject, admission = called
        state = "done" if result == "ok" else "failed"
        outcome = Outcome(state, [REPLY], error_code="" if result == "ok" else "e", note=Note(result, blocked))
        assert await self.bench.transitions().settle(subject, admission, 1000, outcome) == "settled"

    async def call(self, result, **more):
        called = await self.admit()
        assert called[1].kind == "admitted", called[1]
        await self.end(called, result, **more)

    async def gated(self, gate=OPEN):
        """Why a call would not be let through, and for how long; the request is then refused."""
        subject, admission = await self.admit(gate)
        await self.bench.transitions().refuse(subject, REFUSAL, "upstream_unavailable", called=False)
        return admission.kind, admission.reason, admission.wait


def at(subject, deployment):
    return replace(subject, deployment=deployment)


@pytest.fixture
async def bench(redis):
    await initialise(redis, KEYS)
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    made = Bench(redis, CONFIG)
    yield made
    await check_idle(redis, LIMIT)
    await made.scripts.close()


@pytest.fixture
def caller(bench):
    return Caller(bench)


def later(bench, seconds):
    bench.clock.advance(round(seconds * 1000))


# -- the breaker


async def test_half_of_the_calls_failing_opens_the_circuit_and_all_are_refused_until_it_is_tried_again(bench, caller):
    for result in ("ok", "ok", "error"):
        await caller.call(result)
    await caller.call("error")
    assert await caller.gated() == ("gated", "circuit_open", 5.0)
    later(bench, 4.9)
    assert (await caller.gated())[1] == "circuit_open"
    [opened] = [event for event in await events_of(bench.redis) if event["event_type"] == "model.deployment.opened"]
    assert opened["deployment"] == "echo"


async def test_fewer_calls_than_the_least_open_nothing(caller):
    for _ in range(3):
        await caller.call("error")
    await caller.call("ok")


async def test_time_outs_in_a_row_open_it_sooner_and_a_success_between_them_does_not(caller):
    await caller.call("timeout")
    await caller.call("ok")
    await caller.call("timeout")
    await caller.call("none")
    await caller.call("timeout")
    assert (await caller.gated())[1] == "circuit_open"


async def test_old_failures_are_forgotten(bench, caller):
    for _ in range(3):
        await caller.call("error")
    later(bench, 21)
    await caller.call("error")
    await caller.call("ok")


async def test_one_probe_is_let_through_and_its_success_closes_the_circuit(bench, caller):
    for _ in range(4):
        await caller.call("error")
    later(bench, 5)
    probe = await caller.admit()
    assert probe[1].kind == "admitted"
    assert (await caller.gated())[1] == "circuit_open"
    await caller.end(probe, "ok")
    await caller.call("ok")
    kinds = [event["event_type"] for event in await events_of(bench.redis)]
    assert kinds.count("model.deployment.closed") == 1


async def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_longest(bench, caller):
    for _ in range(4):
        await caller.call("error")
    for wait in (10.0, 12.0, 12.0):
        later(bench, 12)
        await caller.call("error")
        assert await caller.gated() == ("gated", "circuit_open", wait)


async def test_a_probe_that_says_nothing_makes_room_for_another(bench, caller):
    for _ in range(4):
        await caller.call("error")
    later(bench, 5)
    await caller.call("none")
    await caller.call("ok")


async def test_a_probe_whose_worker_died_makes_room_when_its_time_is_up(bench, caller):
    for _ in range(4):
        await caller.call("error")
    later(bench, 5)
    lost = await caller.admit()
    later(bench, 31)
    await caller.call("ok")
    await caller.end(lost, "none")


async def test_a_call_that_began_before_the_circuit_opened_neither_closes_it_nor_prolongs_it(caller):
    early, late = await caller.admit(), await caller.admit()
    for _ in range(4):
        await caller.call("error")
    await caller.end(early, "ok")
    await caller.end(late, "error")
    assert await caller.gated() == ("gated", "circuit_open", 5.0)


async def test_a_breaker_that_is_off_never_opens(redis, caller, bench):
    bench.config = parse_config(CONFIG.replace("breaker: {", "breaker: {enabled: false, "))
    for _ in range(8):
        await caller.call("error")


async def test_deployments_have_circuits_of_their_own(caller):
    for _ in range(4):
        await caller.call("error")
    other = await caller.admit(deployment="other")
    assert other[1].kind == "admitted"
    await caller.end(other, "ok")


# -- rates


async def test_calls_beyond_the_rate_are_held_back_before_they_are_made(bench, caller):
    gate = Gate(rpm=3)
    for _ in range(3):
        await caller.end(await caller.admit(gate), "ok")
    kind, reason, wait = await caller.gated(gate)
    assert (kind, reason) == ("gated", "rate_limited")
    assert 0 < wait <= 120


async def test_the_wait_that_is_told_is_long_enough(bench, caller):
    gate = Gate(rpm=3)
    later(bench, 42)
    for _ in range(3):
        await caller.end(await caller.admit(gate), "ok")
    _, _, wait = await caller.gated(gate)
    later(bench, wait - 1)
    assert (await caller.gated(gate))[0] == "gated"
    later(bench, 1.001)
    called = await caller.admit(gate)
    assert called[1].kind == "admitted"
    await caller.end(called, "ok")


async def test_no_minute_sees_more_than_the_rate_wherever_it_begins(bench, caller):
    gate, passed = Gate(rpm=6), []
    for step in range(60):
        later(bench, 3)
        called = await caller.admit(gate)
        if called[1].kind == "admitted":
            passed.append(step * 3)
            await caller.end(called, "ok")
        else:
            await bench.transitions().refuse(called[0], REFUSAL, "rate_limit_exceeded", called=False)
    assert passed
    most = max(sum(start <= at < start + 60 for at in passed) for start in passed)
    assert most <= 7  # weighing two minutes is an estimate: one more at the edge


async def test_tokens_are_held_to_their_rate_and_one_large_request_may_go_alone(bench, caller):
    await caller.end(await caller.admit(Gate(tpm=100, tokens=500)), "ok")
    assert (await caller.gated(Gate(tpm=100, tokens=1)))[1] == "rate_limited"
    later(bench, 120)
    await caller.end(await caller.admit(Gate(tpm=100, tokens=60)), "ok")
    assert (await caller.gated(Gate(tpm=100, tokens=60)))[1] == "rate_limited"


async def test_a_deployment_that_asks_to_be_left_alone_is_left_alone_by_all(bench, caller):
    await caller.call("ok", blocked=20.0)
    assert await caller.gated() == ("gated", "rate_limited", 20.0)
    later(bench, 20)
    await caller.call("ok")


# -- the next attempt


async def advance(bench, called, outcome, amount=2000, deployment="other", gate=OPEN):
    subject, admission = called
    following = at(subject, deployment)
    ended = Ended(subject, admission, 1000, outcome)
    return following, await bench.transitions().advance(ended, following, amount, gate)


FAILED = Outcome("failed", [REPLY], error_code="upstream_error", note=Note("error"))
LOST = Outcome("failed", [REPLY], error_code="upstream_timeout", unknown=True, note=Note("timeout"))


async def test_a_failed_attempt_that_cost_nothing_gives_its_reservation_back_as_the_next_one_reserves(bench, caller):
    called = await caller.admit()
    following, admission = await advance(bench, called, FAILED)
    assert (admission.kind, admission.attempt) == ("admitted", 2)
    stats = await bench.stats()
    assert (stats["reserved_nano"], stats["spent_nano"]) == (2000, 0)
    await check_budget(bench.redis, LIMIT)
    assert await bench.transitions().settle(following, admission, 2000, paid(1000)) == "settled"
    kinds = [event["event_type"].removeprefix("model.request.") for event in await events_of(bench.redis)]
    assert kinds == ["start", "retry", "start", "complete"]


async def test_a_failed_attempt_that_may_have_been_paid_is_charged(bench, caller):
    called = await caller.admit()
    following, admission = await advance(bench, called, LOST)
    stats = await bench.stats()
    assert (stats["reserved_nano"], stats["spent_nano"]) == (2000, 1000)
    await bench.transitions().settle(following, admission, 2000, paid(1000))


async def test_an_advance_whose_answer_was_lost_is_carried_out_once(bench, caller):
    called = await caller.admit()
    _, first = await advance(bench, called, LOST)
    following, second = await advance(bench, called, LOST)
    assert first == second
    assert (await bench.stats())["spent_nano"] == 1000
    await bench.transitions().settle(following, second, 2000, paid(0))


async def test_a_next_attempt_that_does_not_fit_the_budget_changes_nothing(bench, caller):
    called = await caller.admit()
    before = await bench.stats()
    _, admission = await advance(bench, called, FAILED, amount=LIMIT + 1)
    assert admission.kind == "refused"
    assert await bench.stats() == before
    await bench.transitions().settle(*called, 1000, FAILED)


async def test_what_the_failed_attempt_gives_back_counts_for_the_next(bench, caller):
    subject = at(await bench.take("big", token="tb"), "echo")
    admission = await bench.transitions().admit(subject, LIMIT, REFUSAL, old=False)
    ended = Ended(subject, admission, LIMIT, FAILED)
    again = await bench.transitions().advance(ended, subject, LIMIT, OPEN)
    assert again.kind == "admitted"
    await bench.transitions().settle(subject, again, LIMIT, paid(0))


async def test_a_next_attempt_at_a_broken_deployment_changes_nothing(bench, caller):
    for _ in range(4):
        await caller.call("error")
    called = await caller.admit(deployment="other")
    _, admission = await advance(bench, called, FAILED, deployment="echo")
    assert (admission.kind, admission.reason) == ("gated", "circuit_open")
    await bench.transitions().settle(*called, 1000, FAILED)


async def test_a_cancelled_request_gets_no_next_attempt(bench, caller):
    called = await caller.admit()
    await bench.redis.hset(KEYS.record("agent-test", "r1"), "cancel", "1")
    _, admission = await advance(bench, called, FAILED)
    assert admission.kind == "cancelled"
    await bench.transitions().settle(*called, 1000, FAILED)


async def test_a_stale_token_gets_no_next_attempt(bench, caller):
    subject, admission = await caller.admit()
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", min_idle_time=0, message_ids=[subject.entry])
    heir = replace(subject, token="heir")
    taken = await bench.transitions("b").admit(heir, 1000, REFUSAL, old=False, gate=OPEN)
    assert taken.attempt == 2
    before = await bench.stats()
    assert (await advance(bench, (subject, admission), FAILED))[1].kind == "stale"
    assert await bench.stats() == before
    await bench.transitions("b").settle(heir, taken, 1000, paid(0))


async def test_attempts_that_failed_do_not_count_as_lost_with_a_worker(bench, caller):
    """Two calls that failed leave a request its second life after a crash."""
    called = await caller.admit()
    following, _ = await advance(bench, called, FAILED)
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", min_idle_time=0, message_ids=[following.entry])
    heir = replace(following, token="heir")
    taken = await bench.transitions("b").admit(heir, 1000, REFUSAL, old=False, gate=OPEN)
    assert (taken.kind, taken.attempt) == ("admitted", 3)
    await bench.transitions("b").settle(heir, taken, 1000, paid(0))


async def test_a_lost_attempt_is_charged_once_however_often_its_heir_finds_the_way_shut(bench, caller):
    called = await caller.admit(deployment="other")
    for _ in range(4):
        await caller.call("error")
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", min_idle_time=0, message_ids=[called[0].entry])
    heir = replace(called[0], token="heir", deployment="echo")
    for _ in range(2):
        shut = await bench.transitions("b").admit(heir, 1000, REFUSAL, old=False, gate=OPEN)
        assert shut.kind == "gated"
    assert (await bench.stats())["spent_nano"] == 1000
    # And whoever lost it is fenced off although nothing was reserved since.
    assert await bench.transitions().settle(*called, 1000, paid(5)) == "stale"
    assert await bench.transitions("b").refuse(heir, REFUSAL, "upstream_unavailable", called=False) == "refused"
