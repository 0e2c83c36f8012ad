"""What the gateway's own connections to Redis do with an answer that is lost."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from model_gateway.connection import connect
from model_gateway.streams import Keys
from tests.redis_proxy import Fault, Moment, RedisProxy, cut

STREAM = Keys().requests


async def test_a_write_whose_answer_is_lost_is_not_sent_again_behind_our_back(redis, redis_url):
    async with RedisProxy(redis_url) as proxy:
        proxy.arm(Fault("XADD", Moment.EXECUTED, cut))
        client = connect(proxy.url)
        with pytest.raises(RedisConnectionError):
            await client.xadd(STREAM, {"a": "b"})
        await client.aclose()
    assert await redis.xlen(STREAM) == 1
