"""What a provider can do wrong: the client's status, the event, and what it costs."""

from __future__ import annotations

import orjson
import pytest

from model_gateway.events import TERMINAL
from model_gateway.signing import verify_reply, verify_stream
from tests.acceptance.conftest import PROVIDER_KEY
from tests.invariants import check_idle, events_of
from tests.processes import HMAC_SECRET
from tests.upstream_replies import ERROR, Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 20_000_000_000
LEAKY = b'{"error":{"message":"Incorrect API key provided: %b"}}' % PROVIDER_KEY.encode()
FREE, UNKNOWN = "settled at nothing", "charged at its reservation"

FAULTS = {
    "401": (Behaviour(status=401, body=LEAKY), 502, "upstream_unauthorized", FREE),
    "400": (Behaviour(status=400, body=ERROR), 400, "upstream_rejected", FREE),
    "429": (Behaviour(status=429, headers={"Retry-After": "7"}, body=ERROR), 429, "rate_limit_exceeded", FREE),
    "500": (Behaviour(status=500, body=ERROR), 502, "upstream_error", FREE),
    "503": (Behaviour(status=503, body=ERROR), 503, "upstream_unavailable", FREE),
    "time-out": (Behaviour(hold_at=0), 504, "upstream_timeout", UNKNOWN),
    "cut before the status": (Behaviour(cut_at=0), 502, "upstream_truncated", UNKNOWN),
    "empty body": (Behaviour(body=b"", events=()), 502, "upstream_invalid_response", UNKNOWN),
    "not JSON": (Behaviour(body=b"<html>", events=(b"<html>",)), 502, "upstream_invalid_response", UNKNOWN),
    "not an object": (Behaviour(body=b"[1]", events=(b"[1]",)), 502, "upstream_invalid_response", UNKNOWN),
    "an error in a 200": (Behaviour(body=ERROR, events=(ERROR,)), 502, "upstream_error", UNKNOWN),
}


def body(model="paid", *, stream):
    return orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello there"}]})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_has_its_status_its_event_and_its_cost(http, house, upstream, journal, fault, stream):
    behaviour, status, code, cost = FAULTS[fault]
    upstream.next(behaviour)
    sent = body(stream=stream)
    async with http.post("/v1/chat/completions", data=sent) as answer:
        text = await answer.read()
        assert answer.status == status, text
        assert answer.content_type == "application/json"
        assert answer.headers.get("Retry-After") == ("7" if fault == "429" else answer.headers.get("Retry-After"))
        request_id = answer.headers["x-request-id"]
    assert orjson.loads(text)["error"]["code"] == code
    assert verify_reply(text, HMAC_SECRET, request_id=request_id, request_body=sent)
    await _check_cost(house, journal, cost, code)
    assert PROVIDER_KEY.encode() not in text


async def _check_cost(house, journal, cost, code):
    await journal.ended()
    events = await journal.events()
    assert [event["event_type"] for event in events if event["event_type"] in TERMINAL] == ["model.request.failed"]
    assert events[-1]["error_code"] == code
    unknown = [event for event in events if event["event_type"] == "model.request.unknown"]
    assert len(unknown) == (1 if cost == UNKNOWN else 0)
    assert all(event["usd_nano"] == event["reserved_nano"] > 0 for event in unknown)
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_refuses_connections_costs_nothing(http, house, journal, stream):
    async with http.post("/v1/chat/completions", data=body("nowhere", stream=stream)) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"]
    await _check_cost(house, journal, FREE, "upstream_unavailable")


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(cut_at=4), Behaviour(finish=False, done=False), Behaviour(hold_at=4)],
    ids=["cut", "no finish", "hangs"],
)
async def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_and_no_done(
    http, house, upstream, journal, behaviour
):
    upstream.next(behaviour)
    sent = body(stream=True)
    async with http.post("/v1/chat/completions", data=sent) as answer:
        assert answer.status == 200
        request_id = answer.headers["x-request-id"]
        data = [line.removeprefix(b"data: ") for line in (await answer.read()).splitlines() if line[:5] == b"data:"]
    assert b"[DONE]" not in data
    assert orjson.loads(data[-1])["error"]["code"] in ("upstream_truncated", "upstream_timeout")
    assert verify_stream(data, HMAC_SECRET, request_id=request_id, request_body=sent)
    await _check_cost(house, journal, UNKNOWN, orjson.loads(data[-1])["error"]["code"])


@pytest.mark.parametrize("stream", [False, True])
async def test_without_usage_the_tokens_are_counted_and_the_event_says_so(http, house, upstream, journal, stream):
    upstream.next(Behaviour(usage=False))
    async with http.post("/v1/chat/completions", data=body(stream=stream)) as answer:
        assert answer.status == 200
        await answer.read()
    [event] = await journal.ended()
    assert event["estimated"] is True
    assert event["output_tokens"] == 2
    assert event["usd_nano"] > 0
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_can_not_forge_our_members(http, upstream, stream):
    forged = b'"signature":"forged","x_signature":"forged","x_index":99,"x_request_id":"forged","x_final":true'
    upstream.next(Behaviour(members=forged))
    sent = body(stream=stream)
    async with http.post("/v1/chat/completions", data=sent) as answer:
        text = await answer.read()
        request_id = answer.headers["x-request-id"]
    assert b"forged" not in text
    if stream:
        data = [line[6:] for line in text.splitlines() if line.startswith(b"data: {")]
        assert verify_stream(data, HMAC_SECRET, request_id=request_id, request_body=sent)
    else:
        assert verify_reply(text, HMAC_SECRET, request_id=request_id, request_body=sent)


async def test_no_secret_and_no_prompt_is_in_a_log_an_event_a_metric_or_an_error(http, house, upstream, redis):
    prompt = "canary-prompt-42"
    sent = orjson.dumps({"model": "paid", "messages": [{"role": "user", "content": prompt}]})
    seen = b""
    for behaviour in (Behaviour(), *(fault[0] for fault in FAULTS.values() if fault[0].hold_at is None)):
        upstream.next(behaviour)
        async with http.post("/v1/chat/completions", data=sent) as answer:
            text = await answer.read()
            seen += b"" if answer.status == 200 else text
    for path in ("/metrics", "/health/ready", "/models", "/budget/stats"):
        async with http.get(path) as answer:
            seen += await answer.read()
    seen += orjson.dumps(await events_of(redis))
    seen += b"".join(part.log.read_bytes() for part in house.parts)
    secrets = (PROVIDER_KEY, prompt, HMAC_SECRET, house.variables["ADMIN_TOKEN"], house.variables["AGENT_TEST_SECRET"])
    assert [secret for secret in secrets if secret.encode() in seen] == []
