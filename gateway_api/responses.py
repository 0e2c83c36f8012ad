"""Replies and errors as HTTP responses."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from model_gateway.dialects import Dialect
from model_gateway.errors import GatewayError
from model_gateway.money import usd_text
from model_gateway.replies import Reply

_JSON: Final = "application/json"
_RETRY_SECONDS: Final = 1


def json_response(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=orjson.dumps(value), status=status, headers=_headers(status, None, ""))


def error_response(error: GatewayError, request_id: str, dialect: Dialect) -> web.Response:
    """An error in the dialect that was spoken."""
    headers = _headers(error.status, error.retry_after, error.code)
    headers |= named(request_id)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=dialect.error_json(error), status=error.status, headers=headers)


def reply_response(reply: Reply) -> web.Response:
    """A worker's whole reply or error, its bytes untouched: they are signed."""
    headers = _headers(reply.status, reply.retry_after, reply.code)
    headers |= named(reply.request_id)
    headers |= answered_by(reply)
    if reply.usd_nano is not None:
        headers["x-cost-usd"] = usd_text(reply.usd_nano)
    return web.Response(body=reply.data, status=reply.status, headers=headers)


def named(request_id: str) -> dict[str, str]:
    """The request's id, under the names by which OpenAI's SDKs look for it and Anthropic's."""
    return {"x-request-id": request_id, "request-id": request_id}


def answered_by(reply: Reply) -> dict[str, str]:
    """Who answered, as headers: with fallbacks it need not be the model that was asked for."""
    if not reply.served_by:
        return {}
    provider, _, deployment = reply.served_by.partition(":")
    return {
        "x-gateway-provider": provider,
        "x-gateway-deployment": deployment,
        "x-gateway-model": deployment.partition("#")[0],
    }


def _headers(status: int, retry_after: int | None, code: str) -> dict[str, str]:
    """The headers that tell a client whether and when to try again."""
    headers = {"Content-Type": _JSON}
    if retry_after is None and status in (429, 503):
        retry_after = _RETRY_SECONDS
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if code == "budget_exceeded":  # the official SDKs would try again: it is a 429
        headers["x-should-retry"] = "false"
    return headers
