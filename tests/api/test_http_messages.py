"""The front door in Anthropic's words: its keys, its errors, its streams."""

from __future__ import annotations

import asyncio

import anthropic
import orjson
import pytest
from anthropic import AsyncAnthropic

from gateway_worker.call import Binding, error_entry
from model_gateway.errors import GatewayError
from model_gateway.signing import sha256_hex
from tests.api.stream_worker import ADMIN_TOKEN, KEYRING, KEYS
from tests.api.test_http_refusals import raw

ASK = {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
PATHS = ["/v1/messages", "/v1/messages/count_tokens"]
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
GUARDED = [("GET", "/v1/models"), ("GET", "/v1/models/echo"), ("GET", "/budget/stats"), ("POST", "/budget/reset")]
WRONG = [
    {},
    {"x-api-key": ""},
    {"x-api-key": "wrong"},
    {"x-api-key": f"{ADMIN_TOKEN}x"},
    {"x-api-key": f"Bearer {ADMIN_TOKEN}"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer wrong", "x-api-key": "wrong"},
]


async def ask(api, path, body, method="POST", **headers):
    """One request with the admin's token as a key: the answer's status, and its error in Anthropic's shape."""
    headers = {"x-api-key": ADMIN_TOKEN} | headers
    async with api.session.request(method, api.url(path), data=body, headers=headers) as answer:
        told = await answer.json()
    assert told["type"] == "error"
    return answer.status, told["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", WRONG)
async def test_no_key_or_a_wrong_one_is_unauthorized_in_anthropics_words(api, worker, path, headers):
    async with api.session.post(api.url(path), headers=headers, data=b"{") as answer:
        told = await answer.json()
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")
    assert told["error"]["details"] == {"error_code": "invalid_api_key"}
    assert await worker.requests() == 0


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("key", [ADMIN_TOKEN, "wrong", ""])
async def test_a_key_opens_whatever_a_bearer_does(api, method, path, key):
    async with api.session.request(method, api.url(path), headers={"x-api-key": key}) as answer:
        assert answer.status == (200 if key == ADMIN_TOKEN else 401)


@pytest.mark.parametrize("key", [b"\xc3\xa9", b"\xff\xfe\x80", b"\xe2\x98\x83" * 20])
async def test_a_key_of_any_bytes_is_only_wrong(api, key):
    head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nx-api-key: %b\r\nConnection: close\r\n\r\n" % key
    assert (await raw(api, head)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status", "kind", "details"),
    [
        (b"{", 400, "invalid_request_error", {"error_code": "invalid_json"}),
        (b'{"model":"echo"}', 400, "invalid_request_error", {"error_code": "missing_required_parameter"}),
        (orjson.dumps({**ASK, "model": "nobody"}), 404, "not_found_error", {"error_code": "model_not_found"}),
        (b" " * 20_001, 413, "request_too_large", {"error_code": "request_too_large"}),
    ],
)
async def test_a_refusal_is_in_anthropics_words(api, worker, path, body, status, kind, details):
    found, error = await ask(api, path, body)
    assert (found, error["type"]) == (status, kind)
    assert error["details"]["error_code"] == details["error_code"]
    assert await worker.requests() == 0


@pytest.mark.parametrize("path", PATHS)
async def test_a_wrong_method_is_refused_in_anthropics_words(api, path):
    status, error = await ask(api, path, None, method="GET")
    assert (status, error["details"]["error_code"]) == (405, "method_not_allowed")


async def test_other_paths_keep_openais_words(api):
    async with api.session.post(api.url("/v1/chat/completions"), headers={"x-api-key": "wrong"}) as answer:
        assert (await answer.json())["error"]["code"] == "invalid_api_key"
    async with api.session.get(api.url("/v1/messages/batches"), headers={"x-api-key": ADMIN_TOKEN}) as answer:
        assert (await answer.json())["error"]["code"] == "not_found"


@pytest.mark.parametrize(("path", "operation"), [(PATHS[0], "messages"), (PATHS[1], "count_tokens")])
async def test_the_body_reaches_the_worker_as_it_was_sent(api, worker, path, operation):
    body = orjson.dumps(ASK)
    asking = asyncio.create_task(api.call("POST", path, data=body))
    taken = await worker.take()
    assert (taken.envelope.operation, taken.envelope.body, taken.envelope.model) == (operation, body, "echo")
    await taken.reply()
    assert (await asking).status == 200


async def test_the_sdk_knows_the_requests_id_whatever_comes_of_it(api, worker):
    async with AsyncAnthropic(base_url=api.url(""), api_key=ADMIN_TOKEN, max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(**ASK | {"model": "nobody"})
        assert caught.value.request_id.startswith("req_")
        whole = asyncio.create_task(client.messages.create(**ASK))
        taken = await worker.take()
        await taken.reply()
        assert (await whole)._request_id == taken.envelope.request_id
        streamed = asyncio.create_task(client.messages.create(**ASK, stream=True))
        taken = await worker.take()
        await taken.chunk("at last", final=True)
        assert (await streamed).response.headers["request-id"] == taken.envelope.request_id


async def test_a_silent_stream_is_kept_alive_by_pings_and_ends_without_a_mark(start, worker):
    async with start(silence_seconds=0.05) as api, await api.open({**ASK, "stream": True}, PATHS[0]) as response:
        taken = await worker.take()
        pings = [await response.content.readuntil(b"\n\n") for _ in range(2)]
        last = await taken.chunk("at last", final=True)
        rest = await response.content.read()
    assert pings == [PING] * 2
    assert rest.endswith(b"data: %b\n\n" % last)


async def fail(taken, error):
    """Answer with an error, as a worker does."""
    envelope = taken.envelope
    binding = Binding(KEYRING, envelope.request_id, sha256_hex(envelope.body), envelope.operation)
    entry = error_entry(error, binding)
    flat = iter(entry.fields(envelope.request_id))
    fields = dict(zip(flat, flat, strict=True))
    await taken.redis.xadd(KEYS.replies(envelope.sender), {**fields, "data": entry.data})


async def test_an_error_after_a_ping_is_raised_by_the_sdk(start, worker):
    async with (
        start(silence_seconds=0.05) as api,
        AsyncAnthropic(base_url=api.url(""), api_key=ADMIN_TOKEN, max_retries=0) as client,
    ):
        asking = asyncio.create_task(client.messages.create(**ASK, stream=True))
        taken = await worker.take()
        stream = await asking  # the header is sent with the first ping
        await fail(taken, GatewayError("upstream_error", "it broke"))
        with pytest.raises(anthropic.APIStatusError) as caught:
            async for _ in stream:
                pass
    assert (caught.value.type, caught.value.error_code) == ("api_error", "upstream_error")
