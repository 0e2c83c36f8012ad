"""``/insights``: passed on to the insights process; the front door knows no SQL."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import orjson
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from gateway_api.state import FRONT_DOOR
from model_gateway.errors import KINDS, GatewayError
from model_gateway.insights import find, insights_secret

_log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES: Final = 64 * 2**20
TIMEOUTS: Final = {"GET": 30.0, "DELETE": 330.0}
"""Seconds for an answer: a little longer than the insights process gives itself."""

_CONNECT_SECONDS: Final = 2.0
_MAX_CONNECTIONS: Final = 16
_SESSION: Final = web.AppKey("insights_session", ClientSession)
_PLAIN: Final = string.ascii_letters + string.digits + string.punctuation


async def connected(app: web.Application) -> AsyncIterator[None]:
    """The connections to the insights process, for as long as the application lives."""
    secret = insights_secret(app[FRONT_DOOR].environment.hmac_secret)
    connector = TCPConnector(limit=_MAX_CONNECTIONS)
    async with ClientSession(headers={"Authorization": f"Bearer {secret}"}, connector=connector) as session:
        app[_SESSION] = session
        yield


async def ask(request: web.Request) -> web.Response:
    """``GET /insights/...`` and ``DELETE /insights/data``: the answer or the error of the insights process.

    Raises:
        GatewayError: its own, or ``insights_unavailable`` where there is none to ask.
    """
    url, session = await _address(request), request.app[_SESSION]
    method = "GET" if request.method == "HEAD" else request.method
    timeout = ClientTimeout(total=TIMEOUTS[method], sock_connect=_CONNECT_SECONDS)
    try:
        async with session.request(method, url, timeout=timeout, allow_redirects=False) as response:
            body = await _read(response)
    except (ClientError, TimeoutError, OSError) as error:
        _log.warning("insights.away", error=type(error).__name__)
        raise _unavailable("the insights process did not answer") from None
    if response.status != 200:
        raise _told(response.status, body)
    return web.Response(body=body, content_type="application/json")


async def _address(request: web.Request) -> URL:
    """The same path and parameters at the insights process."""
    door = request.app[FRONT_DOOR]
    state = await find(door.client.redis, door.client.keys)
    if state is None:
        raise _unavailable("no insights process is alive")
    if state.problem:
        raise _unavailable(state.problem)
    query = request.rel_url.raw_query_string.encode("utf-8", "surrogateescape")
    return URL(f"{state.url}{request.path}?{quote(query, safe=_PLAIN)}", encoded=True)


async def _read(response: ClientResponse) -> bytes:
    body = await response.content.read(MAX_ANSWER_BYTES + 1)
    while not response.content.at_eof() and len(body) <= MAX_ANSWER_BYTES:
        body += await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
    if len(body) > MAX_ANSWER_BYTES:
        raise GatewayError("invalid_value", "the answer would be too large; ask for less")
    return body


def _told(status: int, body: bytes) -> GatewayError:
    """The error that the insights process answered with."""
    try:
        error = orjson.loads(body)["error"]
        code, message, param = str(error["code"]), str(error["message"]), error["param"]
    except (ValueError, TypeError, KeyError):
        return _unavailable(f"the insights process answered with {status} and no error of ours")
    if code == "invalid_api_key":  # the client's token was right: it is ours that is not
        return _unavailable("the insights process has another HMAC_SECRET than this front door")
    if code not in KINDS:
        return _unavailable(f"the insights process answered with an unknown error, {status}")
    return GatewayError(code, message, param=param and str(param), status=status)


def _unavailable(reason: str) -> GatewayError:
    return GatewayError("insights_unavailable", f"insights are not available: {reason}")
