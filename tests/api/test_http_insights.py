"""``/insights`` through the front door: what it asks, what it passes on, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web

from gateway_api.insights import MAX_ANSWER_BYTES
from model_gateway.errors import GatewayError
from model_gateway.insights import InsightsState, beat, insights_secret
from tests.api.stream_worker import HMAC_SECRET, KEYS
from tests.processes import free_port

ROUTES = [
    ("GET", "/insights/stats"),
    ("GET", "/insights/trends"),
    ("GET", "/insights/similar"),
    ("DELETE", "/insights/data"),
]


class Insights:
    """An insights process over TCP that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self._hello

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)

    def says(self, body: bytes, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, status=status, content_type="application/json")

        self.answer = answer

    async def _hello(self, request: web.Request) -> web.Response:
        return web.json_response({"hello": request.path})


@asynccontextmanager
async def listening(insights: Insights):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", insights.handle)
    runner = web.AppRunner(app, max_line_size=32_768, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def insights(redis):
    insights = Insights()
    async with listening(insights) as url:
        await redis.set(KEYS.insights, orjson.dumps({"url": url, "at_ms": 1, "problem": ""}))
        yield insights


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_each_route_is_passed_on_with_its_parameters_and_the_front_doors_own_secret(api, insights, method, path):
    answer = await api.call(method, f"{path}?query=a%2Bb%26c&x=%25")
    assert (answer.status, answer.json) == (200, {"hello": path})
    assert answer.headers["Content-Type"] == "application/json"
    [request] = insights.asked
    assert (request.method, request.path, request.query["query"], request.query["x"]) == (method, path, "a+b&c", "%")
    assert request.headers["Authorization"] == f"Bearer {insights_secret(HMAC_SECRET)}"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_the_admins_token_nobody_is_asked(api, insights, method, path):
    for token in ("", "Bearer wrong", f"Bearer {insights_secret(HMAC_SECRET)}"):
        answer = await api.call(method, path, headers={"Authorization": token})
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert insights.asked == []


async def test_other_methods_and_paths_are_refused(api, insights):
    assert (await api.call("POST", "/insights/stats")).status == 405
    assert (await api.call("GET", "/insights/data")).status == 405
    assert (await api.call("GET", "/insights/else")).status == 404
    assert insights.asked == []


async def test_an_error_is_passed_on_with_its_status_and_parameter_and_the_requests_id(api, insights):
    error = GatewayError("invalid_value", "hours must be a whole number from 1 to 8760", param="hours")
    insights.says(error.json(), 400)
    answer = await api.call("GET", "/insights/stats?hours=0")
    assert (answer.status, answer.json) == (400, error.body())
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("length", [8_192, 24_576])
async def test_the_longest_query_gets_through(api, insights, length):
    assert (await api.call("GET", f"/insights/similar?query={'a' * length}&model={'m' * 500}")).status == 200
    assert len(insights.asked[0].query["query"]) == length


async def test_a_query_of_a_hundred_kilobytes_is_refused(api, insights):
    answer = await api.call("GET", f"/insights/similar?query={'a' * 100_000}")
    assert (answer.status, answer.error["code"]) == (431, "request_too_large")
    assert insights.asked == []


async def test_no_insights_process_is_503_with_the_reason(api):
    for method, path in ROUTES:
        answer = await api.call(method, path)
        assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")
        assert "no insights process is alive" in answer.error["message"]
        assert answer.headers["Retry-After"] == "1"


async def test_a_process_with_a_problem_is_not_asked_and_its_problem_is_the_reason(api, insights, redis):
    await beat(redis, KEYS, InsightsState("http://127.0.0.1:1", problem="DATABASE_URL is not set"))
    answer = await api.call("GET", "/insights/stats")
    assert answer.status == 503
    assert answer.error["message"] == "insights are not available: DATABASE_URL is not set"


@pytest.mark.parametrize("heartbeat", [b"", b"{", b"[]", b'{"url": 1}', b'{"uri": "x"}', b'{"url": "nonsense"}'])
async def test_a_heartbeat_that_makes_no_sense_is_none(api, redis, heartbeat):
    await redis.set(KEYS.insights, heartbeat)
    answer = await api.call("GET", "/insights/stats")
    assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")


async def test_a_process_that_is_gone_is_503_at_once(api, redis):
    await beat(redis, KEYS, InsightsState(f"http://127.0.0.1:{free_port()}"))
    answer = await api.call("GET", "/insights/stats")
    assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")


async def test_a_process_that_hangs_up_is_503(api, insights):
    async def hang_up(request: web.Request) -> web.StreamResponse:
        request.transport.abort()
        await asyncio.Event().wait()

    insights.answer = hang_up
    answer = await api.call("GET", "/insights/stats")
    assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")


async def test_a_process_that_does_not_answer_is_given_up(api, insights, monkeypatch):
    monkeypatch.setattr("gateway_api.insights.TIMEOUTS", {"GET": 0.2, "DELETE": 0.2})

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()

    insights.answer = hang
    answer = await api.call("GET", "/insights/stats")
    assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, GatewayError("invalid_api_key", "no").json()),
        (500, b"<html>"),
        (404, b"{}"),
        (502, b'{"error": "text"}'),
        (400, b'{"error": {"code": "invented", "message": "m", "param": null}}'),
        (400, b'{"error": {"code": ["invalid_value"], "message": {}, "param": 1}}'),
        (302, b""),
        (204, b""),
    ],
)
async def test_an_answer_that_is_not_the_insights_processs_is_503(api, insights, status, body):
    insights.says(body, status)
    answer = await api.call("GET", "/insights/stats")
    assert (answer.status, answer.error["code"]) == (503, "insights_unavailable")


async def test_an_answer_too_large_to_pass_on_is_refused(api, insights):
    insights.says(b" " * (MAX_ANSWER_BYTES + 1))
    answer = await api.call("GET", "/insights/trends?days=3650")
    assert (answer.status, answer.error["code"]) == (400, "invalid_value")


async def test_a_large_answer_is_passed_on_whole(api, insights):
    body = orjson.dumps(["x" * 1_000] * 3_000)
    insights.says(body)
    assert (await api.call("GET", "/insights/trends")).body == body


async def test_requests_are_answered_while_the_insights_process_hangs(api, insights):
    gate = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response({})

    insights.answer = hang
    hanging = [asyncio.create_task(api.call("GET", "/insights/stats")) for _ in range(40)]
    assert (await api.call("GET", "/budget/stats")).status == 200
    gate.set()
    assert {answer.status for answer in await asyncio.gather(*hanging)} == {200}


async def test_bytes_beyond_ascii_in_the_address_are_never_an_error_of_the_gateway(api, insights):
    reader, writer = await asyncio.open_connection("127.0.0.1", api.ports.http)
    token = api.door.environment.admin_token.encode()
    writer.write(
        b"GET /insights/similar?query=\xff\xc3\xa4 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % token
    )
    status = (await reader.readline()).split()[1]
    writer.close()
    assert status in (b"200", b"400")
