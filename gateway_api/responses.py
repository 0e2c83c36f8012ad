"""Replies and errors as HTTP responses."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from model_gateway.errors import GatewayError, error_from_body
from model_gateway.money import usd_text
from model_gateway.replies import Reply

_JSON: Final = "application/json"
_RETRY_SECONDS: Final = 1


def json_response(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=orjson.dumps(value), status=status, headers=_headers(status, None, ""))


def error_response(error: GatewayError, request_id: str) -> web.Response:
    """An error in OpenAI's shape."""
    headers = _headers(error.status, error.retry_after, error.code)
    headers["x-request-id"] = request_id
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=error.json(), status=error.status, headers=headers)


def reply_response(reply: Reply) -> web.Response:
    """A worker's whole reply or error, its bytes untouched: they are signed."""
    code = error_from_body(reply.status, reply.data).code if reply.status == 429 else ""
    headers = _headers(reply.status, reply.retry_after, code)
    headers["x-request-id"] = reply.request_id
    if reply.usd_nano is not None:
        headers["x-cost-usd"] = usd_text(reply.usd_nano)
    return web.Response(body=reply.data, status=reply.status, headers=headers)


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
