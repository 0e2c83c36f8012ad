"""Connections to Redis: one that was closed says so in the same way on every event loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from model_gateway.connection import AWAY, connect


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_command_on_a_connection_that_closes_says_that_redis_is_away(redis_url, new_event_loop):
    async def ask() -> None:
        client = connect(redis_url)
        try:
            connection = await client.connection_pool.get_connection()
            connection._writer.transport.abort()
            with pytest.raises(AWAY):
                await connection.send_command("PING")
                await connection.read_response()
            await client.connection_pool.release(connection)
            assert await client.ping(), "the next command has a new connection"
        finally:
            await client.aclose()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(ask())
