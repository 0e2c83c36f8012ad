# ruff: noqa: F401, F811 - fixtures of the neighbours
"""What may go wrong between two attempts: money, breakers, waits and cancellations, looked for on purpose."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import cycle, islice

import orjson
import pytest

from gateway_api.operations import longest_wait
from gateway_worker.call import Binding, Call
from gateway_worker.delivery import Delivery, Slots
from gateway_worker.deployments import Deployment
from gateway_worker.records import Ended, Gate, Note, Outcome
from gateway_worker.routing import Router
from gateway_worker.standing import RetryBudget
from model_gateway import GatewayError
from model_gateway.dialects import DIALECTS
from model_gateway.money import FREE
from model_gateway.providers.echo import EchoProvider
from model_gateway.providers.rate_limits import LearnedLimits
from model_gateway.settings import DeploymentRow, parse_config
from model_gateway.signing import Keyring
from model_gateway.streams import GROUP
from tests.invariants import check_budget
from tests.upstream_replies import ERROR, Behaviour
from tests.worker.test_deployment_gate import CONFIG as BENCH_CONFIG
from tests.worker.test_deployment_gate import FAILED, LOST, OPEN, advance, bench, caller, later
from tests.worker.test_failover import KEYS, town
from tests.worker.test_routing import SETTINGS, calls, clock, deployment, failed, gate, route
from tests.worker.test_transitions import REFUSAL, REPLY, paid

BLOCKED = Outcome("failed", [REPLY], error_code="rate_limit_exceeded", note=Note("none", 5.0))


# -- circuits, in the scripts


async def test_a_failure_that_opens_the_circuit_is_not_tried_again_through_it(bench, caller):
    """The retry would be a call of a deployment that is to be left alone, and would count as its probe."""
    for _ in range(3):
        await caller.call("error")
    called = await caller.admit()
    _, admission = await advance(bench, called, FAILED, deployment="echo")
    assert (admission.kind, admission.reason, admission.wait) == ("gated", "circuit_open", 5.0)
    await bench.transitions().settle(*called, 1000, FAILED)


async def test_a_probe_that_fails_is_not_tried_again_and_doubles_the_wait_once(bench, caller):
    for _ in range(4):
        await caller.call("error")
    later(bench, 5)
    probe = await caller.admit()
    for _ in range(2):
        _, admission = await advance(bench, probe, FAILED, deployment="echo")
        assert (admission.kind, admission.wait) == ("gated", 10.0)
    await bench.transitions().settle(*probe, 1000, FAILED)
    assert await caller.gated() == ("gated", "circuit_open", 10.0)


async def test_what_a_call_says_of_its_deployment_holds_before_its_attempt_is_closed_and_counts_once(bench, caller):
    for _ in range(2):
        await caller.call("error")
    called = await caller.admit()
    ended = Ended(*called, 1000, FAILED)
    for _ in range(2):
        await bench.transitions().note(ended)
    _, admission = await advance(bench, called, FAILED, deployment="other")
    await bench.transitions().settle(called[0], admission, 2000, paid(0))
    assert await bench.redis.hget(KEYS.deployment("echo"), "failures") == b"3"
    await caller.call("ok")


async def test_a_note_of_who_lost_the_request_is_not_taken(bench, caller):
    subject, admission = await caller.admit()
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", min_idle_time=0, message_ids=[subject.entry])
    heir = replace(subject, token="heir")
    taken = await bench.transitions("b").admit(heir, 1000, REFUSAL, old=False, gate=OPEN)
    await bench.transitions().note(Ended(subject, admission, 1000, BLOCKED))
    assert await bench.redis.hget(KEYS.deployment("echo"), "blocked_until") is None
    await bench.transitions("b").settle(heir, taken, 1000, paid(0))


async def test_a_circuit_that_was_open_when_the_breaker_was_turned_off_holds_nobody_back(bench, caller):
    for _ in range(4):
        await caller.call("error")
    bench.config = parse_config(BENCH_CONFIG.replace("breaker: {", "breaker: {enabled: false, "))
    await caller.call("error")
    later(bench, 6)
    both = [await caller.admit(), await caller.admit()]
    assert [admission.kind for _, admission in both] == ["admitted", "admitted"]
    for called in both:
        await caller.end(called, "ok")


async def test_a_shorter_wait_that_is_told_later_does_not_cut_a_longer_one(bench, caller):
    early, late = await caller.admit(), await caller.admit()
    await caller.end(early, "none", blocked=20.0)
    await caller.end(late, "none", blocked=1.0)
    assert await caller.gated() == ("gated", "rate_limited", 20.0)


async def test_who_asks_nobody_is_held_against_nothing_and_says_nothing(bench, caller):
    for _ in range(4):
        await caller.call("error")
    here = Gate(asks=False)
    for _ in range(2):
        await caller.end(await caller.admit(here), "none")
    later(bench, 5)
    first = await caller.admit(here)
    probe = await caller.admit()
    assert probe[1].kind == "admitted"
    await caller.end(first, "none")
    await caller.end(probe, "ok")


# -- money between two attempts


@pytest.mark.parametrize("outcome", [FAILED, LOST])
async def test_a_next_attempt_that_nobody_heard_of_is_closed_at_nothing_by_the_end_of_the_one_before(
    bench,
    caller,
    outcome,
):
    """Advance was carried out, every answer of it was lost, and so the failed attempt is settled."""
    called = await caller.admit()
    await advance(bench, called, outcome)
    assert await bench.transitions().settle(*called, 1000, outcome) == "settled"
    assert (await bench.stats())["spent_nano"] == (1000 if outcome.unknown else 0)
    assert await bench.transitions().settle(*called, 1000, outcome) in ("already", "settled")
    assert (await bench.stats())["spent_nano"] == (1000 if outcome.unknown else 0)
    await check_budget(bench.redis, 1_000_000)


async def test_a_redis_that_is_full_between_two_attempts_ends_the_request_with_its_own_failure_unpaid(town):
    town.one.next(Behaviour(status=429, headers={"Retry-After": "1"}, body=ERROR))
    asking = asyncio.create_task(town.fails("single"))
    await town.one.arrived(1)
    before = (await town.redis.config_get("maxmemory"))["maxmemory"]
    await town.redis.config_set("maxmemory", "1mb")
    try:
        error = await asking
    finally:
        await town.redis.config_set("maxmemory", before)
    assert error.code == "rate_limit_exceeded"
    assert (await town.end())["usd_nano"] == 0
    assert await town.events("request.unknown") == []


# -- waits


async def test_a_wait_that_a_provider_asks_for_holds_for_others_while_the_one_that_was_told_waits(town):
    town.one.next(Behaviour(status=429, headers={"Retry-After": "2"}, body=ERROR))
    first = asyncio.create_task(town.ask("ladder"))
    await town.one.arrived(1)
    while not await town.redis.hget(KEYS.deployment("ladder"), "blocked_until"):
        await asyncio.sleep(0)
    await town.ask("ladder")
    assert (town.one.calls, town.two.calls) == (1, 1)
    await first
    assert (town.one.calls, town.two.calls) == (2, 1)


def test_a_rate_that_opens_in_a_moment_is_waited_for_though_there_is_a_fallback(clock):
    found = route(clock, [deployment("a")], [deployment("b")])
    gate(found, "rate_limited", 0.01)
    candidate, wait = found.next()
    assert (candidate.deployment.name, wait) == ("a", pytest.approx(0.01))


def test_a_wait_that_headers_ask_for_runs_from_when_they_came():
    now = [1000.0]
    limits = LearnedLimits(lambda: now[0])
    limits.learn({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"})
    now[0] += 25
    assert limits.take() == 5.0
    assert limits.take() == 0.0


# -- the retry budget


def test_a_retry_that_was_not_made_is_given_back(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    found = route(clock, [deployment("a", queue_timeout=100)], router=router)
    calls(found, [failed("upstream_error")], clock)
    for _ in range(9):
        gate(found, "rate_limited", 0.5)
    candidate, _ = found.next()
    assert (candidate.deployment.name, candidate.out) == ("a", False)


def test_nine_failures_in_ten_are_not_answered_with_more_than_a_tenth_more_load(clock):
    router = Router(SETTINGS, clock, lambda: 0.0)
    answers = cycle([*[failed("upstream_error")] * 9, Outcome("done", [])])
    begun, total = clock.now, 0
    for _ in range(1000):
        total += len(calls(route(clock, [deployment("a")], router=router), islice(answers, 9), clock))
    back_with_time = (clock.now - begun) / RetryBudget.SECONDS_EACH
    assert 1000 < total <= 1000 * 1.1 + RetryBudget.MINIMUM + back_with_time


# -- who is asked first


def test_who_has_only_failed_of_late_is_not_taken_for_the_fastest(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    group = [deployment("refuses"), deployment("answers")]
    found = route(clock, group, routing="latency", router=router)
    assert [name for name, _ in calls(found, [failed("upstream_unauthorized"), Outcome("done", [])], clock)]
    assert route(clock, group, routing="latency", router=router).first.name == "answers"
    clock.now += 61
    assert route(clock, group, routing="latency", router=router).first.name == "refuses"


def test_what_this_process_believes_does_not_stand_before_a_request_that_may_have_been_started(clock):
    router = Router(SETTINGS, clock, lambda: 1.0)
    gate(route(clock, [deployment("a")], router=router), "circuit_open", 5.0)
    assert route(clock, [deployment("a")], router=router).next(believe=False) is not None


# -- one call


class Clumsy(EchoProvider):
    """A plug-in that fails before it has sent anything."""

    @property
    def max_tokens_field(self):
        raise RuntimeError("a bug")


class Mute(EchoProvider):
    """A plug-in that tells no usage and can't count."""

    speaks = frozenset({"messages"})

    def count_tokens(self, text, model):
        raise RuntimeError("a bug")

    async def native_stream(self, operation, body):
        for event in (
            {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ):
            yield orjson.dumps(event)


def a_call(provider, operation="chat", **fields):
    body = orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]} | fields)
    request = DIALECTS[operation].parse(body, max_choices=16)
    binding = Binding(Keyring(("k" * 40,)), "r1", "0" * 64, operation)
    row = Deployment("echo", "echo", DeploymentRow(provider="echo"), 100, FREE, provider)

    async def emit(chunks, signature):
        pass

    return Call(row, request, binding, emit, lambda: 0.0)


