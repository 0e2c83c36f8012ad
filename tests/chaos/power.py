"""A power cut: what the server had written in the last second never reached the disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.redis_server import RedisServer

LOST_SECONDS = 1.0
_SAMPLE_SECONDS = 0.1
_KEPT = 100


class Journal:
    """How long a server's append-only file was, and when, for the last ten seconds."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._sizes: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    async def watch(self) -> None:
        """Note its size, over and over."""
        while True:
            self._note()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _note(self) -> None:
        self._sizes.append((time.time(), self._server.journal.stat().st_size))

    async def cut_back(self) -> float:
        """Take from a stopped server what it wrote in its last second; the time up to which all is left."""
        before = time.time() - LOST_SECONDS
        at, size = max((sample for sample in self._sizes if sample[0] <= before), default=self._sizes[0])
        self._server.cut_journal(size)
        self._sizes.clear()
        self._note()
        return at


@asynccontextmanager
async def journal_of(server: RedisServer) -> AsyncIterator[Journal]:
    """A server's journal, watched until the ``async with`` ends."""
    found = Journal(server)
    watching = asyncio.create_task(found.watch(), name="journal")
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
