"""One submitted request and the replies to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self

from model_gateway.errors import GatewayError
from model_gateway.replies import Reply

_GONE: Final = Reply("", "gone", 0, 502, end=True, retry_after=None, usd_nano=None, data=b"", entry="")
"""Stands behind the last entry of a reply that nobody will go on with."""


class Exchange:
    """One submitted request and its replies; leaving the ``async with`` stops listening, not the request."""

    def __init__(
        self,
        request_id: str,
        past: list[Reply],
        queue: asyncio.Queue[Reply],
        forget: Callable[[Exchange], None],
        ask_to_cancel: Callable[[], Any],
    ) -> None:
        self.request_id = request_id
        self._past = past
        self._queue = queue
        self._forget = forget
        self._ask_to_cancel = ask_to_cancel
        self._last = (0, 0)
        self._chunks = 0

    @property
    def answered(self) -> bool:
        """Whether any of the reply is here."""
        return bool(self._past) or not self._queue.empty() or self._last != (0, 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._forget(self)

    async def next(self, timeout: float) -> Reply:  # noqa: ASYNC109 - the caller's bound on one wait
        """The next entry of the reply.

        Raises:
            TimeoutError: nothing came in ``timeout`` seconds.
            GatewayError: ``outcome_unknown``, see ``ready``.
        """
        while True:
            reply = self.ready()
            if reply is not None:
                return reply
            async with asyncio.timeout(timeout):
                self._past.append(await self._queue.get())

    def ready(self) -> Reply | None:
        """The next entry if it is here already, else None.

        Raises:
            GatewayError: ``outcome_unknown``: it does not follow what came before, as Redis had lost that and the
                request was run again; or none will follow, see ``gone``.
        """
        while self._past or not self._queue.empty():
            reply = self._past.pop(0) if self._past else self._queue.get_nowait()
            if reply is _GONE:
                raise GatewayError("outcome_unknown", "Redis lost the request in the middle of its reply")
            time, _, number = reply.entry.partition("-")
            if (place := (int(time), int(number))) > self._last:
                self._last = place
                self._check_order(reply)
                return reply
        return None

    def _check_order(self, reply: Reply) -> None:
        if reply.kind != "chunk":
            return
        if reply.index != self._chunks:
            raise GatewayError("outcome_unknown", "Redis lost the middle of the stream, which was begun again")
        self._chunks += 1

    def gone(self) -> None:
        """Redis has lost the request: nobody writes the rest of its reply. What is here already is handed out."""
        self._queue.put_nowait(_GONE)

    async def cancel(self) -> None:
        """Ask the workers to stop the request; what was generated is paid for."""
        await self._ask_to_cancel()
