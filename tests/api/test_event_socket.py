"""Live events over a WebSocket: who may listen, what they hear, and when they are sent away."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError

from gateway_api.event_feed import Subscriber
from tests.api.stream_worker import ADMIN_TOKEN, KEYS

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


class Listening:
    """Opens WebSockets on the events' port."""

    def __init__(self, running, session) -> None:
        self._url = f"http://127.0.0.1:{running.ports.events}/events"
        self._session = session

    def open(self, *, protocols=(), **headers):
        return self._session.ws_connect(self._url, headers=headers, protocols=protocols)

    async def status(self, *, protocols=(), **headers) -> int:
        """101, or what refused it."""
        try:
            async with self.open(protocols=protocols, **headers):
                return 101
        except WSServerHandshakeError as error:
            return error.status


@pytest.fixture
async def here(api):
    """A gateway that is bound to loopback."""
    async with ClientSession() as session:
        yield Listening(api, session)


@pytest.fixture
async def abroad(worker, start):
    """A gateway that can be reached from other machines, too."""
    async with start(host="0.0.0.0") as running, ClientSession() as session:
        yield Listening(running, session)


async def happen(redis, **fields):
    event = {"event_type": "model.request.complete", "usd_nano": "2500", "estimated": "", **fields}
    return (await redis.xadd(KEYS.events, event)).decode()


async def test_events_arrive_typed_and_in_order_from_now_on(here, redis):
    await happen(redis, request_id="before")
    async with here.open() as socket:
        ids = [await happen(redis, request_id=f"req_{number}") for number in range(3)]
        heard = [await socket.receive_json(timeout=5) for _ in ids]
    assert [event["id"] for event in heard] == ids
    assert [event["request_id"] for event in heard] == ["req_0", "req_1", "req_2"]
    assert heard[0]["usd_nano"] == 2_500
    assert heard[0]["estimated"] is None


async def test_every_listener_hears_every_event(here, redis):
    async with here.open() as one, here.open() as other:
        entry = await happen(redis)
        for socket in (one, other):
            assert (await socket.receive_json(timeout=5))["id"] == entry


async def test_who_comes_back_hears_what_happens_then(here, redis):
    async with here.open():
        pass
    await happen(redis, request_id="nobody listened")
    async with here.open() as socket:
        entry = await happen(redis)
        assert (await socket.receive_json(timeout=5))["id"] == entry


async def test_an_event_that_can_not_be_read_does_not_silence_the_others(here, redis):
    async with here.open() as socket:
        await happen(redis, usd_nano="a lot")
        entry = await happen(redis)
        assert (await socket.receive_json(timeout=5))["id"] == entry


async def test_listening_goes_on_when_redis_is_back(start, own_redis, own_client):
    async with (
        start(redis_url=own_redis.url) as api,
        ClientSession() as session,
        Listening(api, session).open() as socket,
    ):
        own_redis.stop()
        await own_redis.start()
        entry = await happen(own_client)
        assert (await socket.receive_json(timeout=10))["id"] == entry


async def test_without_redis_a_listener_is_told_to_come_back(start, own_redis):
    async with start(redis_url=own_redis.url) as api, ClientSession() as session:
        own_redis.stop()
        assert await Listening(api, session).status() == 503


async def test_the_token_opens_it_in_the_header_or_as_a_subprotocol(abroad):
    assert await abroad.status(**BEARER) == 101
    assert await abroad.status(protocols=("bearer", ADMIN_TOKEN)) == 101
    async with abroad.open(protocols=("bearer", ADMIN_TOKEN)) as socket:
        assert socket.protocol == "bearer"


async def test_on_loopback_no_token_is_needed(here):
    assert await here.status() == 101


async def test_a_gateway_that_others_can_reach_needs_the_token_even_from_here(abroad):
    assert await abroad.status() == 401


@pytest.mark.parametrize(
    ("headers", "protocols"),
    [
        ({"Authorization": "Bearer wrong"}, ()),
        ({"Authorization": f"Basic {ADMIN_TOKEN}"}, ()),
        ({"Authorization": "Bearer é"}, ()),
        ({}, ("bearer",)),
        ({}, ("bearer", "wrong")),
        ({}, (ADMIN_TOKEN,)),
        ({}, (ADMIN_TOKEN, "bearer")),
    ],
)
async def test_a_wrong_token_is_unauthorized_even_where_none_is_needed(here, headers, protocols):
    assert await here.status(protocols=protocols, **headers) == 401


@pytest.mark.parametrize("forwarding", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_a_proxy_is_not_this_machine(here, forwarding):
    assert await here.status(**{forwarding: "203.0.113.7"}) == 401


async def test_a_name_made_to_point_here_is_not_this_machine(here):
    assert await here.status(Host="rebound.example:8088", Origin="http://rebound.example:8088") == 401


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://127.0.0.1.evil.example", "null", "", "http://[", "http://localhost.evil.example"],
)
async def test_a_foreign_page_is_forbidden_even_with_the_token(here, origin):
    assert await here.status(Origin=origin, **BEARER) == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8081", "https://[::1]:8443"])
async def test_a_page_of_this_machine_may_listen(here, origin):
    assert await here.status(Origin=origin) == 101


async def test_a_page_of_the_gateways_own_host_may_listen_with_the_token(abroad):
    own = {"Host": "gateway.example:8088", "Origin": "https://gateway.example"}
    assert await abroad.status(**own, **BEARER) == 101
    assert await abroad.status(**own) == 401


async def test_what_is_no_handshake_gets_an_error_in_the_usual_shape(api):
    url = f"http://127.0.0.1:{api.ports.events}"
    async with api.session.get(f"{url}/events") as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_value"
    async with api.session.get(f"{url}/nowhere") as response:
        assert response.status == 404


async def test_a_listener_that_talks_too_much_is_closed(here):
    async with here.open() as socket:
        await socket.send_str("short is fine")
        await socket.send_str("x" * 2_000)
        closed = await socket.receive(timeout=5)
    assert closed.type is WSMsgType.CLOSE
    assert closed.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_listener_that_does_not_read_is_sent_away_and_the_others_are_not(here, redis):
    async with here.open() as deaf, here.open() as attentive:
        for _ in range(10):
            async with redis.pipeline(transaction=False) as pipeline:
                for _ in range(200):
                    pipeline.xadd(KEYS.events, {"event_type": "model.request.complete", "padding": "x" * 16_000})
                await pipeline.execute()
            for _ in range(200):
                assert (await attentive.receive(timeout=5)).type is WSMsgType.TEXT
        heard = [message.type async for message in deaf]
        assert len(heard) < 2_000
        assert deaf.closed
        assert not attentive.closed


async def test_a_listener_may_be_a_thousand_events_behind_and_no_more():
    subscriber = Subscriber()
    for _ in range(1_000):
        subscriber.offer(b"{}")
    assert not subscriber.over.done()
    subscriber.offer(b"{}")
    assert subscriber.over.result() == aiohttp.WSCloseCode.TRY_AGAIN_LATER
    assert await subscriber.events.get() is None


async def test_stopping_sends_listeners_away_with_a_reason(start, worker):
    async with ClientSession() as session:
        async with start() as api:
            socket = await Listening(api, session).open()
            receiving = asyncio.create_task(socket.receive(timeout=10))
        closed = await receiving
    assert closed.type is WSMsgType.CLOSE
    assert closed.data == aiohttp.WSCloseCode.GOING_AWAY
