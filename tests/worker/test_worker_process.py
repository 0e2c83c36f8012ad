"""Workers as real processes: kills, freezes, drains, and entries that nobody should run."""

from __future__ import annotations

import asyncio
import signal

import orjson
import pytest

from gateway_worker.deployments import Deployments
from model_gateway import GatewayError
from model_gateway.clock import Clock
from model_gateway.dialects.chat import parse_chat
from model_gateway.envelope import Envelope
from model_gateway.events import TERMINAL
from model_gateway.fleet import live_workers
from model_gateway.money import usd_text
from model_gateway.settings import parse_config
from model_gateway.streams import GROUP, Keys
from tests.invariants import check_budget, check_idle, events_of
from tests.processes import AGENT_SECRET, gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

KEYS = Keys()
LIMIT = 20_000_000_000
HELLO = [{"role": "user", "content": "hello"}]
CONFIG = """
models:
  echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}}
  paid:
    {{provider: openai, api_base: "{base_url}", input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100,
      timeout: 20}}
  scarce: {{provider: echo, free: true, max_concurrency: 1, queue_timeout: 0.2, options: {{delay_ms: 3000}}}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
"""


@pytest.fixture
async def upstream():
    async with Upstream() as running:
        yield running


@pytest.fixture
async def house(redis, redis_url, tmp_path, upstream):
    async with gateway(redis, redis_url, tmp_path, CONFIG.format(base_url=upstream.base_url)) as running:
        yield running


@pytest.fixture
async def agent(house):
    async with house.agent() as client:
        yield client


async def test_a_request_whose_worker_is_killed_in_its_call_is_answered_by_another(house, agent, upstream):
    victim = await house.start_worker("victim")
    upstream.next(Behaviour(hold_at=0))
    asking = asyncio.create_task(agent.complete(model="paid", messages=HELLO))
    await upstream.arrived(1)
    await victim.stop(signal.SIGKILL)
    await house.start_worker("heir")
    reply = await asking
    assert reply["choices"][0]["message"]["content"]
    events = await events_of(house.redis)
    [unknown] = [event for event in events if event["event_type"] == "model.request.unknown"]
    assert unknown["usd_nano"] == unknown["reserved_nano"]
    assert upstream.calls == 2
    await check_idle(house.redis, LIMIT, {reply["x_request_id"]})


async def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_wakes(house, agent, upstream):
    sleeper = await house.start_worker("sleeper")
    upstream.next(Behaviour(hold_at=0, text="from the sleeper"))
    asking = asyncio.create_task(agent.complete(model="paid", messages=HELLO))
    await upstream.arrived(1)
    sleeper.send(signal.SIGSTOP)
    await house.start_worker("heir")
    reply = await asking
    ended = await house.redis.xlen(KEYS.events)
    upstream.release()
    sleeper.send(signal.SIGCONT)
    await wait_until(lambda: "lease_lost" in sleeper.log.read_text() or "not_settled" in sleeper.log.read_text())
    assert reply["choices"][0]["message"]["content"] == "hello"
    assert await house.redis.xlen(KEYS.events) == ended
    await check_idle(house.redis, LIMIT, {reply["x_request_id"]})


async def test_a_worker_frozen_in_mid_stream_adds_no_chunk_when_it_wakes(house, agent, upstream):
    sleeper = await house.start_worker("sleeper")
    upstream.next(Behaviour(hold_at=3, text="one two three four five six"))
    chunks = agent.stream(model="paid", messages=HELLO)
    await anext(chunks)
    sleeper.send(signal.SIGSTOP)
    await house.start_worker("heir")
    with pytest.raises(GatewayError) as caught:
        async for _ in chunks:
            pass
    assert caught.value.code == "outcome_unknown"
    written = await house.redis.xlen(KEYS.replies("agent-test"))
    upstream.release()
    sleeper.send(signal.SIGCONT)
    await wait_until(lambda: "lease_lost" in sleeper.log.read_text() or "not_settled" in sleeper.log.read_text())
    assert await house.redis.xlen(KEYS.replies("agent-test")) == written
    await check_idle(house.redis, LIMIT)


async def test_a_stream_whose_worker_dies_after_chunks_ends_with_an_error_and_is_not_called_again(
    house, agent, upstream
):
    victim = await house.start_worker("victim")
    upstream.next(Behaviour(hold_at=3))
    chunks = []

    async def listen():
        async for chunk in agent.stream(model="paid", messages=HELLO):
            chunks.append(chunk)  # noqa: PERF401 - seen one by one

    listening = asyncio.create_task(listen())
    await wait_until(lambda: chunks)
    await victim.stop(signal.SIGKILL)
    await house.start_worker("heir")
    with pytest.raises(GatewayError) as caught:
        await listening
    assert caught.value.code == "outcome_unknown"
    assert upstream.calls == 1
    await check_idle(house.redis, LIMIT)


