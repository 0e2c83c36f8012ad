"""Retries, failover and fallbacks through real workers, against upstreams that fail as they are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from model_gateway import GatewayError
from model_gateway.events import TERMINAL
from model_gateway.streams import Keys
from tests.invariants import check_idle, events_of
from tests.processes import gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import ERROR, Behaviour

KEYS = Keys()
LIMIT = 20_000_000_000
HELLO = [{"role": "user", "content": "hello there"}]
BROKEN = Behaviour(status=500, body=ERROR)
BUSY = Behaviour(status=429, body=ERROR)
CONFIG = """
models:
  single: &row
    {{provider: openai, api_base: "{one}", input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100, timeout: 5}}
  pair:
    {{<<: *row, deployments: [{{name: one}}, {{name: two, api_base: "{two}", output_cost: 0.000004}}]}}
  mixed:
    {{<<: *row, deployments: [{{name: claude, provider: anthropic, api_base: "{two}"}}, {{name: gpt}}]}}
  ladder: {{<<: *row, fallbacks: [spare, echo]}}
  spare: {{<<: *row, api_base: "{two}", input_cost: 0.000003}}
  hasty: {{<<: *row, first_token_timeout: 0.3, fallbacks: [spare]}}
  quick: {{<<: *row, timeout: 0.3, fallbacks: [spare]}}
  nowhere: {{<<: *row, api_base: "http://127.0.0.1:9/v1", fallbacks: [spare]}}
  narrow: {{<<: *row, rpm: 2, queue_timeout: 0.2}}
  echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}}
