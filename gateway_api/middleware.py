"""Every error as an answer in the dialect that was spoken, and every answer counted."""

from __future__ import annotations

import asyncio
import traceback

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from redis.exceptions import RedisError

from gateway_api.operations import dialect_on
from gateway_api.responses import error_response
from gateway_api.state import DIALECT, FRONT_DOOR, REQUEST_ID
from model_gateway.connection import AWAY, unavailable
from model_gateway.envelope import new_request_id
from model_gateway.errors import GatewayError

_log = structlog.get_logger(__name__)

_CLIENT_LEFT = 499


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every request, whatever its handler raises, and count it."""
    requests = request.app[FRONT_DOOR].traffic.requests
    request[DIALECT] = dialect_on(request.path)
    try:
        response = await _respond(request, handler)
    except (asyncio.CancelledError, ConnectionError):
        requests[_route(request), _CLIENT_LEFT] += 1
        raise
    requests[_route(request), response.status] += 1
    return response


def _route(request: web.Request) -> str:
    """The route's pattern: a label that no client can choose."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unmatched"


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ConnectionError:
        raise
    except Exception as error:
        if request.writer.output_size:
            raise ConnectionResetError("the reply had begun: cut it off, it must not look whole") from error
        # No name for the error beside ``error``, which goes with this block: another would hold it, and it this frame.
        response = error_response(_gateway_error(request, error), _request_id(request), request[DIALECT])
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _request_id(request: web.Request) -> str:
    """The request's id; made here for one that never got as far as the stream."""
    if REQUEST_ID not in request:
        request[REQUEST_ID] = new_request_id(request.app[FRONT_DOOR].clock.now_ms())
    return request[REQUEST_ID]


def _gateway_error(request: web.Request, error: Exception) -> GatewayError:
    match error:
        case GatewayError():
            return error
        case web.HTTPException():
            return _http_error(request, error)
        case web.RequestPayloadError():
            return GatewayError("invalid_value", "the body's transfer encoding is broken")
        case RedisError() if isinstance(error, AWAY):
            _log.warning("request.redis_away", request_id=_request_id(request), error=type(error).__name__)
            return unavailable()
    return _unexpected(request, error)


def _http_error(request: web.Request, error: web.HTTPException) -> GatewayError:
    match error.status:
        case 404:
            return GatewayError("not_found", f"there is no route {request.path}")
        case 405:
            return GatewayError("method_not_allowed", f"{request.method} is not allowed on {request.path}")
    return GatewayError("invalid_value", f"bad request: {error.reason}", status=error.status)


def _unexpected(request: web.Request, error: Exception) -> GatewayError:
    """Log where it happened, and nothing that a request may have put into the message."""
    frames = traceback.extract_tb(error.__traceback__)
    _log.error(
        "request.failed",
        request_id=_request_id(request),
        route=_route(request),
        error=type(error).__name__,
        at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    )
    return GatewayError("internal_error", "the gateway failed; see its log for this request id")
