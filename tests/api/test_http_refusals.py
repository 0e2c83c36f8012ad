"""Bad input gets a 4xx in OpenAI's shape, at once, and never reaches the stream."""

from __future__ import annotations

import asyncio

import aiohttp
import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.api.stream_worker import ADMIN_TOKEN, KEYS

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def hello(**fields) -> bytes:
    return orjson.dumps({"model": "echo", **HELLO, **fields})


BODIES = [
    (b"", "invalid_json", None),
    (b"{", "invalid_json", None),
    (b"\xff\xfe", "invalid_json", None),
    (b'{"model":"echo","model":"echo"}', "invalid_json", None),
    (b'{"model":"echo","temperature":NaN}', "invalid_json", None),
    (b"[" * 1000, "invalid_json", None),
    (b"[]", "invalid_type", None),
    (b'"text"', "invalid_type", None),
    (b'{"model":"echo"}', "missing_required_parameter", "messages"),
    (orjson.dumps(HELLO), "missing_required_parameter", "model"),
    (hello(messages=[]), "invalid_value", "messages"),
    (hello(messages="hello"), "invalid_type", "messages"),
    (hello(messages=[{"role": "wizard", "content": "hi"}]), "invalid_value", "messages[0].role"),
    (hello(messages=[{"content": "hi"}]), "missing_required_parameter", "messages[0].role"),
    (hello(model=7), "invalid_type", "model"),
    (hello(stream="yes"), "invalid_type", "stream"),
    (hello(stream=1), "invalid_type", "stream"),
    (hello(max_tokens=True), "invalid_type", "max_tokens"),
    (hello(max_tokens=-1), "invalid_value", "max_tokens"),
    (hello(max_tokens=0), "invalid_value", "max_tokens"),
    (hello(max_tokens=101), "invalid_value", "max_tokens"),
    (hello(max_completion_tokens=101), "invalid_value", "max_completion_tokens"),
    (hello(n=17), "invalid_value", "n"),
    (hello(temperature=3), "invalid_value", "temperature"),
    (hello(service_tier="priority"), "unsupported_parameter", "service_tier"),
]


@pytest.mark.parametrize(("body", "code", "param"), BODIES)
async def test_a_bad_body_is_refused_with_its_field_and_a_code(api, worker, body, code, param):
    answer = await api.call("POST", "/v1/chat/completions", data=body)
    assert answer.status == 400
    assert answer.error["code"] == code
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")
    assert await worker.requests() == 0


@pytest.mark.parametrize("model", ["nobody", "nobody/at-all", "é"])
async def test_an_unknown_model_is_not_found(api, worker, model):
    by_path = await api.call("POST", f"/proxy/{model}", json=HELLO)
    by_body = await api.call("POST", "/v1/chat/completions", json={**HELLO, "model": model})
    for answer in (by_path, by_body):
        assert answer.status == 404
        assert answer.error["code"] == "model_not_found"
        assert answer.error["param"] == "model"
    assert await worker.requests() == 0


async def test_a_model_that_no_worker_serves_is_not_found_and_says_why(api, worker):
    answer = await api.call("POST", "/proxy/keyless", json=HELLO)
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "key is not set" in answer.error["message"]
    assert await worker.requests() == 0


async def test_the_output_bound_is_the_models_own(api, worker):
    answer = await api.call("POST", "/proxy/org/large", json={**HELLO, "max_tokens": 51})
    assert answer.status == 400
    assert answer.error["param"] == "max_tokens"


async def test_a_body_over_the_limit_is_too_large_whether_or_not_its_length_is_told(api, worker):
    body = hello(padding="x" * 20_000)
    told = await api.call("POST", "/proxy/echo", data=body)
    untold = await api.call("POST", "/proxy/echo", data=in_pieces(body))
    for answer in (told, untold):
        assert answer.status == 413
        assert answer.error["code"] == "request_too_large"
    assert await worker.requests() == 0


async def in_pieces(body: bytes):
    for start in range(0, len(body), 1_000):
        yield body[start : start + 1_000]


