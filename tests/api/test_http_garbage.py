"""What a request was made of goes with it: the garbage collector, which holds everybody up, has nothing to find."""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager

import pytest

from model_gateway.errors import GatewayError
from tests.processes import wait_until

ASK = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
OURS = ("gateway_api.", "model_gateway.", "aiohttp.web", "tests.api.")


@contextmanager
def garbage():
    """What only the garbage collector can free; filled at the end."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def whole(api, worker):
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", json=ASK))
    await (await worker.take()).reply()
    assert (await asking).status == 200


async def streamed(api, worker):
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", json={**ASK, "stream": True}))
    taken = await worker.take()
    await taken.chunk("one")
    await taken.chunk("two", final=True)
    assert (await asking).status == 200


async def failed(api, worker):
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", json=ASK))
    await (await worker.take()).error(GatewayError("upstream_error", "it broke"))
    assert (await asking).status == 502


async def refused(api, worker):
    assert (await api.call("POST", "/v1/chat/completions", json={**ASK, "model": "nope"})).status == 404
    assert (await api.call("POST", "/v1/chat/completions", data=b"{")).status == 400
    assert (
        await api.call("POST", "/v1/chat/completions", json=ASK, headers={"Authorization": "Bearer x"})
    ).status == 401


async def left(api, worker):
    opening = asyncio.create_task(api.open({**ASK, "stream": True}))
    taken = await worker.take()
    await taken.chunk("first")
    (await opening).close()
    assert await wait_until(worker.cancelled) == [taken.envelope.request_id]
    await wait_until(lambda: api.door.traffic.connections <= 1)


@pytest.mark.parametrize("act", [whole, streamed, failed, refused, left])
async def test_a_request_leaves_nothing_to_the_garbage_collector(api, worker, act):
    await whole(api, worker)
    with garbage() as found:
        await act(api, worker)
    assert [name for name in found if name.startswith(OURS)] == []
