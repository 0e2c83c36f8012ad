"""A vendor's server for the checks, over real TCP: you write what it answers, it does what goes wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
from aiohttp import web

from model_gateway.testing.scenarios import KEY, RETRY_AFTER, Scenario

Answer = Callable[[Scenario, Mapping[str, Any]], bytes | Sequence[bytes]]
"""What the vendor answers to a request's body in ``TEXT``, ``TOOLS`` or ``NO_USAGE``: a whole reply's bytes, or a
stream's in parts (several: what is cut or hangs does so after the first half of them)."""

_STATUSES: Final[Mapping[Scenario, int]] = {
    Scenario.REJECTED: 400,
    Scenario.UNAUTHORIZED: 401,
    Scenario.RATE_LIMITED: 429,
    Scenario.BROKEN: 500,
}
_ANSWERED: Final = frozenset({Scenario.TEXT, Scenario.TOOLS, Scenario.NO_USAGE})
_ONCE: Final = frozenset({Scenario.HANGING, Scenario.HANGING_MIDWAY})
_BREAKING: Final = frozenset({Scenario.CUT_MIDWAY, Scenario.HANGING_MIDWAY})
_ERROR: Final = orjson.dumps({"error": {"message": f"it does not like the key {KEY}"}})


class ScriptedServer:
    """The server; it starts and ends with its ``async with``, and answers a POST to any path.

    Args:
        scenario: what it does.
        answer: what the vendor says.
        error: the body of an HTTP error; the default quotes the key, which must not come through.

    Attributes:
        url: where it is, without a slash at the end.
        requests: the bodies that came.
    """

    def __init__(self, scenario: Scenario, answer: Answer, error: bytes = _ERROR) -> None:
        self.url = ""
        self.requests: list[Any] = []
        self._scenario = scenario
        self._answer = answer
        self._error = error
        self._over = asyncio.Event()
        self._socket = socket.socket()

    async def __aenter__(self) -> ScriptedServer:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=1.0)
        await self._runner.setup()
        # Bound in any case, so that nobody else comes to listen on the port of a server that is not there.
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        if self._scenario is not Scenario.UNREACHABLE:
            await web.SockSite(self._runner, self._socket).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()
        self._socket.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.requests.append(body)
        scenario = self._scenario if self._scenario not in _ONCE or len(self.requests) == 1 else Scenario.TEXT
        if scenario in _STATUSES:
            headers = {"Retry-After": str(RETRY_AFTER)} if scenario is Scenario.RATE_LIMITED else {}
            return web.Response(status=_STATUSES[scenario], body=self._error, headers=headers)
        if scenario is Scenario.GARBAGE:
            return web.Response(body=b"<html>not what you asked for</html>", content_type="text/html")
        if scenario is Scenario.HANGING:
            await self._over.wait()
        answer = self._answer(scenario if scenario in _ANSWERED else Scenario.TEXT, body)
        with suppress(ConnectionError):  # the client may leave at any time
            return await self._send(request, scenario, answer)
        return web.Response()

    async def _send(
        self, request: web.Request, scenario: Scenario, answer: bytes | Sequence[bytes]
    ) -> web.StreamResponse:
        response, parts = _begun(answer)
        await response.prepare(request)
        for number, part in enumerate(parts):
            if scenario in _BREAKING and number == len(parts) // 2:
                await self._break(request, scenario)
            await response.write(part)
        await response.write_eof()
        return response

    async def _break(self, request: web.Request, scenario: Scenario) -> None:
        if scenario is Scenario.HANGING_MIDWAY:
            await self._over.wait()
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError


def _begun(answer: bytes | Sequence[bytes]) -> tuple[web.StreamResponse, Sequence[bytes]]:
    """A response without its body yet, and the body's parts."""
    response = web.StreamResponse()
    if isinstance(answer, bytes):
        response.content_type, response.content_length = "application/json", len(answer)
        return response, (answer[: len(answer) // 2], answer[len(answer) // 2 :])
    response.content_type = "text/event-stream"
    return response, answer
