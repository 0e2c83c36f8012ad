"""``/events``: live events over a WebSocket, one JSON object each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from gateway_api.event_access import check_listener
from gateway_api.event_feed import EventFeed, Subscriber
from gateway_api.middleware import answer
from gateway_api.state import FRONT_DOOR, FrontDoor
from model_gateway.tasks import background, end

_FEED: Final = web.AppKey("feed", EventFeed)

_HEARTBEAT_SECONDS: Final = 30.0
_CLOSE_SECONDS: Final = 2.0
_MOST_BYTES_IN: Final = 1_024
"""Of a message from a listener, who has nothing to say."""


def create_events_app(door: FrontDoor) -> web.Application:
    """The events' small application; it has a port of its own."""
    app = web.Application(middlewares=[answer])
    app[FRONT_DOOR] = door
    app.cleanup_ctx.append(_feeding)
    app.on_shutdown.append(_send_away)
    app.router.add_get("/events", events, allow_head=False)
    return app


async def _feeding(app: web.Application) -> AsyncIterator[None]:
    door = app[FRONT_DOOR]
    feed = app[_FEED] = EventFeed(door.environment.redis_url, door.client.keys.events)
    async with background(feed.run(), "events"):
        yield
    await feed.close()


async def _send_away(app: web.Application) -> None:
    app[_FEED].finish(WSCloseCode.GOING_AWAY)


async def events(request: web.Request) -> web.StreamResponse:
    """``GET /events``: a WebSocket with every event from now on."""
    door = request.app[FRONT_DOOR]
    check_listener(request, door.admin, on_loopback=door.environment.on_loopback)
    async with request.app[_FEED].subscribe() as subscriber:
        socket = web.WebSocketResponse(
            protocols=("bearer",),
            heartbeat=_HEARTBEAT_SECONDS,
            timeout=_CLOSE_SECONDS,
            max_msg_size=_MOST_BYTES_IN,
            compress=False,
        )
        await socket.prepare(request)
        await _serve(socket, subscriber)
        if subscriber.over.done():
            await _dismiss(request, socket, subscriber.over.result())
    return socket


async def _serve(socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    """Send events until the listener leaves, or is to be sent away."""
    sending = asyncio.create_task(_send(socket, subscriber))
    listening = asyncio.create_task(_listen(socket))
    ends: list[asyncio.Future[Any]] = [sending, listening, subscriber.over]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if subscriber.over.done():  # a slow listener may yet take what is under way, and then the reason
            await asyncio.wait([sending], timeout=_CLOSE_SECONDS)
    finally:
        await end(sending, listening)


async def _send(socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    while (event := await subscriber.events.get()) is not None:
        await socket.send_frame(event, WSMsgType.TEXT)


async def _listen(socket: web.WebSocketResponse) -> None:
    """Answer pings and notice the end; whatever else comes is ignored."""
    async for _ in socket:
        pass


async def _dismiss(request: web.Request, socket: web.WebSocketResponse, code: WSCloseCode) -> None:
    """Close with a reason, unless the listener has stopped reading; then cut the line."""
    transport = request.transport
    if not request.protocol.writing_paused:
        await socket.close(code=code)
    if transport is not None:
        transport.abort()
