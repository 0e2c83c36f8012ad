"""Where connections come in: a bound on how many, on their headers, and on the time to send them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway_api.early_refusal import Entrance, Refusals, refusal_head
from gateway_api.responses import error_response
from gateway_api.state import Traffic
from model_gateway.clock import Clock
from model_gateway.dialects import DIALECTS
from model_gateway.envelope import new_request_id
from model_gateway.errors import GatewayError
from model_gateway.settings import Limits

_log = structlog.get_logger(__name__)

_BACKLOG: Final = 2_048
_MAX_HEADERS: Final = 100
_MAX_URL_BYTES: Final = 32_768
"""Room for the longest query of ``/insights/similar``, each of its bytes as ``%XX``."""
_MAX_HEADER_BYTES: Final = 8_190
_LINGER_SECONDS: Final = 2.0


class _Connection(web.RequestHandler):
    """One connection, counted; what is not HTTP gets an error in OpenAI's shape."""

    __slots__ = ("_entrance", "_header_timer", "_most", "_read_seconds", "_traffic")

    def __init__(self, server: web.Server, traffic: Traffic, limits: Limits, refusals: Refusals | None) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            # From the last response on, while nothing more is asked.
            keepalive_timeout=limits.keepalive_seconds,
            max_headers=_MAX_HEADERS,
            max_line_size=_MAX_URL_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
        )
        self._traffic = traffic
        self._most = limits.connections
        self._read_seconds = limits.read_seconds
        self._header_timer: asyncio.TimerHandle | None = None
        self._entrance: Entrance | None = None if refusals is None else Entrance(refusals, self)

    def connection_made(self, transport: Any) -> None:
        """Count it; one too many is handed to who says so."""
        if self._traffic.connections >= self._most:
            overflow = _Overflow(transport)
            transport.set_protocol(overflow)
            return
        self._traffic.connections += 1
        super().connection_made(transport)
        self._await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._traffic.connections -= 1
        if self._entrance is not None:
            self._entrance.close()
            self._entrance = None  # it refers to this connection
        self._header_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Turn away what is to be turned away unread; the rest is parsed."""
        if self._entrance is not None:
            idle = self._waiter is not None and not self._waiter.done() and not self.writing_paused
            answers, data = self._entrance.look(data, idle=idle)
            if answers and self.transport is not None:
                self.transport.write(answers)
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                self._header_is_here()
        if data:
            super().data_received(data)
            if self._messages:
                self._header_is_here()
            elif self._waiter is not None and not self._waiter.done():
                self._await_header()

    def _await_header(self) -> None:
        """Once a connection or a header has begun, the header's end must come."""
        if self._header_timer is None:
            self._header_timer = self._loop.call_later(self._read_seconds, self.force_close)

    def _header_is_here(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed; ``message`` may quote a header, and so a token: it is not used."""
        if request.writer.output_size:
            raise ConnectionResetError("the reply had begun: cut it off, it must not look whole")
        request_id = new_request_id(Clock().now_ms())
        if status >= 500:
            _log.error("http.failed", request_id=request_id, error=type(exc).__name__)
        response = error_response(_refusal(status, exc), request_id, DIALECTS["chat"])
        response.force_close()
        return response


def _refusal(status: int, error: BaseException | None) -> GatewayError:
    if isinstance(error, LineTooLong):
        return GatewayError("request_too_large", "the URL or a header is too long", status=431)
    if status >= 500:
        return GatewayError("internal_error", "the gateway failed; see its log for this request id", status=status)
    return GatewayError("invalid_value", "this is not a valid HTTP request", status=status)


class _Overflow(asyncio.Protocol):
    """One connection too many: whatever it asks, the answer is 503."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Give the client a moment to ask, and then to read the answer."""
        self._transport = transport
        self._answered = False
        self._end = asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer; go on reading, as closing on unread bytes would take the answer back."""
        if not self._answered:
            self._answered = True
            self._transport.write(_busy())
            self._transport.write_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone."""
        self._end.cancel()


def _busy() -> bytes:
    error = GatewayError("queue_full", "too many connections; try again in a second", retry_after=1)
    return refusal_head(error.json(), error) + b"Connection: close\r\n\r\n" + error.json()


class BoundedSite(web.BaseSite):
    """A TCP site with at most ``limits.connections`` connections."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        limits: Limits,
        traffic: Traffic,
        refusals: Refusals | None = None,
    ) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._host = host
        self._port = port
        self._limits = limits
        self._traffic = traffic
        self._refusals = refusals

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, self._host, self._port, backlog=self._backlog
        )

    def _accept(self) -> asyncio.Protocol:
        if self._runner.server is None:
            raise ConnectionAbortedError("the site is closed")
        return _Connection(self._runner.server, self._traffic, self._limits, self._refusals)
