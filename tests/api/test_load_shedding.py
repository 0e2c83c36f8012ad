"""Overload: who is turned away, what they are told, and who still comes in."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway_api.early_refusal import Entrance, Refusals, read_head
from gateway_api.load_shedding import Gate
from gateway_api.state import Traffic
from model_gateway.clock import Clock
from model_gateway.errors import GatewayError
from model_gateway.streams import GROUP
from tests.api.stream_worker import ADMIN_TOKEN, KEYS
from tests.processes import wait_until

CONFIG = """
models: {echo: {provider: echo, free: true}}
overload: {max_waiting: 2}
worker: {drain_seconds: 0.2}
"""
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
BODY = orjson.dumps(CHAT)
PATHS = ["/v1/chat/completions", "/proxy/echo", "/v1/embeddings", "/v1/responses", "/v1/messages"]


def request(path: str = "/v1/chat/completions", *more: str, body: bytes = BODY) -> bytes:
    """A request's bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {ADMIN_TOKEN}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection: status, headers with lower-case names, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


@pytest.fixture
async def full(start, worker, monkeypatch):
    """A front door whose queue is full: two requests wait, no worker takes them, and nobody goes and sees."""
    monkeypatch.setattr("gateway_api.load_shedding._BELIEVED_SECONDS", 3600.0)
    async with start(CONFIG) as api:
        asking = [asyncio.create_task(api.call("POST", "/v1/chat/completions", json=CHAT)) for _ in range(2)]
        await wait_until(lambda: api.door.gate.shut)
        yield api
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


# -- what a client sees


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_over_the_bound_is_refused_in_its_dialect_and_never_reaches_redis(full, worker, path):
    answer = await full.call("POST", path, json=CHAT)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-request-id"] == answer.headers["request-id"] != ""
    assert answer.error["message"] == "too many requests wait for a worker; try again in a second"
    if path == "/v1/messages":
        assert answer.json["type"] == "error"
    else:
        assert answer.error["code"] == "overloaded"
    assert await worker.requests() == 2


@pytest.mark.parametrize("unusual", [{"Connection": "close"}, {"Expect": "100-continue"}, {"X-Folded": "no"}])
async def test_a_request_that_has_to_be_parsed_is_refused_with_the_same_answer(full, worker, unusual):
    async def pieces():
        yield BODY

    plain = await full.call("POST", "/v1/chat/completions", data=BODY)
    body = pieces() if "X-Folded" in unusual else BODY  # else in chunks, without a length
    parsed = await full.call("POST", "/v1/chat/completions", data=body, headers=unusual)
    assert (parsed.status, parsed.body, parsed.headers["Retry-After"]) == (503, plain.body, "1")
    assert await worker.requests() == 2


async def test_whoever_looks_after_the_gateway_is_still_answered(full):
    for path in ("/health/live", "/health/ready", "/metrics", "/models", "/v1/models", "/budget/stats"):
        assert (await full.call("GET", path)).status == 200, path


async def test_refusals_are_counted(full):
    before = full.door.gate.refused
    await full.call("POST", "/proxy/echo", json=CHAT)
    await full.call("POST", "/proxy/echo", json=CHAT, headers={"Connection": "close"})
    metrics = (await full.call("GET", "/metrics")).body.decode()
    assert f"\ngateway_http_overloaded_total {before + 2}.0\n" in metrics
    assert '\ngateway_http_requests_total{route="/proxy/{model}",status="503"} 2.0\n' in metrics


async def test_who_may_ask_is_not_looked_at_before_the_refusal(full):
    answer = await full.call("POST", "/proxy/echo", json=CHAT, headers={"Authorization": "Bearer wrong"})
    assert answer.status == 503


async def test_the_connection_of_a_refused_request_serves_the_next_one(full):
    reader, writer = await asyncio.open_connection("127.0.0.1", full.ports.http)
    for piece in (request(), request()[:-7], request()[-7:], request() + request()):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    answers = [await read_answer(reader) for _ in range(4)]
    assert [status for status, _, _ in answers] == [503] * 4
    assert len({headers["x-request-id"] for _, headers, _ in answers}) == 4
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await read_answer(reader))[0] == 200
    writer.close()


async def test_a_refused_request_with_a_long_body_is_answered_before_all_of_it_is_there(full):
    reader, writer = await asyncio.open_connection("127.0.0.1", full.ports.http)
    writer.write(request(body=b"x" * 1_000_000)[:1000])
    assert (await read_answer(reader))[0] == 503
    writer.close()


async def test_a_sdk_raises_its_own_error_with_the_code(full):
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=full.url("/v1"), api_key=ADMIN_TOKEN, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**CHAT)
    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")


