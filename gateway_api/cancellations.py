"""Cancellations on their way to the workers; a client that has left can't wait for its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange

_log = structlog.get_logger(__name__)


class Cancellations:
    """Asks the workers to stop requests, in tasks of their own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, exchange: Exchange) -> None:
        """Ask for one request to be stopped, without waiting."""
        self._start(_cancel(exchange))

    def abandon(self, submitting: asyncio.Task[Exchange], *, cancel: bool) -> None:
        """Let go of a request whose client left while it was submitted; ask for it to be stopped if ``cancel``."""
        self._start(_abandon(submitting, cancel=cancel))

    def _start(self, asking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(asking, name="cancel")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for those under way."""
        await asyncio.gather(*self._tasks)


async def _abandon(submitting: asyncio.Task[Exchange], *, cancel: bool) -> None:
    try:
        exchange = await submitting
    except GatewayError:  # then there is nothing to stop
        return
    async with exchange:
        if cancel:
            await _cancel(exchange)


async def _cancel(exchange: Exchange) -> None:
    try:
        await exchange.cancel()
    except GatewayError as error:  # the request then runs to its end
        _log.warning("cancel.failed", request_id=exchange.request_id, code=error.code)
