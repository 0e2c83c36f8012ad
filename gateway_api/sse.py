"""Streamed replies as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import orjson
from aiohttp import web

from gateway_api.responses import answered_by, named, reply_response
from gateway_api.state import DIALECT, FRONT_DOOR
from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange
from model_gateway.replies import Reply

_LAST_WORD_SECONDS: Final = 1.0


class _EventStream(web.StreamResponse):
    """A response whose header goes out with the first event, in one write."""

    _send_headers_immediately = False

    def __init__(self, request_id: str) -> None:
        super().__init__(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                **named(request_id),
            }
        )


class _Relay:
    """Passes one request's entries on.

    Attributes:
        response: nothing of it is sent before the first entry, or before a long silence.
        over: whether the request has come to its end.
    """

    def __init__(self, request: web.Request, exchange: Exchange, silence_seconds: float) -> None:
        self.response = _EventStream(exchange.request_id)
        self.over = False
        self._dialect = request[DIALECT]
        self._request = request
        self._exchange = exchange
        self._silence_seconds = silence_seconds

    async def run(self) -> web.StreamResponse:
        """Pass everything on, to the end; a refusal before anything was sent is a plain HTTP error."""
        reply = await self._next()
        if reply is not None and reply.kind != "chunk":
            self.over = True
            return reply_response(reply)
        if reply is not None:
            self.response.headers.update(answered_by(reply))
        await self.response.prepare(self._request)
        while True:
            events = self._events(reply)
            if self.over:
                await self.response.write_eof(events)
                return self.response
            await self.response.write(events)
            reply = await self._next()

    async def _next(self) -> Reply | None:
        try:
            return await self._exchange.next(self._silence_seconds)
        except TimeoutError:
            return None

    def _events(self, reply: Reply | None) -> bytes:
        """An entry and those that are here already; a comment if there is none."""
        if reply is None:
            return self._dialect.keep_alive
        events: list[bytes] = []
        while reply is not None and not self.over:
            events.append(self._event(reply))
            reply = None if self.over else self._exchange.ready()
        return b"".join(events)

    def _event(self, reply: Reply) -> bytes:
        self.over = reply.end or reply.kind == "error"
        if reply.kind == "error":
            return _event(reply.event, reply.data)
        event = _event(reply.event, reply.data, b"id: %b:%d\n" % (reply.request_id.encode(), reply.index))
        return event + self._dialect.done if self.over else event

    async def end_with(self, error: GatewayError) -> web.StreamResponse:
        """End with an error of the front door's own: as a plain HTTP error where nothing was sent yet."""
        if not self.response.prepared:
            raise error
        await self._break_off(error)
        return self.response

    async def _break_off(self, error: GatewayError) -> None:
        """End in mid-stream with an error event and no ``[DONE]``; cut off a client that has stopped reading."""
        if not self._request.protocol.writing_paused:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    members = self._dialect.stream_error(error)
                    await self.response.write_eof(_event(str(members.get("type", "")), orjson.dumps(members)))
                    return
        if self._request.transport is not None:
            self._request.transport.abort()


def _event(name: str, data: bytes, head: bytes = b"") -> bytes:
    """One event on the wire."""
    if name:
        head += b"event: %b\n" % name.encode()
    return b"%bdata: %b\n\n" % (head, data)


async def relay(request: web.Request, exchange: Exchange, seconds: float, *, cancels: bool) -> web.StreamResponse:
    """Stream a request's reply.

    Args:
        request: whose response it is.
        exchange: the submitted request.
        seconds: how long all of it may take.
        cancels: whether a client that leaves cancels its request; else it is finished, and paid.

    Raises:
        GatewayError: ``request_timeout`` or ``outcome_unknown``, where nothing was sent yet.
    """
    door = request.app[FRONT_DOOR]
    relaying = _Relay(request, exchange, door.silence_seconds)
    goes_on = False
    try:
        async with asyncio.timeout(seconds):
            return await relaying.run()
    except TimeoutError:
        return await relaying.end_with(GatewayError("request_timeout", f"the reply took longer than {seconds:g} s"))
    except GatewayError as error:
        return await relaying.end_with(error)
    except (asyncio.CancelledError, ConnectionError):  # the client left
        goes_on = not cancels
        raise
    finally:
        if not (relaying.over or goes_on):
            door.cancellations.ask(exchange)