async def test_a_worker_that_is_told_to_stop_finishes_what_it_has(house, agent, upstream):
    worker = await house.start_worker()
    upstream.next(Behaviour(hold_at=0))
    asking = asyncio.create_task(agent.complete(model="paid", messages=HELLO))
    await upstream.arrived(1)
    worker.send(signal.SIGTERM)
    await wait_until(lambda: "draining" in worker.log.read_text())
    upstream.release()
    reply = await asking
    assert await worker.process.wait() == 0
    await check_idle(house.redis, LIMIT, {reply["x_request_id"]})


async def test_a_busy_deployment_refuses_after_a_bounded_wait_and_others_go_on(house, agent):
    await house.start_worker()
    first = asyncio.create_task(agent.complete(model="scarce", messages=HELLO))
    await wait_until(lambda: _running(house.redis))
    with pytest.raises(GatewayError) as caught:
        await agent.complete(model="scarce", messages=HELLO)
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("model_overloaded", 429, 1)
    assert await agent.complete(model="echo", messages=HELLO)
    assert not first.done()
    await first
    await check_idle(house.redis, LIMIT)


async def _running(redis):
    return await redis.hlen(KEYS.open)


async def test_a_cancelled_stream_stops_its_call_and_pays_what_was_generated(house, agent, upstream):
    await house.start_worker()
    upstream.next(Behaviour(hold_at=4, text="one two three four five six seven eight"))
    async for _ in agent.stream(model="paid", messages=HELLO):
        break  # leaving early cancels
    await upstream.requests[0].abandoned.wait()
    await wait_until(lambda: _terminal(house.redis, "cancelled"))
    [event] = [event for event in await events_of(house.redis) if event["event_type"] == "model.request.cancelled"]
    assert event["output_tokens"] > 0
    assert 0 < event["usd_nano"] < event["reserved_nano"]
    await check_idle(house.redis, LIMIT)


async def _terminal(redis, state):
    return [event for event in await events_of(redis) if event["event_type"] == f"model.request.{state}"]


async def test_a_request_cancelled_while_it_waits_in_the_queue_is_never_called(house, agent, upstream):
    exchange = await agent._submit("chat", {"model": "paid", "messages": HELLO}, None)
    await exchange.cancel()
    await house.start_worker()
    reply = await exchange.next(20)
    assert (reply.kind, reply.status) == ("error", 499)
    assert upstream.calls == 0
    await check_idle(house.redis, LIMIT, {exchange.request_id})


async def test_a_stream_whose_record_redis_lost_is_charged_all_the_same(house, agent, upstream):
    await house.start_worker()
    upstream.next(Behaviour(hold_at=3))
    chunks = agent.stream(model="paid", messages=HELLO, request_id="mine")
    await anext(chunks)
    await house.redis.delete(KEYS.record("agent-test", "mine"))
    upstream.release()
    [failed] = await wait_until(lambda: _terminal(house.redis, "failed"))
    [unknown] = [event for event in await events_of(house.redis) if event["event_type"] == "model.request.unknown"]
    assert (unknown["error_code"], unknown["usd_nano"]) == ("record_missing", unknown["reserved_nano"])
    assert failed["request_id"] == "mine"
    with pytest.raises(GatewayError):
        async for _ in chunks:
            pass


async def test_an_entry_that_kills_every_worker_is_given_up(house, agent, upstream):
    upstream.script["paid"] = Behaviour(hold_at=0)
    path = house.folder / "models.yaml"
    path.write_text(path.read_text() + "redelivery: {max_attempts: 10, max_deliveries: 2}\n")
    asking = asyncio.create_task(agent.complete(model="paid", messages=HELLO))
    for number in range(2):
        worker = await house.start_worker(f"w{number}")
        await upstream.arrived(number + 1)
        await worker.stop(signal.SIGKILL)
    await house.start_worker("last")
    with pytest.raises(GatewayError) as caught:
        await asking
    assert caught.value.code == "outcome_unknown"
    assert await house.redis.xlen(KEYS.dead) == 1
    await check_idle(house.redis, LIMIT)


def envelope(request_id="r1", *, ts=None, model="echo", body=b'{"messages":[{"role":"user","content":"x"}]}'):
    ts = Clock().now_ms() if ts is None else ts
    return Envelope("agent-test", "agent-test", request_id, "chat", model, ts, body)


def forged(fields):
    return {**fields, "principal": "admin"}


def without_body(fields):
    return {name: value for name, value in fields.items() if name != "body"}


UNFIT = [
    (lambda fields: {**fields, "sig": "0" * 64}, "bad signature"),
    (lambda fields: {**fields, "sig": ""}, "unsigned"),
    (forged, "bad signature"),
    (without_body, "malformed: missing body"),
    (lambda _: {"hello": b"\xff\x00"}, "malformed: missing"),
    (lambda fields: {**fields, "from": "agent-nobody"}, "unknown sender"),
    (lambda _: envelope("r:1").fields(AGENT_SECRET), "malformed: id"),
    (lambda _: envelope("old", ts=1_000_000).fields(AGENT_SECRET), "stale"),
    (lambda _: envelope("early", ts=Clock().now_ms() + 3_600_000).fields(AGENT_SECRET), "stale"),
]
ANSWERED = {"old", "early"}


