"""Where the insights process answers: HTTP for front doors alone, who know its secret.

Whatever goes wrong is an error in OpenAI's shape with a code out of ``model_gateway.errors``.
"""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway_insights import parameters
from gateway_insights.database import AWAY, Pool
from gateway_insights.embedding import Embedder
from gateway_insights.partitions import forget_principal
from gateway_insights.similar import similar
from gateway_insights.stats import stats
from gateway_insights.trend_report import trends
from model_gateway.clock import Clock
from model_gateway.errors import GatewayError
from model_gateway.settings import Insights

_log = structlog.get_logger(__name__)

MAX_LINE_BYTES: Final = 32_768
"""Of a request line: the longest query, each of its bytes as ``%XX``, with its filters."""

_QUERY_SECONDS: Final = 20.0
_DELETE_SECONDS: Final = 300.0
_AT_ONCE: Final = 4
"""Queries that run; more wait their turn, so that they don't take every connection and core."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """What the answers are made of."""

    pool: Pool
    embedder: Embedder | None
    settings: Insights
    clock: Clock

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)


_SOURCES: Final = web.AppKey("sources", _Sources)


def create_app(
    pool: Pool, embedder: Embedder | None, settings: Insights, secret: str, clock: Clock | None = None
) -> web.Application:
    """The HTTP application.

    Args:
        pool: the database; best one of its own, so that no query holds up what takes the events in.
        embedder: what ``similar`` compares by; None where that is off.
        settings: what is stored of texts.
        secret: the bearer token that front doors send.
        clock: wall-clock time.
    """
    app = web.Application(middlewares=[_answer, _guard(secret), _bound()])
    app[_SOURCES] = _Sources(pool, embedder, settings, clock or Clock())
    app.router.add_get("/insights/stats", _stats)
    app.router.add_get("/insights/trends", _trends)
    app.router.add_get("/insights/similar", _similar)
    app.router.add_delete("/insights/data", _forget)
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve until the block is left; where it answers, as a URL."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, max_line_size=MAX_LINE_BYTES)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _stats(request: web.Request) -> web.Response:
    sources, hours = request.app[_SOURCES], parameters.hours(request.query)
    return _json(await stats(sources.pool, hours, sources.now()))


async def _trends(request: web.Request) -> web.Response:
    sources, days = request.app[_SOURCES], parameters.days(request.query)
    return _json(await trends(sources.pool, days, sources.now()))


async def _similar(request: web.Request) -> web.Response:
    sources, search = request.app[_SOURCES], parameters.search(request.query)
    if sources.embedder is None:
        raise GatewayError("unsupported_operation", "similar needs an embedding model, and insights.embedding is off")
    found = await similar(sources.pool, sources.embedder, search)
    return _json({"store_text": sources.settings.store_text, **found})


async def _forget(request: web.Request) -> web.Response:
    sources, principal = request.app[_SOURCES], parameters.principal(request.query)
    deleted = await forget_principal(sources.pool, principal)
    _log.info("insights.forgotten", rows=deleted)
    return _json({"principal": principal, "deleted": deleted})


def _guard(secret: str) -> Middleware:
    """Let only who knows the secret past."""
    expected = f"Bearer {secret}".encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise GatewayError("invalid_api_key", "this is for the gateway's front doors; ask one of them")
        return await handler(request)

    return authenticate


def _bound() -> Middleware:
    """Few queries at once, and each for a limited time, the wait for its turn included."""
    turns = asyncio.Semaphore(_AT_ONCE)

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        seconds = _DELETE_SECONDS if request.method == "DELETE" else _QUERY_SECONDS
        async with asyncio.timeout(seconds), turns:
            return await handler(request)

    return limit


@web.middleware
async def _answer(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Answer whatever the handler raises; nothing of a request gets into the log."""
    try:
        return await handler(request)
    except GatewayError as error:
        return _error(error)
    except web.HTTPException as error:
        code = "method_not_allowed" if error.status == 405 else "not_found"
        return _error(GatewayError(code, f"{request.method} {request.path} is not a route", status=error.status))
    except AWAY as error:
        _log.warning("insights.database_away", error=type(error).__name__)
        return _error(GatewayError("insights_unavailable", "PostgreSQL did not answer in time; try again later"))
    except Exception as error:  # noqa: BLE001 - a bug of ours: it is logged, and is an answer too
        frames = traceback.extract_tb(error.__traceback__)
        at = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        _log.error("insights.failed", error=type(error).__name__, at=at)
        return _error(GatewayError("internal_error", "insights failed; see its log"))


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _error(error: GatewayError) -> web.Response:
    return web.Response(body=error.json(), status=error.status, content_type="application/json")
