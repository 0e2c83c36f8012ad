"""The event stream, read once and handed to every subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import structlog
from aiohttp import WSCloseCode
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_gateway.connection import COMMAND_TIMEOUT, connect
from model_gateway.events import decode

_log = structlog.get_logger(__name__)

_BLOCK_MS: Final = 2_000
_COUNT: Final = 256
_RETRY_SECONDS: Final = 0.2
_QUEUED: Final = 1_000
"""Events that a subscriber may be behind."""


class Subscriber:
    """One listener: its events, and the reason for which it was dropped.

    Attributes:
        events: JSON objects, in order; None after the last.
        over: resolved with a close code when no more will come.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.over: asyncio.Future[WSCloseCode] = asyncio.get_running_loop().create_future()

    def offer(self, event: bytes) -> None:
        """Hand it an event; one that can't keep up is dropped rather than waited for."""
        if self.over.done():
            return
        if self.events.qsize() < _QUEUED:
            self.events.put_nowait(event)
        else:
            self.finish(WSCloseCode.TRY_AGAIN_LATER)

    def finish(self, code: WSCloseCode) -> None:
        """Let what waits go; no more events will come."""
        if not self.over.done():
            self.over.set_result(code)
            while not self.events.empty():
                self.events.get_nowait()
            self.events.put_nowait(None)


class EventFeed:
    """Reads events while somebody listens, from the moment the first one does."""

    def __init__(self, redis_url: str, stream: str) -> None:
        self._redis: Redis = connect(redis_url, read_timeout=_BLOCK_MS / 1000 + COMMAND_TIMEOUT)
        self._stream = stream
        self._after = b"0-0"
        self._subscribers: set[Subscriber] = set()
        self._wanted = asyncio.Event()
        self._away = False

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscriber]:
        """Listen to what happens from now on.

        Raises:
            RedisError: Redis is away.
        """
        if not self._subscribers:
            newest: Any = await self._redis.xrevrange(self._stream, count=1)
            self._after = newest[0][0] if newest else b"0-0"
        subscriber = Subscriber()
        self._subscribers.add(subscriber)
        self._wanted.set()
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                self._wanted.clear()

    def finish(self, code: WSCloseCode) -> None:
        """Send every subscriber away."""
        for subscriber in self._subscribers:
            subscriber.finish(code)

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._wanted.wait()
            try:
                await self._read()
                self._away = False
            except (RedisError, OSError) as error:
                if not self._away:
                    _log.warning("events.unreadable", error=type(error).__name__)
                self._away = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self) -> None:
        found: Any = await self._redis.xread({self._stream: self._after}, count=_COUNT, block=_BLOCK_MS)
        for _, entries in found or ():
            for entry, fields in entries:
                self._after = entry
                self._publish(entry, fields)

    def _publish(self, entry: bytes, fields: Mapping[bytes, bytes]) -> None:
        try:
            event = orjson.dumps(decode(fields, entry.decode()))
        except ValueError:  # written by somebody else
            _log.warning("events.skipped", entry=entry.decode())
            return
        for subscriber in self._subscribers:
            subscriber.offer(event)

    async def close(self) -> None:
        """Let the connection go."""
        await self._redis.aclose()