defaults: {{chores: ladder}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
routing:
  {{retries: 2, backoff_seconds: 0.05, max_backoff_seconds: 2,
    breaker: {{min_calls: 8, timeouts: 3, open_seconds: 60}}}}
"""


class Town:
    """Two upstreams, a worker, an agent."""

    def __init__(self, house, agent, one, two):
        self.house, self.agent, self.one, self.two = house, agent, one, two
        self.redis = house.redis

    async def ask(self, model, **fields):
        return await self.agent.complete(model=model, messages=HELLO, **fields)

    async def fails(self, model, **fields):
        with pytest.raises(GatewayError) as caught:
            await self.ask(model, **fields)
        return caught.value

    async def events(self, kind):
        return [event for event in await events_of(self.redis) if event["event_type"] == f"model.{kind}"]

    async def end(self):
        [end] = [event for event in await events_of(self.redis) if event["event_type"] in TERMINAL]
        return end


@pytest.fixture
async def town(redis, redis_url, tmp_path):
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(Upstream()) for _ in range(2)]
        config = CONFIG.format(one=one.base_url, two=two.base_url)
        house = await stack.enter_async_context(gateway(redis, redis_url, tmp_path, config))
        await house.start_worker("first")
        agent = await stack.enter_async_context(house.agent())
        yield Town(house, agent, one, two)
        await check_idle(redis, LIMIT)


async def stream(town, model):
    return [chunk async for chunk in town.agent.stream(model=model, messages=HELLO)]


def said(chunks):
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


# -- again


@pytest.mark.parametrize(
    "trouble", [BROKEN, BUSY, Behaviour(status=503, body=ERROR), Behaviour(status=529, body=ERROR)]
)
async def test_a_passing_failure_is_tried_again_and_paid_once(town, trouble):
    town.one.next(trouble, trouble)
    reply = await town.ask("single")
    assert reply["choices"][0]["message"]["content"] == "hello there"
    end = await town.end()
    assert (end["attempt"], town.one.calls) == (3, 3)
    assert [event["attempt"] for event in await town.events("request.retry")] == [1, 2]
    assert (await town.events("request.unknown")) == []


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_what_the_provider_rejects_is_asked_once_and_nowhere_else(town, status):
    town.one.next(Behaviour(status=status, body=ERROR))
    assert (await town.fails("pair")).code == "upstream_rejected"
    assert (town.one.calls, town.two.calls) == (1, 0)


async def test_a_failure_that_does_not_pass_is_told_after_the_retries(town):
    town.one.next(*[BROKEN] * 9)
    assert (await town.fails("single")).code == "upstream_error"
    assert town.one.calls == 3
    assert (await town.end())["usd_nano"] == 0


async def test_the_wait_that_a_provider_asks_for_is_waited_and_kept_by_all(town):
    town.one.next(Behaviour(status=429, headers={"Retry-After": "1"}, body=ERROR))
    before = asyncio.get_running_loop().time()
    await asyncio.gather(town.ask("single"), town.ask("single"))
    assert town.one.calls == 3
    gaps = sorted(request.at for request in town.one.requests)
    assert gaps[-1] - gaps[0] >= 0.99
    assert asyncio.get_running_loop().time() - before < 20


# -- elsewhere


async def test_another_deployment_is_asked_and_its_own_price_is_paid(town):
    town.one.next(BROKEN)
    await town.ask("pair")
    end = await town.end()
    assert (end["model"], end["deployment"], end["price"]) == ("pair", "pair#two", "input=1000,output=4000")
    assert (town.one.calls, town.two.calls) == (1, 1)
    assert end["usd_nano"] == end["input_tokens"] * 1000 + end["output_tokens"] * 4000


async def test_a_fallback_model_answers_and_the_reply_says_so(town):
    town.one.next(Behaviour(status=401, body=ERROR))
    await town.ask("chores")
    end = await town.end()
    assert (end["model"], end["fallback_for"], end["task"]) == ("spare", "ladder", "chores")
    [entry] = [fields for _, fields in await town.redis.xrange(KEYS.replies("agent-test"))]
    assert entry[b"served_by"] == b"openai:spare"


async def test_fallbacks_come_in_order_down_to_the_last(town):
    town.one.next(Behaviour(status=401, body=ERROR))
    town.two.next(Behaviour(status=403, body=ERROR))
    await town.ask("ladder")
    assert (await town.end())["provider"] == "echo"


async def test_a_call_that_may_have_been_paid_is_charged_before_the_fallback_is_asked(town):
    town.one.next(Behaviour(hold_at=0))
    await town.ask("quick")
    [unknown] = await town.events("request.unknown")
    end = await town.end()
    assert (unknown["error_code"], unknown["usd_nano"]) == ("upstream_timeout", unknown["reserved_nano"])
    assert (unknown["attempt"], end["attempt"], end["model"]) == (1, 2, "spare")


async def test_a_server_that_can_not_be_reached_costs_nothing(town):
    await town.ask("nowhere")
    assert (await town.events("request.unknown")) == []
    assert (await town.end())["model"] == "spare"


async def test_a_provider_that_can_not_do_what_is_asked_is_passed_over(town):
    """Nothing is sent to it, and nothing is owed; the one that can is asked."""
    await town.ask("mixed", logit_bias={"1": 1})
    end = await town.end()
    assert (end["deployment"], end["attempt"]) == ("mixed#gpt", 2)
    assert (town.one.calls, town.two.calls) == (1, 0)


# -- streams


async def test_a_stream_falls_back_until_its_first_chunk(town):
    town.one.next(Behaviour(status=401, body=ERROR))
    assert said(await stream(town, "ladder")) == "hello there"
    town.one.next(Behaviour(cut_at=1))
    assert said(await stream(town, "ladder")) == "hello there"


async def test_a_stream_that_does_not_begin_in_time_falls_back(town):
    town.one.next(Behaviour(hold_at=1))
    assert said(await stream(town, "hasty")) == "hello there"
    assert (await town.end())["model"] == "spare"


async def test_a_stream_that_has_begun_ends_in_an_error_and_falls_back_no_more(town):
    town.one.next(Behaviour(cut_at=3))
    with pytest.raises(GatewayError) as caught:
        await stream(town, "ladder")
    assert caught.value.code == "upstream_truncated"
    assert town.two.calls == 0


# -- rates and breakers; then cancellation


async def test_a_rate_is_kept_by_two_workers_together(town):
    await town.house.start_worker("second")
    answers = await asyncio.gather(*(town.ask("narrow") for _ in range(6)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, GatewayError)]
    assert {error.code for error in refused} == {"rate_limit_exceeded"}
    assert all(error.retry_after for error in refused)
    assert (len(refused), town.one.calls) == (4, 2)


async def test_a_rate_that_headers_say_is_used_up_is_kept_without_asking(town):
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
    town.one.next(Behaviour(headers=headers))
    await town.ask("single")
    error = await town.fails("single")
    assert (error.code, error.status, town.one.calls) == ("rate_limit_exceeded", 429, 1)
    assert 28 <= error.retry_after <= 30


async def test_a_broken_deployment_is_left_alone_by_a_worker_that_never_called_it(town):
    town.one.next(*[BROKEN] * 30)
    while (await town.fails("single")).code != "upstream_unavailable":
        pass
    calls = town.one.calls
    assert calls == 8
    [first] = [part for part in town.house.parts if part.name == "first"]
    await first.stop()
    await town.house.start_worker("second")
    error = await town.fails("single")
    assert (error.code, error.status) == ("upstream_unavailable", 503)
    assert error.retry_after
    assert town.one.calls == calls


async def test_an_outage_is_not_answered_with_more_than_a_tenth_more_load(redis, redis_url, tmp_path):
    async with Upstream() as upstream:
        config = CONFIG.format(one=upstream.base_url, two=upstream.base_url)
        config = config.replace("breaker: {", "breaker: {enabled: false, ")
        upstream.next(*[BROKEN] * 500)
        async with gateway(redis, redis_url, tmp_path, config) as house:
            await house.start_worker()
            async with house.agent() as agent:
                asking = [agent.complete(model="single", messages=HELLO) for _ in range(100)]
                answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, GatewayError) for answer in answers)
    assert 100 < upstream.calls <= 100 * 1.1 + 3


async def test_a_request_that_is_cancelled_between_two_attempts_is_not_tried_again(town):
    town.one.next(Behaviour(status=429, headers={"Retry-After": "2"}, body=ERROR))
    streaming = town.agent.stream(model="single", messages=HELLO)
    asking = asyncio.create_task(anext(streaming))
    await town.one.arrived(1)
    request_id = waiting_id(town)
    await wait_until(lambda: request_id in town.agent._client._reader._waiting)
    await town.agent._client._cancel("agent-test", request_id)
    with pytest.raises(GatewayError) as caught:
        await asking
    await streaming.aclose()
    assert caught.value.code == "cancelled"
    assert town.one.calls == 1


def waiting_id(town):
    """The id of the only request that waits."""
    [request_id] = town.agent._client._reader._waiting
    return request_id
