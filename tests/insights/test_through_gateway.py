"""Vectors from a model that the gateway serves: real workers, and the budget pays."""

import asyncio

import numpy as np
import orjson
import pytest

from gateway_insights.embedding import GatewayAccess, make_embedder
from gateway_insights.embedding.sql import OWN_PRINCIPAL
from model_gateway.errors import GatewayError
from model_gateway.events import CHARGING
from tests.api.stream_worker import KEYS, StreamWorker
from tests.invariants import check_idle, events_of
from tests.processes import HMAC_SECRET, gateway

LIMIT = 10_000_000
CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}
budget: {daily_limit_usd: 0.01}
"""


@pytest.fixture
async def house(redis, redis_url, tmp_path):
    async with gateway(redis, redis_url, tmp_path, CONFIG) as running:
        await running.start_worker()
        yield running


def through(redis_url, model="echo", *, secret=HMAC_SECRET, timeout_seconds=10.0):
    embedder = make_embedder(f"gateway:{model}", GatewayAccess(redis_url, secret, timeout_seconds=timeout_seconds))
    assert embedder is not None
    return embedder


async def test_vectors_come_in_order_with_unit_length_and_the_budget_pays_for_them(house, redis, redis_url):
    embedder = through(redis_url)
    texts = ["one", "two", "one", ""]
    vectors = await asyncio.to_thread(embedder.embed, texts)
    assert (embedder.name, embedder.dimensions, vectors.shape) == ("gateway:echo/64", 64, (4, 64))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    paid = [event for event in await events_of(redis) if event["event_type"] in CHARGING]
    assert [event["principal"] for event in paid] == [OWN_PRINCIPAL] * 2  # how long a vector is, then the texts
    assert all(event["usd_nano"] > 0 and event["operation"] == "embeddings" for event in paid)
    await check_idle(redis, LIMIT)


async def test_more_texts_than_one_request_may_have_go_in_several(house, redis, redis_url):
    vectors = await asyncio.to_thread(through(redis_url).embed, [str(number % 7) for number in range(70)])
    assert vectors.shape == (70, 64)
    assert np.array_equal(vectors[0], vectors[63])
    await check_idle(redis, LIMIT)


async def test_no_texts_cost_nothing_but_the_first_question(house, redis, redis_url):
    embedder = through(redis_url)
    for _ in range(2):
        assert (await asyncio.to_thread(embedder.embed, [])).shape == (0, 64)
    assert len([event for event in await events_of(redis) if event["event_type"] in CHARGING]) == 1


async def test_a_budget_that_is_gone_is_told_and_not_passed(house, redis, redis_url):
    embedder = through(redis_url)
    with pytest.raises(GatewayError) as caught:
        await asyncio.to_thread(embedder.embed, ["word " * 700] * 50)
    assert caught.value.code == "budget_exceeded"
    await check_idle(redis, LIMIT)


async def test_a_model_that_the_gateway_does_not_have_is_told(house, redis_url):
    with pytest.raises(GatewayError) as caught:
        await asyncio.to_thread(through(redis_url, "nobody").embed, ["one"])
    assert caught.value.code == "model_not_found"


async def test_without_workers_the_wait_ends_and_the_request_is_cancelled(redis, redis_url):
    with pytest.raises(GatewayError) as caught:
        await asyncio.to_thread(through(redis_url, timeout_seconds=0.2).embed, ["one"])
    assert caught.value.code == "request_timeout"
    assert await redis.xlen("model.control") == 1


async def test_while_redis_is_away_that_is_told():
    with pytest.raises(GatewayError) as caught:
        await asyncio.to_thread(through("redis://127.0.0.1:9").embed, ["one"])
    assert caught.value.code == "redis_unavailable"


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": [0.0, 0.0]}],
        [{"index": 0, "embedding": "AAAA"}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}],
        "nothing",
    ],
)
async def test_a_reply_without_the_vectors_is_no_answer(redis, redis_url, data):
    worker = StreamWorker(redis)
    await worker.serve("odd")
    asked = asyncio.create_task(asyncio.to_thread(through(redis_url, "odd").embed, ["one"]))
    taken = await worker.take()
    entry = {"id": taken.envelope.request_id, "kind": "reply", "status": "200", "end": "1"}
    await redis.xadd(KEYS.replies(taken.envelope.sender), {**entry, "data": orjson.dumps({"data": data})})
    with pytest.raises(GatewayError) as caught:
        await asked
    assert caught.value.code == "upstream_invalid_response"


def test_neither_secret_nor_address_stands_in_its_text():
    text = repr(GatewayAccess("redis://:secret-password@host", "secret-hmac"))
    assert "secret" not in text
