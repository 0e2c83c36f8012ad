"""Chat completions: one operation with two doors, ``/proxy/{model}`` and ``/v1/chat/completions``."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway_api.auth import ADMIN
from gateway_api.body import read_body
from gateway_api.models import find_model
from gateway_api.responses import reply_response
from gateway_api.sse import relay
from gateway_api.state import FRONT_DOOR, REQUEST_ID, FrontDoor
from model_gateway.chat import check_output_bound, parse_chat
from model_gateway.client import Exchange
from model_gateway.errors import GatewayError
from model_gateway.scripts import unavailable
from model_gateway.settings import GatewayConfig, ModelRow


async def proxy(request: web.Request) -> web.StreamResponse:
    """``POST /proxy/{model}``: the path names the model, whatever the body says."""
    return await _complete(request, request.match_info["model"])


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """``POST /v1/chat/completions``: the body names the model."""
    return await _complete(request, "")


async def _complete(request: web.Request, named: str) -> web.StreamResponse:
    """Check the request, put it on the stream, and pass its replies on."""
    door = request.app[FRONT_DOOR]
    body = await read_body(request, door.config.limits)
    chat = parse_chat(body, max_choices=door.config.limits.choices)
    model = named or chat.model
    row = find_model(door, model)
    check_output_bound(chat, row.max_tokens)
    if not door.fleet.listening:
        raise unavailable()
    async with await _submit(door, model, body, stream=chat.stream) as exchange:
        request[REQUEST_ID] = exchange.request_id
        seconds = longest_wait(door.config, row)
        if chat.stream:
            return await relay(request, exchange, seconds)
        return await _whole(door, exchange, seconds)


async def _submit(door: FrontDoor, model: str, body: bytes, *, stream: bool) -> Exchange:
    """Put the request on the stream; a client that leaves in this very moment has left a submitted request."""
    submitting = asyncio.create_task(door.client.submit(principal=ADMIN, model=model, body=body), name="submit")
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        door.cancellations.abandon(submitting, cancel=stream)
        raise


def longest_wait(config: GatewayConfig, row: ModelRow) -> float:
    """Seconds after which no reply can come any more: every attempt, and the leases of those that crashed."""
    attempts = row.timeout * config.redelivery.max_attempts
    return attempts + 2 * config.worker.lease_seconds + row.queue_timeout


async def _whole(door: FrontDoor, exchange: Exchange, seconds: float) -> web.Response:
    """The reply in one piece. A client that leaves does not stop its request: it is finished, and paid."""
    try:
        return reply_response(await exchange.next(seconds))
    except TimeoutError:
        door.cancellations.ask(exchange)
        raise GatewayError("request_timeout", f"no reply in {seconds:g} s") from None
