"""Clients that leave, over real sockets: by policy their requests are cancelled, or finished; in no case forgotten."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter

import pytest
import pytest_asyncio

from model_gateway.connection import connect
from model_gateway.events import CHARGING, TERMINAL
from tests.chaos.leaving_client import STREAMS, WHOLES, Client
from tests.chaos.scale import SEED, scaled
from tests.invariants import KEYS, check_idle, events_of
from tests.processes import gateway, wait_until
from tests.redis_server import RedisServer
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")

LIMIT = 20_000_000_000
HASTY = scaled(600, 40)
SAID = "one two three four five six seven eight"
CONFIG = """
models:
  plain: {{{paid}}}
  cancelled: {{{paid}, disconnect: {{whole: cancel}}}}
  finished: {{{paid}, disconnect: {{streamed: finish}}}}
  scarce: {{{paid}, max_concurrency: 1, queue_timeout: 600}}
worker: {{lease_seconds: 10}}
"""
PAID = 'provider: openai, api_base: "{}", input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100, timeout: 60'


class Journal:
    """What happens from a test's start on."""

    def __init__(self, house, upstream, after):
        self._house, self._upstream, self._after = house, upstream, after
        self._before = upstream.calls

    async def events(self):
        return await events_of(self._house.redis, after=self._after)

    async def first_ended(self, count=1):
        """The terminal events, once there are as many."""

        async def all_of_them():
            found = [event for event in await self.events() if event["event_type"] in TERMINAL]
            return found if len(found) >= count else None

        return await wait_until(all_of_them, what=f"{count} terminal events")

    async def ended(self, count=1):
        """The same, where nothing else runs."""
        found = await self.first_ended(count)
        await check_idle(self._house.redis, LIMIT)
        return found

    async def charges(self):
        return [event for event in await self.events() if event["event_type"] in CHARGING and event["usd_nano"]]

    @property
    def calls(self):
        return list(self._upstream.requests)[self._before :]

    async def called(self):
        """The upstream's first request of this test, once it is there."""
        await self._upstream.arrived(self._before + 1)
        return self.calls[0]


@module_fixture
async def upstream():
    async with Upstream() as running:
        yield running


@module_fixture
async def house(tmp_path_factory, upstream):
    """A worker and a front door for all tests here; none of them breaks more than its own connections."""
    folder = tmp_path_factory.mktemp("disconnect")
    server = RedisServer(folder / "redis")
    await server.start()
    redis = connect(server.url)
    try:
        config = CONFIG.format(paid=PAID.format(upstream.base_url))
        async with gateway(redis, server.url, folder, config) as running:
            running.worker = await running.start_worker()
            await running.start_api()
            yield running
    finally:
        await redis.aclose()
        server.close()


@pytest_asyncio.fixture(loop_scope="module")
async def journal(house, upstream):
    newest = await house.redis.xrevrange(KEYS.events, count=1)
    upstream.hold()
    yield Journal(house, upstream, newest[0][0].decode() if newest else "0-0")
    upstream.release()
    upstream.script.clear()


async def replies_to(redis, request_id):
    """The entries of a request's reply, wherever they are."""
    streams = [stream async for stream in redis.scan_iter(match="model.replies.*")]
    pages = [await redis.xrange(stream) for stream in streams]
    return [fields for page in pages for _, fields in page if fields[b"id"] == request_id.encode()]


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("dialect", STREAMS)
async def test_a_stream_that_is_left_half_way_is_aborted_and_what_was_generated_is_paid(
    house, upstream, journal, dialect, how
):
    upstream.next(Behaviour(hold_at=9, text=SAID))
    client = await Client.ask(house, dialect, "plain", stream=True)
    await client.read_event()
    call = await journal.called()
    await client.leave(how)
    await asyncio.wait_for(call.abandoned.wait(), 20)
    [event] = await journal.ended()
    assert event["event_type"] == "model.request.cancelled"
    assert event["output_tokens"] > 0
    assert 0 < event["usd_nano"] < event["reserved_nano"]
    assert await journal.charges() == [event]


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_a_stream_that_is_left_before_its_first_byte_is_aborted_and_its_input_is_paid(
    house, upstream, journal, how
):
    upstream.next(Behaviour(hold_at=0, text=SAID))
    client = await Client.ask(house, "chat", "plain", stream=True)
    call = await journal.called()
    await client.leave(how)
    await asyncio.wait_for(call.abandoned.wait(), 20)
    [event] = await journal.ended()
    assert (event["event_type"], event["output_tokens"]) == ("model.request.cancelled", 0)
    assert 0 < event["usd_nano"] < event["reserved_nano"]


@pytest.mark.parametrize("model", ["plain", "finished"])
async def test_requests_that_are_left_in_the_moment_of_submission_are_accepted_or_not_and_have_their_end(
    house, upstream, journal, model, record_property
):
    upstream.script[model] = Behaviour(hold_at=0, text=SAID)
    chance = random.Random(SEED)

    async def ask_and_leave(delay, how, stream):
        client = await Client.ask(house, "chat", model, stream=stream)
        await asyncio.sleep(delay)
        await client.leave(how)

    before = await house.redis.xlen(KEYS.requests)
    stream = model == "plain"  # "finished" is asked whole: by default these are finished too
    hasty = [(chance.uniform(0, 0.06), chance.choice(["FIN", "RST"]), stream or number % 2) for number in range(HASTY)]
    for start in range(0, HASTY, 20):
        await asyncio.gather(*(ask_and_leave(*each) for each in hasty[start : start + 20]))
    accepted = await _at_rest(house, upstream, before, finish=not stream)
    kinds = Counter(event["event_type"].rpartition(".")[2] for event in await journal.ended(accepted))
    assert kinds == ({"cancelled": accepted} if stream else {"complete": accepted})
    assert len(journal.calls) <= accepted
    record_property("fault", f"clients that leave at once, by policy {'cancel' if stream else 'finish'}")
    record_property("clients", HASTY)
    record_property("accepted", accepted)
    record_property("provider called", len(journal.calls))