async def test_a_body_within_the_limit_may_come_in_pieces(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", data=in_pieces(hello(padding="x" * 19_000))))
    await (await worker.take()).reply()
    assert (await asking).status == 200


async def test_a_compressed_body_is_refused(api, worker):
    answer = await api.call("POST", "/proxy/echo", data=hello(), headers={"Content-Encoding": "gzip"})
    assert answer.status == 400
    assert answer.error["param"] == "content-encoding"
    assert await worker.requests() == 0


WRONG = [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {ADMIN_TOKEN}", f"Bearer {ADMIN_TOKEN}x", ADMIN_TOKEN]


@pytest.mark.parametrize("header", WRONG)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/proxy/echo"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/echo"),
        ("GET", "/budget/stats"),
        ("POST", "/budget/reset"),
    ],
)
async def test_no_token_or_a_wrong_one_is_unauthorized(api, worker, method, path, header):
    headers = {} if header is None else {"Authorization": header}
    async with api.session.request(method, api.url(path), headers=headers, data=b"{") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["error"]["code"] == "invalid_api_key"
    assert await worker.requests() == 0


@pytest.mark.parametrize("token", [b"\xc3\xa9", b"\xff\xfe\x80", b"\xe2\x98\x83" * 20])
async def test_a_token_of_any_bytes_is_only_wrong(api, token):
    head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nConnection: close\r\n\r\n" % token
    assert (await raw(api, head)).startswith(b"HTTP/1.1 401 ")


async def test_the_word_bearer_may_be_written_in_any_case(api):
    assert (await api.call("GET", "/v1/models", headers={"Authorization": f"bearer {ADMIN_TOKEN}"})).status == 200


async def test_the_token_is_checked_before_a_body_is_asked_for(api):
    head = b"POST /proxy/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    assert (await raw(api, head)).startswith(b"HTTP/1.1 401 ")


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", data=hello(), expect100=True))
    await (await worker.take()).reply()
    assert (await asking).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
    ],
)
async def test_unknown_routes_and_methods_answer_in_the_same_shape(api, method, path, status, code):
    answer = await api.call(method, path)
    assert answer.status == status
    assert answer.error["code"] == code
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /models HTTP/9.9\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_an_error_in_the_same_shape(api, junk):
    head, _, body = (await raw(api, junk)).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert orjson.loads(body)["error"]["code"] == "invalid_value"


async def test_a_header_that_is_too_long_is_not_quoted_back(api, capfd):
    secret = b"canary" * 2_000
    answer = await raw(api, b"GET /models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % secret)
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.0 431 "))
    assert b"canary" not in answer
    assert "canary" not in "".join(capfd.readouterr())


async def test_too_many_headers_are_refused(api):
    headers = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    answer = await raw(api, b"GET /models HTTP/1.1\r\nHost: x\r\n%b\r\n" % headers)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def raw(api, head: bytes) -> bytes:
    """What a socket answers, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.ports.http)
    writer.write(head)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    answer += await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return answer


SDK_ERRORS = [
    ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
    ({"model": "echo", "max_tokens": -1}, openai.BadRequestError, "invalid_value"),
    ({"model": "echo", "n": 99}, openai.BadRequestError, "invalid_value"),
]


@pytest.mark.parametrize(("fields", "exception", "code"), SDK_ERRORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_raises_its_own_exceptions(sdk, fields, exception, code, stream):
    with pytest.raises(exception) as caught:
        await sdk.chat.completions.create(**HELLO, **fields, stream=stream)
    assert caught.value.code == code
    assert caught.value.request_id.startswith("req_")


async def test_the_sdk_with_a_wrong_key_is_told_so(api):
    async with AsyncOpenAI(base_url=api.url("/v1"), api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_one_connection_serves_on_after_a_refusal(api):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        for _ in range(3):
            async with session.post(api.url("/proxy/echo"), data=b"{", headers=headers) as response:
                assert response.status == 400
        assert api.door.traffic.connections == 1


async def test_the_gateways_own_failure_is_an_error_without_details(api, redis, capfd):
    await redis.set(KEYS.counters, "canary")
    answer = await api.call("GET", "/metrics")
    assert answer.status == 500
    assert answer.error["code"] == "internal_error"
    assert b"WRONGTYPE" not in answer.body
    log = "".join(capfd.readouterr())
    assert answer.headers["x-request-id"] in log
    assert "WRONGTYPE" not in log
