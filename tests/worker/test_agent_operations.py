"""Every operation straight from the stream: what a front door offers over HTTP, an agent has without."""

from __future__ import annotations

import pytest

from model_gateway import GatewayError
from tests.invariants import check_idle, events_of
from tests.processes import gateway

LIMIT = 20_000_000_000
HELLO = [{"role": "user", "content": "hello there"}]
CONFIG = """
models: {echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}}
agents: {test: {secret_env: AGENT_TEST_SECRET}}
"""


@pytest.fixture
async def house(redis, redis_url, tmp_path):
    async with gateway(redis, redis_url, tmp_path, CONFIG) as running:
        await running.start_worker()
        yield running
        await check_idle(redis, LIMIT)


@pytest.fixture
async def agent(house):
    async with house.agent() as client:
        yield client


async def test_an_agent_has_embeddings_made(agent, house):
    reply = await agent.request("embeddings", {"model": "echo", "input": ["a", "b"], "dimensions": 8})
    assert [len(item["embedding"]) for item in reply["data"]] == [8, 8]
    [end] = [event for event in await events_of(house.redis) if event["event_type"] == "model.request.complete"]
    assert (end["operation"], end["usd_nano"]) == ("embeddings", end["input_tokens"] * 1000)


async def test_an_agent_speaks_anthropics_dialect_whole_and_streamed(agent):
    body = {"model": "echo", "max_tokens": 50, "messages": HELLO}
    assert (await agent.request("messages", body))["content"] == [{"type": "text", "text": "hello there"}]
    kinds = [event["type"] async for event in agent.events("messages", body)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


async def test_an_agent_speaks_responses_whole_and_streamed(agent):
    body = {"model": "echo", "input": "hello there"}
    assert (await agent.request("responses", body))["status"] == "completed"
    kinds = [event["type"] async for event in agent.events("responses", body)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_an_agents_tokens_are_counted_for_nothing(agent, house):
    reply = await agent.request("count_tokens", {"model": "echo", "messages": HELLO})
    assert reply["input_tokens"] > 0
    [end] = [event for event in await events_of(house.redis) if event["event_type"] == "model.request.complete"]
    assert end["usd_nano"] == 0


@pytest.mark.parametrize("operation", ["chat", "embeddings", "responses", "messages", "count_tokens"])
async def test_an_error_has_its_code_in_every_dialect(agent, operation):
    body = {"model": "nope", "messages": HELLO, "input": "x", "max_tokens": 5}
    with pytest.raises(GatewayError) as caught:
        await agent.request(operation, body)
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)
    assert "nope" in caught.value.message