async def test_a_call_that_failed_before_anything_was_sent_owes_nothing():
    outcome = await a_call(Clumsy()).run()
    assert (outcome.state, outcome.error_code, outcome.unknown) == ("failed", "upstream_error", False)


async def test_a_stream_that_can_not_be_counted_ends_in_an_error_and_in_no_second_end():
    outcome = await a_call(Mute(), "messages", max_tokens=10, stream=True).run()
    assert (outcome.state, outcome.error_code, outcome.unknown) == ("failed", "upstream_error", True)
    [end] = outcome.replies
    ended = orjson.loads(end.data)
    assert (end.kind, ended["x_final"], ended["x_chunks"]) == ("error", True, end.index + 1)
    assert end.index == 5


async def test_a_request_is_cancelled_once_however_often_it_is_asked_for():
    """A second cancellation would tear the last chunks from their write."""
    delivery, heard = Delivery("1-1", {}, 1, Slots(1, 0)), []
    delivery.on_cancel(lambda: heard.append(1))
    delivery.cancel()
    delivery.cancel()
    assert heard == [1]


# -- the front door


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_front_door_outwaits_an_attempt_that_began_at_the_last_moment(attempts):
    config = parse_config(
        "models: {a: {provider: echo, free: true, timeout: 600, fallbacks: [b]}, "
        "b: {provider: echo, free: true, timeout: 30}}\n"
        f"redelivery: {{max_attempts: {attempts}}}"
    )
    begins, takes = config.longest_request("a"), 600 + 10
    assert longest_wait(config, "a") >= attempts * (begins + takes) + config.worker.lease_seconds
