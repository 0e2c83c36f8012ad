"""Takes the events into PostgreSQL: each one once, in order, one process at a time.

The place in the stream is the database's cursor, which moves in the transaction that writes the rows; events are read
behind it. The consumer group follows: after each commit its last delivered id is set to the cursor, so that the
janitor trims nothing that is still to be read, and nothing is ever pending. Where the two differ, after a crash
between them, the cursor is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway_insights.batch import LOST, Entry, fold
from gateway_insights.database import AWAY, CONNECT_SECONDS, Pool
from gateway_insights.texts import Texts
from gateway_insights.writes import ANSWER_SECONDS, CursorMovedError, cursor, rows_of, write
from model_gateway.insights import GROUP
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)

BLOCK_MS: Final = 1_000
_LINGER_SECONDS: Final = 0.1
"""After a batch that was not full: events that come in the meantime share the next transaction."""

_STANDBY_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 60
"""PostgreSQL ends the session of a process in charge that says nothing for so long: frozen, or cut off."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LEASE: Final = """
    SELECT set_config(name, $1, false) FROM pg_settings
    WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout')
"""
_LOCK: Final = 0x65_76_65_6E_74_73  # "events", in pg_locks


class Consumer:
    """Reads events behind the cursor and writes them, while this process is the one in charge.

    Attributes:
        problem: why it can't go on; empty when it can.
        leading: set while this process is in charge.
        events: how many it has taken in.
    """

    def __init__(self, redis: Redis, pool: Pool, keys: Keys, texts: Texts, *, batch: int) -> None:
        """``redis`` must allow answers to take longer than ``BLOCK_MS``; ``batch`` is events in one transaction."""
        self._redis = redis
        self._pool = pool
        self._keys = keys
        self._texts = texts
        self._batch = batch
        self._pause = _FIRST_PAUSE
        self.problem = ""
        self.leading = asyncio.Event()
        self.events = 0

    async def run(self) -> None:
        """Take events in until cancelled; whatever is away is waited for."""
        while True:
            try:
                async with self._in_charge() as connection:
                    await self._take_in(connection)
            except CursorMovedError:
                _log.info("insights.cursor_moved", todo="nothing: they were taken in already")
            except RedisError as error:
                await self._wait("Redis", error)
            except (asyncpg.PostgresError, *AWAY) as error:
                await self._wait("PostgreSQL", error)

    @asynccontextmanager
    async def _in_charge(self) -> AsyncIterator[Any]:
        """Wait for the lock that one process holds; the connection that holds it, and on which all is written.

        The lock spares two processes each other's work. That each event counts once does not rest on it.
        """
        async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK, timeout=ANSWER_SECONDS):
                self._well()
                await asyncio.sleep(_STANDBY_SECONDS)
            await connection.fetch(_LEASE, f"{LEASE_SECONDS}s", timeout=ANSWER_SECONDS)
            self.leading.set()
            try:
                yield connection
            finally:
                self.leading.clear()

    async def _take_in(self, connection: Any) -> None:
        after = await cursor(connection)
        await self._mark(after)
        while True:
            entries = await self._read(after)
            if entries:
                after = await self._write(connection, after, entries)
                await self._mark(after)
            elif await cursor(connection) != after:  # also asks whether PostgreSQL is still there
                raise CursorMovedError(f"the cursor is no longer at {after}")
            self._well()
            if 0 < len(entries) < self._batch:
                await asyncio.sleep(_LINGER_SECONDS)

    async def _read(self, after: str) -> list[Entry]:
        found: Any = await self._redis.xread({self._keys.events: after}, count=self._batch, block=BLOCK_MS)
        return found[0][1] if found else []

    async def _write(self, connection: Any, after: str, entries: list[Entry]) -> str:
        """Write some events with the texts they point at; the cursor then."""
        batch = fold(entries, await self._kept(connection, entries))
        await self._texts.fill(batch.rows)
        await write(connection, after, batch)
        self.events += batch.events
        if batch.skipped:
            _log.error("insights.events_skipped", events=batch.skipped[:10], count=len(batch.skipped))
        return batch.last

    async def _kept(self, connection: Any, entries: list[Entry]) -> set[str]:
        """The events that Redis has lost and these tables have not: what was charged again for them is not counted."""
        lost = [fields[LOST].decode() for _, fields in entries if LOST in fields]
        return await rows_of(connection, lost) if lost else set()

    async def _mark(self, after: str) -> None:
        """Tell the consumer group how far the events are taken in; it is made where there is none."""
        try:
            await self._redis.xgroup_setid(self._keys.events, GROUP, after)
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "requires the key to exist" not in str(error):
                raise
            await self._redis.xgroup_create(self._keys.events, GROUP, after, mkstream=True)

    def _well(self) -> None:
        if self.problem:
            _log.info("insights.goes_on")
        self.problem = ""
        self._pause = _FIRST_PAUSE

    async def _wait(self, what: str, error: BaseException) -> None:
        """Say once that something is away, and wait, longer each time. The text of an error may hold values."""
        if not self.problem:
            _log.warning("insights.waits", what=what, error=type(error).__name__)
        self.problem = f"{what} is away: {type(error).__name__}"
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
