"""Slow, silent and too many clients; and many, who are all served."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson

from tests.api.stream_worker import ADMIN_TOKEN
from tests.processes import wait_until

SLOW = """
models: {echo: {provider: echo, free: true}}
limits: {read_seconds: 0.2}
"""
SHORT = """
models: {echo: {provider: echo, free: true}}
limits: {keepalive_seconds: 0.2}
"""
FEW = """
models: {echo: {provider: echo, free: true}}
limits: {connections: 2}
"""
HEAD = b"POST /proxy/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % ADMIN_TOKEN.encode()


async def connect(api):
    return await asyncio.open_connection("127.0.0.1", api.ports.http)


async def test_a_client_that_does_not_finish_its_header_is_cut_off(start, worker):
    async with start(SLOW) as api:
        reader, writer = await connect(api)
        writer.write(HEAD)
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_says_nothing_is_cut_off(start, worker):
    async with start(SLOW) as api:
        reader, writer = await connect(api)
        assert await reader.read() == b""
        writer.close()


async def test_a_later_request_s_header_has_the_same_time(start, worker):
    async with start(SLOW) as api:
        reader, writer = await connect(api)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.write(HEAD)
        assert HEAD not in await reader.read()
        writer.close()


async def test_a_connection_that_was_answered_and_asks_no_more_is_closed(start, worker):
    async with start(SHORT) as api:
        reader, writer = await connect(api)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_client_that_does_not_finish_its_body_gets_408(start, worker):
    async with start(SLOW) as api:
        reader, writer = await connect(api)
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert await worker.requests() == 0


async def test_one_connection_too_many_gets_503_and_when_to_try_again(start, worker):
    async with start(FEW) as api:
        held = [await connect(api) for _ in range(2)]
        await wait_until(lambda: api.door.traffic.connections == 2)
        answer = await api.call("GET", "/health/live")
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert "connections" in answer.error["message"]
        for _, writer in held:
            writer.close()
        await wait_until(lambda: api.door.traffic.connections == 0)
        assert (await api.call("GET", "/health/live")).status == 200


async def test_a_refused_connection_that_asks_nothing_is_cut_off(start, worker):
    async with start(FEW) as api:
        held = [await connect(api) for _ in range(3)]
        assert await held[2][0].read() == b""
        for _, writer in held:
            writer.close()


async def test_a_thousand_connections_at_once_are_all_served(api, worker):
    async def answer_all():
        for _ in range(1_000):
            await (await worker.take()).reply()

    body = orjson.dumps({"messages": [{"role": "user", "content": "hello"}]})
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def ask() -> int:
            async with session.post(api.url("/proxy/echo"), data=body) as response:
                await response.read()
                return response.status

        statuses, _ = await asyncio.gather(asyncio.gather(*(ask() for _ in range(1_000))), answer_all())
    assert statuses == [200] * 1_000
