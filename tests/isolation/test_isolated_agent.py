"""What an isolated agent may do, it can do: through its ingress, with its own Redis user and no other right."""

from __future__ import annotations

import pytest

from model_gateway import GatewayError
from tests.invariants import events_of
from tests.isolation.house import KEYS, REPLIES, SENDER, House, delta, user
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO = [user("hello there")]


async def test_it_is_answered_whole_and_streamed(shared: House):
    async with shared.client("hostile") as client:
        reply = await client.complete(model="paid", messages=HELLO)
        said = "".join([delta(chunk) async for chunk in client.stream(model="paid", messages=HELLO)])
    assert reply["choices"][0]["message"]["content"] == said == "hello there"
    await shared.at_rest()


async def test_a_mistake_of_its_own_is_told_with_its_code(shared: House):
    async with shared.client("hostile") as client:
        with pytest.raises(GatewayError) as caught:
            await client.complete(model="nope", messages=HELLO)
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)
    await shared.at_rest()


async def test_a_stream_that_it_leaves_is_cancelled_and_what_was_said_is_paid(shared: House):
    shared.upstream.hold()
    async with shared.client("hostile") as client:
        stream = client.stream(model="midway", messages=HELLO)
        await anext(stream)
        await stream.aclose()
        await wait_until(shared.upstream.requests[-1].abandoned.is_set, what="an upstream call that is let go")
    await shared.at_rest()
    end = (await events_of(shared.redis))[-1]
    assert (end["event_type"], end["principal"]) == ("model.request.cancelled", SENDER), end
    assert end["usd_nano"] > 0


async def test_a_repeated_id_has_its_reply_again_and_is_not_run_again(shared: House):
    calls = shared.upstream.calls
    async with shared.client("hostile") as client:
        first = await client.complete(model="paid", messages=HELLO, request_id="mine-1")
        second = await client.complete(model="paid", messages=HELLO, request_id="mine-1")
    async with shared.client("hostile") as restarted:
        third = await restarted.complete(model="paid", messages=HELLO, request_id="mine-1")
    assert first == second == third
    assert shared.upstream.calls == calls + 1
    await shared.at_rest()


async def test_a_stream_that_runs_can_be_taken_up_from_its_start_by_a_client_that_was_restarted(shared: House):
    shared.upstream.hold()
    calls = shared.upstream.calls
    async with shared.client("hostile") as client, shared.client("hostile") as restarted:
        first = client.stream(model="midway", messages=HELLO, request_id="mine-2")
        again = restarted.stream(model="midway", messages=HELLO, request_id="mine-2")
        begun = [await anext(first), await anext(again)]
        shared.upstream.release()
        rest = [[chunk async for chunk in stream] for stream in (first, again)]
    assert [begun[0], *rest[0]] == [begun[1], *rest[1]]
    assert shared.upstream.calls == calls + 1
    await shared.at_rest()


async def test_nothing_is_left_of_an_empty_ingress_but_what_runs_out(shared: House):
    async with shared.client("hostile") as client:
        await client.complete(model="paid", messages=HELLO)
    await shared.at_rest()
    assert not await shared.redis.exists(KEYS.ingress("hostile"))
    for key in (KEYS.ingress_state("hostile"), KEYS.unfinished("hostile"), REPLIES):
        assert await shared.redis.ttl(key) > 0