async def test_when_workers_have_taken_what_waited_requests_come_in_again(start, worker, redis):
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)

    async def work() -> None:
        while True:
            await redis.xreadgroup(GROUP, "by-hand", {KEYS.requests: ">"})
            await (await worker.take()).reply()

    async with start(CONFIG) as api:

        async def ask() -> int:
            return (await api.call("POST", "/proxy/echo", json=CHAT)).status

        async def refused() -> bool:
            asking.append(asyncio.create_task(ask()))
            await asyncio.sleep(0)
            return api.door.gate.refused > 0

        asking = [asyncio.create_task(ask()) for _ in range(2)]
        await wait_until(refused)
        working = asyncio.create_task(work())

        async def came_in() -> bool:
            return await ask() == 200

        await wait_until(came_in)
        assert set(await asyncio.gather(*asking)) == {200, 503}
        working.cancel()


# -- the gate


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_may_fill_the_queue_and_then_only_a_part_of_it_until_a_second_without_refusals():
    clock = Hand()
    gate = Gate(80, clock)
    gate.told(79)
    assert not gate.shut
    gate.told(80)
    assert gate.shut
    gate.refuse()
    gate.told(10)
    assert gate.shut
    gate.told(9)
    assert not gate.shut
    clock.now = 1.1
    gate.told(79)
    assert not gate.shut


def test_what_was_told_is_doubted_after_a_moment_and_one_goes_and_sees():
    clock = Hand()
    gate = Gate(8, clock)
    gate.told(8)
    assert gate.shut
    clock.now = 0.03
    assert not gate.shut
    with gate.entering():
        assert gate.shut
        with pytest.raises(GatewayError, match="too many"), gate.entering():
            pass
        gate.told(0)
    assert not gate.shut


def test_requests_between_the_socket_and_the_queue_count():
    gate = Gate(3, Hand())
    gate.told(0)
    connection = object()
    gate.let_in(connection)
    with gate.entering(), gate.entering():
        assert gate.shut
        gate.arrived(connection)
        assert not gate.shut


def test_a_front_door_that_takes_a_second_to_queue_a_request_is_strict_before_its_bound_is_reached():
    clock = Hand()
    gate = Gate(80, clock)
    with gate.entering():
        clock.now = 1.1
    gate.told(10)
    assert gate.shut


def test_while_it_doubts_few_are_let_in_so_that_strangers_can_not_keep_the_door_busy():
    clock = Hand()
    gate = Gate(8, clock)
    gate.told(8)
    clock.now = 0.03
    for number in range(32):
        assert not gate.shut, number
        gate.let_in(object())
    assert gate.shut


# -- where requests begin and end


@pytest.mark.parametrize(
    "head",
    [
        b"POST /proxy/echo HTTP/1.1\r\nContent-Length: 5\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nX: a\r\n Content-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nX: a\nContent-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
        b"POST /proxy/echo HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        b"POST /proxy/echo HTTP/1.0\r\nContent-Length: 5\r\n\r\n",
        b"POST  /proxy/echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(head):
    assert read_head(head) is None


def test_a_plain_request_is_measured():
    head = b"POST /proxy/echo HTTP/1.1\r\nconnection: Keep-Alive\r\nCONTENT-LENGTH: 5\r\n\r\n"
    assert read_head(head + b"hel") == (b"POST", b"/proxy/echo", len(head) + 5)
    assert read_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == (b"GET", b"/", 27)


class Door:
    """An entrance to a gate that is shut or open, and what was parsed behind it."""

    def __init__(self, *, shut: bool) -> None:
        self.gate = Gate(1, Hand())
        self.gate.told(1 if shut else 0)
        self.entrance = Entrance(Refusals(self.gate, Traffic(), Clock()), self)
        self.parsed = b""
        self.refused = 0

    def come(self, *pieces: bytes, idle: bool = True) -> None:
        for piece in pieces:
            answers, rest = self.entrance.look(piece, idle=idle)
            self.refused += answers.count(b"HTTP/1.1 503 ")
            self.parsed += rest


def test_wherever_a_request_is_cut_it_is_refused_as_a_whole_or_parsed_as_a_whole():
    message, after = request(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for cut in range(1, len(message)):
        door = Door(shut=True)
        door.come(message[:cut], message[cut:], after)
        assert (door.refused, door.parsed) in ((1, after), (0, message + after)), cut


def test_nothing_is_refused_ahead_of_an_answer_that_is_still_to_come():
    door = Door(shut=True)
    door.come(request(), idle=False)
    assert (door.refused, door.parsed) == (0, request())


def test_a_body_that_looks_like_a_request_is_a_body():
    door = Door(shut=False)
    outer = request(body=request())
    head = len(outer) - len(request())
    door.come(outer[:head])
    door.gate.told(1)
    door.come(outer[head:])
    assert (door.refused, door.parsed) == (0, outer)


def test_behind_requests_that_came_in_one_piece_nothing_is_guessed():
    door = Door(shut=False)
    outer = request(body=request())
    head = len(outer) - len(request())
    door.come(request() + outer[:head])
    door.gate.told(1)
    door.come(outer[head:], request())
    assert (door.refused, door.parsed) == (0, request() + outer + request())


def test_a_connection_that_ends_leaves_nothing_behind_in_the_gate():
    door = Door(shut=False)
    door.come(request())
    assert door.gate.shut
    door.entrance.close()
    assert not door.gate.shut