async def test_an_entry_that_can_not_be_run_goes_to_the_dead_letters_and_the_worker_goes_on(house, agent):
    await house.start_worker()
    reasons = {}
    for change, reason in UNFIT:
        entry = await house.redis.xadd(KEYS.requests, change(envelope().fields(AGENT_SECRET)))
        reasons[entry] = reason
    await wait_until(dead_letters(house.redis, len(UNFIT)))
    letters = {letter[b"entry"]: letter[b"reason"].decode() for _, letter in await house.redis.xrange(KEYS.dead)}
    assert not [entry for entry, reason in reasons.items() if not letters[entry].startswith(reason)]
    replies = await house.redis.xrange(KEYS.replies("agent-test"))
    assert {fields[b"id"].decode() for _, fields in replies} == ANSWERED
    assert await agent.complete(model="echo", messages=HELLO)
    assert len([event for event in await events_of(house.redis) if event["event_type"] in TERMINAL]) == 1


def dead_letters(redis, count):
    async def are_there():
        return await redis.xlen(KEYS.dead) == count

    return are_there


async def test_an_id_that_is_sent_twice_is_paid_once_and_answered_twice(house, agent, upstream):
    await house.start_worker()
    first = await agent.complete(model="paid", messages=HELLO, request_id="mine")
    assert await agent.complete(model="paid", messages=HELLO, request_id="mine") == first
    for _ in range(2):
        await house.redis.xadd(KEYS.requests, envelope("mine", model="paid").fields(AGENT_SECRET))
    await wait_until(lambda: _nothing_pending(house.redis))
    assert upstream.calls == 1
    assert await house.redis.xlen(KEYS.replies("agent-test")) == 3


async def _nothing_pending(redis):
    [group] = await redis.xinfo_groups(KEYS.requests)
    return group["lag"] == 0 and group["pending"] == 0


BAD = {
    "invalid_json": (b"{", "echo"),
    "missing_required_parameter": (b"{}", "echo"),
    "model_not_found": (b'{"messages":[{"role":"user","content":"x"}]}', "nope"),
    "invalid_value": (b'{"messages":[{"role":"user","content":"x"}],"max_tokens":101}', "echo"),
}


async def test_a_bad_request_on_the_stream_is_answered_without_a_reservation(house):
    await house.start_worker()
    for code, (body, model) in BAD.items():
        await house.redis.xadd(KEYS.requests, envelope(code, body=body, model=model).fields(AGENT_SECRET))

    async def all_failed():
        failed = [event for event in await events_of(house.redis) if event["event_type"] == "model.request.failed"]
        return len(failed) == len(BAD) and failed

    assert {event["request_id"]: event["error_code"] for event in await wait_until(all_failed)} == {
        code: code for code in BAD
    }
    assert not [event for event in await events_of(house.redis) if event["event_type"] == "model.request.start"]
    await check_idle(house.redis, LIMIT, set(BAD))


async def test_work_goes_on_after_redis_lost_the_consumer_group(house, agent):
    await house.start_worker()
    assert await agent.complete(model="echo", messages=HELLO)
    await house.redis.xgroup_destroy(KEYS.requests, GROUP)
    assert await agent.complete(model="echo", messages=HELLO)


async def test_a_worker_that_leaves_is_off_the_list_at_once(house):
    worker = await house.start_worker()
    assert await worker.stop() == 0
    assert await live_workers(house.redis, KEYS) == []


async def test_five_hundred_requests_against_room_for_ten_pay_exactly_ten(redis, redis_url, tmp_path, upstream):
    """None of the ten settles during the burst, so that nothing is refilled: exactly ten are paid."""
    upstream.script["paid"] = Behaviour(hold_at=0)
    config = CONFIG.format(base_url=upstream.base_url)
    limit = _reservation(config) * 10
    async with gateway(redis, redis_url, tmp_path, config + f"budget: {{daily_limit_usd: {usd_text(limit)}}}") as house:
        await asyncio.gather(*(house.start_worker(name) for name in ("w1", "w2")))
        async with house.agent() as agent:
            asking = [asyncio.create_task(_ask(agent, number)) for number in range(500)]
            await wait_until(lambda: _refused(asking, 490), within=60)
            await check_budget(redis, limit)
            assert upstream.calls == 10
            upstream.release()
            results = await asyncio.gather(*asking)
        assert sorted(results) == ["budget_exceeded"] * 490 + ["paid"] * 10
        assert upstream.calls == 10
        await check_idle(redis, limit)


def _refused(asking, count):
    return sum(task.done() for task in asking) >= count


def _reservation(config):
    """What the dearer of the two requests reserves: the whole one, whose body is a byte longer."""
    _, [(_, [deployment])] = Deployments.load(parse_config(config), None, {}).find("paid")
    body = orjson.dumps({"stream": False, "model": "paid", "messages": HELLO})
    return deployment.reservation(parse_chat(body), len(body))


async def _ask(agent, number):
    try:
        if number % 2:
            await agent.complete(model="paid", messages=HELLO, stream=False)
        else:
            async for _ in agent.stream(model="paid", messages=HELLO):
                pass
    except GatewayError as error:
        return error.code
    return "paid"
