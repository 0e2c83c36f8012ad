"""Whole replies: what goes in comes out on the stream, and what comes back is passed on untouched."""

from __future__ import annotations

import asyncio

import openai
import pytest

from model_gateway.errors import GatewayError
from model_gateway.signing import verify_reply
from tests.api.stream_worker import HMAC_SECRET

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


async def test_the_official_sdk_gets_a_reply(sdk, worker):
    asking = asyncio.create_task(sdk.chat.completions.create(model="echo", **HELLO))
    taken = await worker.take()
    await taken.reply("hello back")
    completion = await asking
    assert completion.choices[0].message.content == "hello back"
    assert completion.usage.total_tokens == 3
    assert completion._request_id == taken.envelope.request_id


async def test_the_reply_is_passed_on_byte_for_byte_and_verifies(api, worker):
    body = b'{"model": "echo",  "messages": [{"role": "user", "content": "\\u00e9"}], "made_up": [1, 2.50]}'
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", data=body))
    taken = await worker.take()
    data = await taken.reply("é")
    answer = await asking
    assert taken.envelope.body == body
    assert answer.body == data
    assert verify_reply(answer.body, HMAC_SECRET, request_id=answer.headers["x-request-id"], request_body=body)


async def test_a_reply_says_what_it_cost(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    await (await worker.take()).reply(usd_nano=2_500)
    answer = await asking
    assert answer.status == 200
    assert answer.headers["x-cost-usd"] == "0.0000025"
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/proxy/org/large", "/proxy/org%2Flarge"])
async def test_the_path_names_the_model_and_may_hold_slashes(api, worker, path):
    asking = asyncio.create_task(api.call("POST", path, json={**HELLO, "model": "echo"}))
    taken = await worker.take()
    await taken.reply()
    assert (await asking).status == 200
    assert taken.envelope.model == "org/large"


async def test_a_task_stands_for_its_model(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/vitals", json=HELLO))
    taken = await worker.take()
    await taken.reply()
    assert (await asking).status == 200
    assert taken.envelope.model == "vitals"


async def test_the_bearer_of_the_admin_token_is_the_admin(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    taken = await worker.take()
    await taken.reply()
    await asking
    assert taken.envelope.principal == "admin"


async def test_replies_find_the_request_they_answer_in_any_order(api, worker):
    asking = [
        asyncio.create_task(api.call("POST", "/proxy/echo", json={"messages": [{"role": "user", "content": str(n)}]}))
        for n in range(20)
    ]
    taken = [await worker.take() for _ in asking]
    for one in reversed(taken):
        await one.reply(one.body["messages"][0]["content"])
    for number, answer in enumerate(await asyncio.gather(*asking)):
        assert answer.json["choices"][0]["message"]["content"] == str(number)


ERRORS = [
    (GatewayError("budget_exceeded", "spent", retry_after=60), openai.RateLimitError, 429),
    (GatewayError("rate_limit_exceeded", "slower", retry_after=7), openai.RateLimitError, 429),
    (GatewayError("upstream_error", "it broke"), openai.InternalServerError, 502),
    (GatewayError("upstream_rejected", "bad image"), openai.BadRequestError, 400),
    (GatewayError("upstream_timeout", "slow"), openai.InternalServerError, 504),
]


@pytest.mark.parametrize(("error", "exception", "status"), ERRORS)
async def test_the_sdk_raises_its_own_exception_for_an_error(sdk, worker, error, exception, status):
    asking = asyncio.create_task(sdk.chat.completions.create(model="echo", **HELLO))
    await (await worker.take()).error(error)
    with pytest.raises(exception) as caught:
        await asking
    assert caught.value.status_code == status
    assert caught.value.code == error.code


async def test_a_spent_budget_tells_sdks_not_to_try_again_before_the_window_ends(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    await (await worker.take()).error(GatewayError("budget_exceeded", "spent", retry_after=3600))
    answer = await asking
    assert answer.status == 429
    assert answer.error["type"] == "insufficient_quota"
    assert answer.headers["Retry-After"] == "3600"
    assert answer.headers["x-should-retry"] == "false"


async def test_a_busy_model_may_be_tried_again(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    await (await worker.take()).error(GatewayError("model_overloaded", "busy"))
    answer = await asking
    assert answer.headers["Retry-After"] == "1"
    assert "x-should-retry" not in answer.headers


async def test_a_client_that_leaves_does_not_cancel_a_whole_request(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    taken = await worker.take()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await taken.reply()
    follow_up = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
    await (await worker.take()).reply()
    assert (await follow_up).status == 200
    assert await worker.cancelled() == []


async def test_a_request_that_nobody_answers_ends_in_a_time_out_and_is_cancelled(start, worker):
    config = """
models: {echo: {provider: echo, free: true, timeout: 0.1, queue_timeout: 0.1}}
worker: {lease_seconds: 0.1}
"""
    async with start(config) as api:
        answer = await api.call("POST", "/proxy/echo", json=HELLO)
        taken = await worker.take()
        assert answer.status == 504
        assert answer.error["code"] == "request_timeout"
    assert await worker.cancelled() == [taken.envelope.request_id]
