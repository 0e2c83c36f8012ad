"""Admit, emit and settle against a real Redis: money and fencing, one script at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway_worker.records import Ended, Entry, Gate, LeaseLostError, Outcome, Subject
from gateway_worker.transitions import Transitions
from model_gateway.clock import SetClock
from model_gateway.envelope import Envelope
from model_gateway.ledger import budget_stats, initialise, reset_budget
from model_gateway.money import Usage
from model_gateway.replay import read_ledger, rebuild
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import parse_config
from model_gateway.streams import GROUP, Keys
from tests.invariants import check_budget, check_idle, events_of

KEYS = Keys()
NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z
DAY_MS = 86_400_000
LIMIT = 1_000_000
CONFIG = """
models: {echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002}}
budget: {daily_limit_usd: 0.001, warning_threshold: 0.5}
"""
REFUSAL = Entry("error", b'{"error":{}}', status=429, usd_nano=0)
REPLY = Entry("reply", b"{}", usd_nano=0)
USAGE = Usage(input=100, output=0)  # 100,000 nano-dollars at the price below


class Bench:
    """Requests put on the stream and taken by consumers, without a worker."""

    def __init__(self, redis, config=CONFIG):
        self.redis = redis
        self.clock = SetClock(NOON)
        self.config = parse_config(config)
        self.scripts = Scripts(redis, self.clock)

    def transitions(self, consumer="a"):
        return Transitions(self.scripts, KEYS, self.config, consumer)

    async def take(self, request_id, *, token, consumer="a"):
        """A new entry, delivered to a consumer."""
        await self.redis.xadd(KEYS.requests, {"x": "1"})
        [[_, [[entry, _]]]] = await self.redis.xreadgroup(GROUP, consumer, {KEYS.requests: ">"}, count=1)
        return self.subject(request_id, entry.decode(), token)

    def subject(self, request_id, entry, token):
        envelope = Envelope("agent-test", "agent-test", request_id, "chat", "echo", NOON, b"{}")
        base = ["request_id", request_id, "principal", "agent-test", "model", "echo", "provider", "echo"]
        base += ["deployment", "echo", "task", "", "price", "input=1000,output=2000", "request_entry", entry]
        return Subject(entry, envelope, "echo", token, base)

    async def stats(self):
        return await budget_stats(self.scripts, KEYS, self.config.budget)


@pytest.fixture
async def bench(redis):
    await initialise(redis, KEYS)
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    made = Bench(redis)
    yield made
    await made.scripts.close()


def paid(cost, **kwargs):
    return Outcome("done", [REPLY], cost=cost, usage=Usage(input=cost // 1000), **kwargs)


async def admit(bench, subject, amount=100_000, consumer="a", *, old=False):
    return await bench.transitions(consumer).admit(subject, amount, REFUSAL, old=old)


async def test_an_admitted_request_reserves_and_a_settled_one_pays_what_it_cost(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    assert (await bench.stats())["reserved_nano"] == 100_000
    assert await bench.transitions().settle(subject, admission, 100_000, paid(70_000)) == "settled"
    stats = await bench.stats()
    assert (stats["spent_nano"], stats["reserved_nano"]) == (70_000, 0)
    assert stats["by_model"]["echo"]["spent_nano"] == 70_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_request_that_could_cost_more_than_is_left_is_refused_and_answered(bench):
    subject = await bench.take("r1", token="t1")
    assert (await admit(bench, subject, LIMIT + 1)).kind == "refused"
    [[_, reply]] = await bench.redis.xrange(KEYS.replies("agent-test"))
    assert reply[b"status"] == b"429"
    assert int(reply[b"retry_after"]) == 12 * 3600
    kinds = [event["event_type"] for event in await events_of(bench.redis)]
    assert kinds == ["model.budget.exceeded", "model.request.failed"]
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_requests_that_come_at_once_are_admitted_only_as_far_as_the_budget_goes(bench):
    subjects = [await bench.take(f"r{number}", token=f"t{number}") for number in range(20)]
    admissions = await asyncio.gather(*(admit(bench, subject, LIMIT // 10) for subject in subjects))
    assert Counter(admission.kind for admission in admissions) == {"admitted": 10, "refused": 10}
    await check_budget(bench.redis, LIMIT)


async def test_a_request_that_costs_exactly_what_is_left_is_admitted(bench):
    subject = await bench.take("r1", token="t1")
    assert (await admit(bench, subject, LIMIT)).kind == "admitted"
    await check_budget(bench.redis, LIMIT)


async def test_a_soft_budget_lets_pass_and_says_so(redis):
    await initialise(redis, KEYS)
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    bench = Bench(redis, CONFIG.replace("warning_threshold", "hard_stop: false, warning_threshold"))
    subject = await bench.take("r1", token="t1")
    assert (await admit(bench, subject, LIMIT + 1)).kind == "admitted"
    kinds = [event["event_type"] for event in await events_of(redis)]
    assert kinds == ["model.budget.exceeded", "model.budget.warning", "model.request.start"]


async def test_the_warning_is_written_once_a_window(bench):
    for number in range(3):
        subject = await bench.take(f"r{number}", token="t")
        await bench.transitions().settle(subject, await admit(bench, subject, 300_000), 300_000, paid(300_000))
    bench.clock.advance(DAY_MS)
    subject = await bench.take("r9", token="t")
    await bench.transitions().settle(subject, await admit(bench, subject, 600_000), 600_000, paid(600_000))
    warnings = [event for event in await events_of(bench.redis) if event["event_type"] == "model.budget.warning"]
    assert [event["window"] for event in warnings] == ["2026-11-23", "2026-11-24"]


async def test_a_bill_above_its_reservation_is_paid_and_written_as_an_overrun(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject, 900_000)
    await bench.transitions().settle(subject, admission, 900_000, paid(1_100_000))
    stats = await bench.stats()
    assert (stats["spent_nano"], stats["overrun_nano"]) == (1_100_000, 200_000)
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_request_belongs_to_the_window_in_which_it_reserved(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    bench.clock.advance(DAY_MS)
    await bench.transitions().settle(subject, admission, 100_000, paid(100_000))
    assert (await bench.stats())["spent_nano"] == 0
    assert await read_ledger(bench.redis, KEYS) == {"gateway|2026-11-23|settled": 100_000}
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_lost_answer_to_admit_emit_or_settle_changes_nothing_when_sent_again(bench):
    subject = await bench.take("r1", token="t1")
    first, again = await admit(bench, subject), await admit(bench, subject)
    assert first == again
    chunk = Entry("chunk", b'{"x_index":0}', end=False)
    for _ in range(2):
        await bench.transitions().emit(subject, 1, [chunk], "sig")
    last = Outcome("done", [Entry("chunk", b'{"x_index":1}', 1, usd_nano=0)], cost=50_000, usage=Usage(50))
    assert await bench.transitions().settle(subject, first, 100_000, last) == "settled"
    assert await bench.transitions().settle(subject, first, 100_000, last) == "already"
    assert await bench.redis.xlen(KEYS.replies("agent-test")) == 2
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_stale_token_changes_nothing(bench):
    old = await bench.take("r1", token="old")
    stale = await admit(bench, old)
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [old.entry])
    new = bench.subject("r1", old.entry, "new")
    admission = await admit(bench, new, consumer="b")
    assert (admission.kind, admission.attempt) == ("admitted", 2)
    before = [await bench.redis.dump(key) for key in (KEYS.ledger, KEYS.open, KEYS.events, KEYS.requests)]
    with pytest.raises(LeaseLostError):
        await bench.transitions("a").emit(old, 1, [Entry("chunk", b"{}", end=False)], "sig")
    assert await bench.transitions("a").settle(old, stale, 100_000, paid(1)) == "stale"
    assert (await admit(bench, old)).kind == "lost"
    after = [await bench.redis.dump(key) for key in (KEYS.ledger, KEYS.open, KEYS.events, KEYS.requests)]
    assert before == after
    assert await bench.redis.exists(KEYS.replies("agent-test")) == 0
    await bench.transitions("b").settle(new, admission, 100_000, paid(60_000))
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_lost_attempt_is_charged_at_its_reservation_and_run_once_more(bench):
    old = await bench.take("r1", token="t1")
    await admit(bench, old, 100_000)
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [old.entry])
    new = bench.subject("r1", old.entry, "t2")
    admission = await admit(bench, new, 100_000, "b")
    stats = await bench.stats()
    assert (stats["spent_nano"], stats["reserved_nano"]) == (100_000, 100_000)
    await bench.transitions("b").settle(new, admission, 100_000, paid(30_000))
    [unknown] = [event for event in await events_of(bench.redis) if event["event_type"] == "model.request.unknown"]
    assert (unknown["usd_nano"], unknown["attempt"], unknown["estimated"]) == (100_000, 1, True)
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_after_the_last_attempt_a_lost_request_ends_as_failed(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    for consumer in ("b", "c"):
        await bench.redis.xclaim(KEYS.requests, GROUP, consumer, 0, [subject.entry])
        subject = bench.subject("r1", subject.entry, f"token-{consumer}")
        admission = await admit(bench, subject, consumer=consumer)
    assert admission.kind == "exhausted"
    failed = Outcome("failed", [REFUSAL], error_code="outcome_unknown")
    await bench.transitions("c").settle(subject, admission, 100_000, failed)
    assert (await bench.stats())["spent_nano"] == 200_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_request_whose_client_has_seen_chunks_is_not_called_again(bench):
    old = await bench.take("r1", token="t1")
    await admit(bench, old)
    await bench.transitions().emit(old, 1, [Entry("chunk", b'{"x_index":0}', end=False)], "signature-0")
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [old.entry])
    admission = await admit(bench, bench.subject("r1", old.entry, "t2"), consumer="b")
    assert (admission.kind, admission.chunks, admission.signature) == ("exhausted", 1, "signature-0")


async def test_a_timed_out_call_is_charged_at_its_reservation_as_unknown(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    timed_out = Outcome("failed", [REFUSAL], unknown=True, error_code="upstream_timeout")
    await bench.transitions().settle(subject, admission, 100_000, timed_out)
    kinds = [(event["event_type"], event.get("usd_nano")) for event in await events_of(bench.redis)]
    assert kinds[-2:] == [("model.request.unknown", 100_000), ("model.request.failed", 0)]
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_spend_whose_record_is_missing_is_charged_as_unknown_once(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    await bench.redis.delete(KEYS.record("agent-test", "r1"))
    assert await bench.transitions().settle(subject, admission, 100_000, paid(70_000)) == "missing"
    assert await bench.transitions().settle(subject, admission, 100_000, paid(70_000)) == "already"
    stats = await bench.stats()
    assert (stats["spent_nano"], stats["reserved_nano"]) == (70_000, 0)
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_repeated_id_is_answered_and_not_run_again(bench):
    subject = await bench.take("r1", token="t1")
    await bench.transitions().settle(subject, await admit(bench, subject), 100_000, paid(50_000))
    again = await bench.take("r1", token="t2")
    assert (await admit(bench, again)).kind == "duplicate"
    replies = [fields for _, fields in await bench.redis.xrange(KEYS.replies("agent-test"))]
    assert replies == [replies[0]] * 2
    assert (await bench.stats())["spent_nano"] == 50_000
    assert (await bench.redis.xpending(KEYS.requests, GROUP))["pending"] == 0


async def test_a_repeated_id_is_answered_with_its_own_replies_alone(bench):
    first, other = await bench.take("r1", token="t1"), await bench.take("r2", token="t2")
    admissions = [await admit(bench, subject) for subject in (first, other)]
    await bench.transitions().emit(first, 1, [Entry("chunk", b'{"x_index":0}', end=False)], "sig")
    await bench.transitions().settle(other, admissions[1], 100_000, paid(50_000))
    await bench.transitions().settle(first, admissions[0], 100_000, Outcome("done", [Entry("chunk", b"{}", 1)]))
    await admit(bench, await bench.take("r1", token="t3"))
    ids = [fields[b"id"] for _, fields in await bench.redis.xrange(KEYS.replies("agent-test"))]
    assert ids == [b"r1", b"r2", b"r1", b"r1", b"r1"]


async def test_an_old_id_that_was_never_submitted_is_not_run(bench):
    assert (await admit(bench, await bench.take("r1", token="t1"), old=True)).kind == "stale"


async def test_without_its_epoch_the_ledger_admits_nothing(bench):
    await bench.redis.delete(KEYS.epoch)
    assert (await admit(bench, await bench.take("r1", token="t1"))).kind == "ledger_lost"
    assert (await bench.stats())["status"] == "ledger_lost"


async def test_a_reset_zeroes_what_was_settled_and_keeps_what_is_reserved(bench):
    first = await bench.take("r1", token="t1")
    await bench.transitions().settle(first, await admit(bench, first), 100_000, paid(40_000))
    second = await bench.take("r2", token="t2")
    admission = await admit(bench, second)
    assert (await reset_budget(bench.scripts, KEYS, bench.config.budget, "admin"))["reset_nano"] == 40_000
    stats = await bench.stats()
    assert (stats["spent_nano"], stats["reserved_nano"], stats["by_model"]) == (0, 100_000, {})
    await bench.transitions().settle(second, admission, 100_000, paid(50_000))
    await check_idle(bench.redis, LIMIT, {"r1", "r2"})


async def test_the_ledger_can_be_rebuilt_from_its_events(bench):
    first = await bench.take("r1", token="t1")
    await bench.transitions().settle(first, await admit(bench, first), 100_000, paid(40_000))
    await admit(bench, await bench.take("r2", token="t2"))
    before = await read_ledger(bench.redis, KEYS)
    await bench.redis.delete(KEYS.ledger, KEYS.spend, KEYS.open, KEYS.epoch)
    await rebuild(bench.redis, KEYS)
    assert await read_ledger(bench.redis, KEYS) == before
    await check_budget(bench.redis, LIMIT)
    assert (await admit(bench, await bench.take("r3", token="t3"))).kind == "admitted"


async def test_a_free_model_moves_no_money(bench):
    subject = await bench.take("r1", token="t1")
    await bench.transitions().settle(subject, await admit(bench, subject, 0), 0, paid(0))
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_amounts_near_the_largest_limit_stay_exact(redis):
    nano = 8_999_999_999_999_999
    await initialise(redis, KEYS)
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    bench = Bench(redis, CONFIG.replace("0.001", "9000000"))
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject, nano)
    assert (await bench.stats())["reserved_nano"] == nano
    assert (await admit(bench, await bench.take("r2", token="t2"), 2)).kind == "refused"
    await bench.transitions().settle(subject, admission, nano, paid(nano))
    assert (await bench.stats())["spent_nano"] == nano


async def test_an_admission_that_was_answered_too_late_costs_nothing_when_refused(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    assert await bench.transitions().refuse(subject, REFUSAL, "redis_unavailable", called=False) == "refused"
    assert (await bench.stats())["spent_nano"] == 0
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_refusal_after_the_call_charges_the_reservation(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    await bench.transitions().refuse(subject, REFUSAL, "redis_unavailable", called=True)
    assert (await bench.stats())["spent_nano"] == 100_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_an_agent_that_ends_its_own_record_still_pays(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    await bench.redis.hset(KEYS.record("agent-test", "r1"), mapping={"state": "done", "token": "mine"})
    assert await bench.transitions().settle(subject, admission, 100_000, paid(70_000)) == "settled"
    assert (await bench.stats())["spent_nano"] == 70_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_settle_that_comes_after_the_record_has_run_out_charges_nothing_again(bench):
    subject = await bench.take("r1", token="t1")
    admission = await admit(bench, subject)
    await bench.transitions().settle(subject, admission, 100_000, paid(70_000))
    await bench.redis.delete(KEYS.record("agent-test", "r1"))
    late = paid(70_000, latency_ms=2 * DAY_MS)
    assert await bench.transitions().settle(subject, admission, 100_000, late) == "stale"
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_an_entry_that_is_given_up_pays_for_its_attempt_and_leaves_a_dead_letter(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [subject.entry])
    again = bench.subject("r1", subject.entry, "t2")
    dead = ("delivered 5 times and never finished", {b"id": b"r1"})
    await bench.transitions("b").refuse(again, REFUSAL, "outcome_unknown", called=True, dead=dead)
    assert (await bench.stats())["spent_nano"] == 100_000
    [[_, letter]] = await bench.redis.xrange(KEYS.dead)
    assert letter == {b"reason": dead[0].encode(), b"entry": subject.entry.encode(), b"id": b"r1"}
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_resent_takeover_is_not_taken_for_an_admission(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    await bench.transitions().emit(subject, 1, [Entry("chunk", b'{"x_index":0}', end=False)], "signature-0")
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [subject.entry])
    heir = bench.subject("r1", subject.entry, "t2")
    first, again = await admit(bench, heir, consumer="b"), await admit(bench, heir, consumer="b")
    assert first == again
    assert again.kind == "exhausted"


@pytest.mark.parametrize("harm", ["delete", "retype", "base", "requeue"])
async def test_whatever_an_agent_does_to_its_record_a_lost_attempt_is_charged(bench, harm):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    record = KEYS.record("agent-test", "r1")
    match harm:
        case "delete":
            await bench.redis.delete(record)
        case "retype":
            await bench.redis.delete(record)
            await bench.redis.xadd(record, {"a": "b"})
        case "base":
            await bench.redis.hset(record, mapping={"base": "not JSON", "first": "nonsense"})
        case "requeue":
            await bench.redis.hset(record, "state", "queued")
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [subject.entry])
    heir = bench.subject("r1", subject.entry, "t2")
    admission = await admit(bench, heir, consumer="b")
    assert (admission.kind, admission.attempt) == ("admitted", 2)
    assert (await bench.stats())["spent_nano"] == 100_000
    await bench.transitions("b").settle(heir, admission, 100_000, paid(50_000))
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_call_whose_admission_redis_forgot_is_charged(bench):
    subject = await bench.take("r1", token="t1")
    record = KEYS.record("agent-test", "r1")
    admission = await admit(bench, subject)
    await bench.redis.delete(record, KEYS.open, KEYS.ledger, KEYS.events)
    await bench.redis.hset(record, mapping={"state": "queued", "entry": subject.entry})
    assert await bench.transitions().settle(subject, admission, 100_000, paid(70_000)) == "missing"
    assert (await bench.stats())["spent_nano"] == 70_000


async def test_renewing_one_bad_record_renews_the_others(bench):
    bad, good = await bench.take("r1", token="t1"), await bench.take("r2", token="t2")
    for subject in (bad, good):
        await admit(bench, subject)
    records = [KEYS.record("agent-test", name) for name in ("r1", "r2")]
    await bench.redis.delete(records[0])
    await bench.redis.xadd(records[0], {"a": "b"})
    assert await renew(bench, [bad.entry, good.entry], ["t1", "t2"], records) == [1, 1]


async def test_a_stale_token_renews_no_lease(bench):
    old = await bench.take("r1", token="old")
    await admit(bench, old)
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [old.entry])
    await admit(bench, bench.subject("r1", old.entry, "new"), consumer="b")
    assert await renew(bench, [old.entry], ["old"], [KEYS.record("agent-test", "r1")]) == [0]
    [pending] = await bench.redis.xpending_range(KEYS.requests, GROUP, "-", "+", 10)
    assert pending["consumer"] == b"b"


async def renew(bench, entries, tokens, records):
    script = load_script("gateway_worker", "renew", "model_gateway:prelude", allow_oom=True)
    args = {"group": GROUP, "consumer": "a", "entries": entries, "tokens": tokens, "running_ttl_ms": "60000"}
    return await bench.scripts.call(script, [KEYS.requests, *records], args)


async def test_a_stale_request_that_was_accepted_has_its_terminal_event(bench):
    subject = await bench.take("r1", token="t1")
    await bench.redis.hset(KEYS.record("agent-test", "r1"), mapping={"state": "queued", "entry": subject.entry})
    stranger = await bench.take("r2", token="t2")
    fields = {"called": False, "dead": ("stale", {}), "accepted_only": True}
    assert await bench.transitions().refuse(subject, REFUSAL, "stale_request", **fields) == "refused"
    assert await bench.transitions().refuse(stranger, REFUSAL, "stale_request", **fields) == "stranger"
    assert [event["request_id"] for event in await events_of(bench.redis)] == ["r1"]


async def test_an_advance_that_arrives_late_does_not_close_the_attempt_that_runs_now(bench):
    subject = await bench.take("r1", token="t1")
    first = await admit(bench, subject)
    failed = Outcome("failed", [REFUSAL], error_code="upstream_error")
    second = await bench.transitions().advance(Ended(subject, first, 100_000, failed), subject, 100_000, Gate())
    third = await bench.transitions().advance(Ended(subject, second, 100_000, failed), subject, 100_000, Gate())
    assert (await bench.transitions().advance(Ended(subject, first, 1, failed), subject, 1, Gate())).kind == "stale"
    await bench.transitions().settle(subject, third, 100_000, paid(70_000))
    assert (await bench.stats())["spent_nano"] == 70_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_an_old_request_that_is_running_and_whose_record_is_lost_is_taken_over(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    await bench.redis.delete(KEYS.record("agent-test", "r1"))
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [subject.entry])
    heir = bench.subject("r1", subject.entry, "t2")
    admission = await admit(bench, heir, consumer="b", old=True)
    assert (admission.kind, admission.attempt) == ("admitted", 2)
    await bench.transitions("b").settle(heir, admission, 100_000, paid(50_000))
    assert (await bench.stats())["spent_nano"] == 150_000
    await check_idle(bench.redis, LIMIT, {"r1"})


async def test_a_stale_request_with_something_reserved_is_no_stranger(bench):
    subject = await bench.take("r1", token="t1")
    await admit(bench, subject)
    await bench.redis.delete(KEYS.record("agent-test", "r1"))
    await bench.redis.xclaim(KEYS.requests, GROUP, "b", 0, [subject.entry])
    heir, fields = bench.subject("r1", subject.entry, "t2"), {"called": True, "accepted_only": True}
    assert await bench.transitions("b").refuse(heir, REFUSAL, "stale_request", **fields) == "refused"
    assert (await bench.stats())["spent_nano"] == 100_000
    await check_idle(bench.redis, LIMIT, {"r1"})
