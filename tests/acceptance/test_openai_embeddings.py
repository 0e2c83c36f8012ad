"""The official OpenAI SDK's embeddings, unchanged but for its base_url."""

from __future__ import annotations

import math

import openai as sdk
import orjson
import pytest

from model_gateway.signing import verify_reply
from tests.invariants import check_idle
from tests.processes import HMAC_SECRET
from tests.upstream_replies import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 20_000_000_000


async def test_embeddings_work_in_the_sdks_own_default_and_cost_what_went_in(openai, house, journal):
    reply = await openai.embeddings.create(model="echo", input=["hello there", "hi"])
    assert [item.index for item in reply.data] == [0, 1]
    assert [len(item.embedding) for item in reply.data] == [64, 64]
    assert math.isclose(math.hypot(*reply.data[0].embedding), 1, rel_tol=1e-6)
    assert reply.usage.prompt_tokens == 4
    [event] = await journal.ended()
    assert (event["input_tokens"], event["output_tokens"], event["usd_nano"]) == (4, 0, 4_000)
    await check_idle(house.redis, LIMIT)


async def test_the_sdk_asks_for_base64_and_reads_the_same_numbers(openai, journal):
    plain = await openai.embeddings.create(model="paid", input="hello", encoding_format="float")
    packed = await openai.embeddings.create(model="paid", input="hello")
    assert packed.data[0].embedding == plain.data[0].embedding
    assert [call.json["encoding_format"] for call in journal.calls] == ["float", "base64"]
    assert {call.path for call in journal.calls} == {"/v1/embeddings"}


@pytest.mark.parametrize(
    ("given", "sent", "tokens"),
    [
        ("hello", ["hello"], 2),
        (["hello", "hi"], ["hello", "hi"], 3),
        ([1, 2, 3], [[1, 2, 3]], 3),
        ([[1, 2], [3]], [[1, 2], [3]], 3),
    ],
)
async def test_every_form_of_input_arrives_and_is_paid(openai, house, journal, given, sent, tokens):
    reply = await openai.embeddings.create(model="paid", input=given, dimensions=4, user="u")
    assert [len(item.embedding) for item in reply.data] == [4] * len(sent)
    call = journal.calls[0].json
    assert (call["input"], call["dimensions"], call["user"], call["model"]) == (sent, 4, "u", "paid")
    [event] = await journal.ended()
    assert (event["input_tokens"], event["estimated"]) == (tokens, False)
    await check_idle(house.redis, LIMIT)


async def test_without_usage_the_tokens_are_counted(openai, house, upstream, journal):
    upstream.next(Behaviour(usage=False))
    await openai.embeddings.create(model="paid", input=[1, 2, 3])
    [event] = await journal.ended()
    assert (event["input_tokens"], event["estimated"]) == (3, True)
    await check_idle(house.redis, LIMIT)


async def test_embeddings_are_signed(http):
    sent = orjson.dumps({"model": "echo", "input": "hello"})
    async with http.post("/v1/embeddings", data=sent) as answer:
        text = await answer.read()
        assert answer.status == 200
        assert verify_reply(text, HMAC_SECRET, request_id=answer.headers["x-request-id"], request_body=sent)


@pytest.mark.parametrize(
    ("request_fields", "code", "param"),
    [
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", 1]}, "invalid_type", "input[1]"),
        ({"input": [[1], ["a"]]}, "invalid_type", "input[1][0]"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
    ],
)
async def test_bad_requests_raise_the_sdks_own_error_and_reach_nobody(openai, journal, request_fields, code, param):
    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.embeddings.create(**{"model": "paid", "input": "x", **request_fields})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert journal.calls == []


async def test_what_the_provider_rejects_raises_the_sdks_own_error(openai, house, upstream):
    upstream.next(Behaviour(status=400, body=b'{"error":{"message":"no such thing"}}'))
    with pytest.raises(sdk.BadRequestError, match="no such thing"):
        await openai.embeddings.create(model="paid", input="x")
    await check_idle(house.redis, LIMIT)