async def _at_rest(house, upstream, before, *, finish):
    """Wait until the front door has no connection and the workers have nothing; how many requests were accepted."""
    if finish:
        upstream.release()

    async def quiet():
        [group] = await house.redis.xinfo_groups(KEYS.requests)
        return group["lag"] == 0 and group["pending"] == 0

    await wait_until(lambda: _connections(house, 1), what="the connections are gone")
    await wait_until(quiet, what="everything has its end")
    return await house.redis.xlen(KEYS.requests) - before


async def _connections(house, count):
    """Whether the front door has so many, the one that asks included."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
    text = await reader.read()
    writer.close()
    await writer.wait_closed()
    return b"gateway_http_connections %.1f\n" % count in text


async def test_a_request_that_is_left_in_the_queue_is_never_called_and_costs_nothing(house, upstream, journal):
    house.worker.send(signal.SIGSTOP)
    try:
        client = await Client.ask(house, "chat", "plain", stream=True)
        await wait_until(lambda: _queued(house))
        await client.leave("FIN")
        await wait_until(lambda: house.redis.xlen(KEYS.control), what="the cancellation")
    finally:
        house.worker.send(signal.SIGCONT)
    [event] = await journal.ended()
    assert (event["event_type"], event["usd_nano"]) == ("model.request.cancelled", 0)
    assert journal.calls == []


async def _queued(house):
    [group] = await house.redis.xinfo_groups(KEYS.requests)
    return group["lag"] or group["pending"]


async def test_a_request_that_is_left_while_it_waits_for_a_busy_deployment_is_never_called(house, upstream, journal):
    upstream.script["scarce"] = Behaviour(hold_at=0)
    first = await Client.ask(house, "chat", "scarce", stream=False)
    await journal.called()
    second = await Client.ask(house, "chat", "scarce", stream=True)
    await wait_until(lambda: _pending(house, 2))
    await second.leave("RST")
    [event] = await journal.first_ended()
    assert (event["event_type"], event["usd_nano"]) == ("model.request.cancelled", 0)
    upstream.release()
    assert (await first.reader.readline()).startswith(b"HTTP/1.1 200")
    await first.leave("FIN")
    await journal.ended(2)
    assert len(journal.calls) == 1


async def _pending(house, count):
    [group] = await house.redis.xinfo_groups(KEYS.requests)
    return group["pending"] == count


@pytest.mark.parametrize("dialect", WHOLES)
async def test_a_whole_call_that_is_left_is_finished_by_default_and_its_reply_stays(house, upstream, journal, dialect):
    upstream.next(Behaviour(hold_at=1))
    client = await Client.ask(house, dialect, "plain", stream=False)
    call = await journal.called()
    await client.leave("RST")
    await wait_until(lambda: _connections(house, 1), what="the front door knows")
    upstream.release()
    [event] = await journal.ended()
    assert event["event_type"] == "model.request.complete"
    assert not call.abandoned.is_set()
    [reply] = await replies_to(house.redis, event["request_id"])
    assert (reply[b"kind"], reply[b"status"], int(reply[b"usd_nano"])) == (b"reply", b"200", event["usd_nano"])


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("dialect", WHOLES)
async def test_a_whole_call_that_is_left_is_aborted_where_its_model_says_so_and_charged_as_unknown(
    house, upstream, journal, dialect, how
):
    upstream.next(Behaviour(hold_at=1))
    client = await Client.ask(house, dialect, "cancelled", stream=False)
    call = await journal.called()
    await client.leave(how)
    await asyncio.wait_for(call.abandoned.wait(), 20)
    [event] = await journal.ended()
    assert (event["event_type"], event["usd_nano"]) == ("model.request.cancelled", 0)
    [charge] = await journal.charges()
    assert (charge["event_type"], charge["error_code"]) == ("model.request.unknown", "cancelled")
    assert charge["usd_nano"] == charge["reserved_nano"]


@pytest.mark.parametrize("dialect", STREAMS)
async def test_a_stream_that_is_left_is_finished_where_its_model_says_so_and_its_reply_stays(
    house, upstream, journal, dialect
):
    upstream.next(Behaviour(hold_at=9, text=SAID))
    client = await Client.ask(house, dialect, "finished", stream=True)
    await client.read_event()
    call = await journal.called()
    await client.leave("FIN")
    await wait_until(lambda: _connections(house, 1), what="the front door knows")
    upstream.release()
    [event] = await journal.ended()
    assert event["event_type"] == "model.request.complete"
    assert not call.abandoned.is_set()
    assert await journal.charges() == [event]
    replies = await replies_to(house.redis, event["request_id"])
    assert len(replies) > 2
    assert [reply[b"end"] for reply in replies] == [b"0"] * (len(replies) - 1) + [b"1"]
