"""The front door in Anthropic's words: its keys, its errors, its streams."""

from __future__ import annotations

import anthropic
import orjson
import pytest
from anthropic import AsyncAnthropic

from model_gateway.dialects import DIALECTS
from model_gateway.errors import GatewayError
from tests.api.stream_worker import ADMIN_TOKEN
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


async def test_the_body_and_its_operation_reach_the_worker_as_they_were_sent(api, worker):
    async with AsyncAnthropic(base_url=api.url(""), api_key=ADMIN_TOKEN, max_retries=0) as client:
        with pytest.raises(anthropic.RateLimitError):
            await _refused(client.messages.create(**ASK), worker, "messages")
        with pytest.raises(anthropic.RateLimitError):
            counted = {name: ASK[name] for name in ("model", "messages")}
            await _refused(client.messages.count_tokens(**counted), worker, "count_tokens")


async def _refused(asking, worker, operation):
    """What a request comes to that its worker refuses."""
    import asyncio

    running = asyncio.ensure_future(asking)
    taken = await worker.take()
    assert taken.envelope.operation == operation
    assert taken.body["messages"] == ASK["messages"]
    await taken.error(GatewayError("rate_limit_exceeded", "later"))
    await running
