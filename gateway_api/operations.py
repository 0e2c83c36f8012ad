"""The operations: each a body in some dialect, put on the stream, and its replies passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from gateway_api.auth import ADMIN
from gateway_api.body import read_body
from gateway_api.models import find_model
from gateway_api.responses import reply_response
from gateway_api.sse import relay
from gateway_api.state import FRONT_DOOR, REQUEST_ID, FrontDoor
from model_gateway.connection import unavailable
from model_gateway.dialects import DIALECTS, Dialect, check_for
from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange
from model_gateway.settings import GatewayConfig

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPERATIONS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat",
    "/proxy/{model:.+}": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
}
"""Which operation a path asks for."""

ROUTES: Final = {path.replace(":.+}", "}"): name for path, name in OPERATIONS.items()}
"""The same by the route's name, as metrics have it."""


def dialect_on(path: str) -> Dialect:
    """The dialect that is spoken on a path, whatever comes of the request; OpenAI's where it is no operation's."""
    return DIALECTS[OPERATIONS.get(path, "chat")]


def operation(name: str) -> Handler:
    """The handler of an operation; a ``{model}`` in the path wins over the body's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _run(request, name, request.match_info.get("model", ""))

    return handle


async def _run(request: web.Request, name: str, named: str) -> web.StreamResponse:
    """Check the request, put it on the stream, and pass its replies on."""
    door = request.app[FRONT_DOOR]
    body = await read_body(request, door.config.limits)
    with door.gate.entering():
        asked = DIALECTS[name].parse(body, max_choices=door.config.limits.choices)
        found = named or asked.model
        model = find_model(door, found)
        check_for(asked, door.config.models[model])
        if not door.fleet.listening:
            raise unavailable()
        cancels = door.config.cancels_on_leaving(model, streamed=asked.stream)
        exchange = await _submit(door, name, found, body, cancels=cancels)
    async with exchange:
        request[REQUEST_ID] = exchange.request_id
        seconds = longest_wait(door.config, model)
        if asked.stream:
            return await relay(request, exchange, seconds, cancels=cancels)
        return await _whole(door, exchange, seconds, cancels=cancels)


async def _submit(door: FrontDoor, name: str, model: str, body: bytes, *, cancels: bool) -> Exchange:
    """Put the request on the stream; a client that leaves in this very moment has left a submitted request."""
    submitting = asyncio.create_task(
        door.client.submit(principal=ADMIN, model=model, body=body, operation=name), name="submit"
    )
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        door.cancellations.abandon(submitting, cancel=cancels)
        raise


def longest_wait(config: GatewayConfig, model: str) -> float:
    """Seconds after which no reply can come any more: every attempt, and the leases of those that crashed."""
    attempts = config.longest_delivery(model) * config.redelivery.max_attempts
    return attempts + 2 * config.worker.lease_seconds


async def _whole(door: FrontDoor, exchange: Exchange, seconds: float, *, cancels: bool) -> web.Response:
    """The reply in one piece; ``cancels``: a client that leaves stops its request, else it is finished, and paid."""
    try:
        return reply_response(await exchange.next(seconds))
    except TimeoutError:
        door.cancellations.ask(exchange)
        raise GatewayError("request_timeout", f"no reply in {seconds:g} s") from None
    except asyncio.CancelledError:
        if cancels:
            door.cancellations.ask(exchange)
        raise
