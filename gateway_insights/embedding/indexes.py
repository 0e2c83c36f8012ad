"""The two indexes that a model's vectors need, made while rows come in, and those of former models dropped.

``CREATE INDEX CONCURRENTLY`` does not work on a partitioned table. So the table gets the index alone, in an instant;
each partition gets its own concurrently; then it is attached. A partition that is made later has it from the start.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import structlog

from gateway_insights.database import Pool
from gateway_insights.embedding.sql import (
    TABLE,
    VectorSpace,
    can_be_indexed,
    index_definition,
    index_name,
    waiting_definition,
    waiting_name,
)

_log = structlog.get_logger(__name__)

_LOCK: Final = 0x6E656172  # "near", in pg_locks
_BUILD_SECONDS: Final = 7_200.0
"""For one partition's index; a million vectors take an hour on a slow core."""
_SETTINGS: Final = (
    "SET lock_timeout = '3s'",  # whoever waits for a lock on the table holds up all that come after
    "SET maintenance_work_mem = '256MB'",
    "SET max_parallel_maintenance_workers = 0",  # they need shared memory, and a container has 64 MB of it
)
_PARTITIONS: Final = """
    SELECT part.relname AS name, part.oid AS part,
           EXISTS (SELECT FROM pg_inherits held JOIN pg_index one ON one.indexrelid = held.inhrelid
                   WHERE held.inhparent = $2::text::regclass AND one.indrelid = part.oid) AS attached
    FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
    WHERE inhparent = $1::text::regclass
"""
_FORMER: Final = """
    SELECT index.relname FROM pg_index JOIN pg_class index ON index.oid = indexrelid
    WHERE indrelid = $1::text::regclass AND index.relname ~ '^insights_(near|waiting)_' AND index.relname <> ALL($2)
"""


async def ensure_indexes(pool: Pool, space: VectorSpace) -> bool:
    """Make what is missing for a model and drop what was for another; safe with several processes.

    Returns:
        Whether all is there; False: another process is at it.

    Raises:
        asyncpg.PostgresError: ``LockNotAvailableError`` where the table was busy; try again later.
    """
    async with pool.acquire() as connection:
        # Not pg_advisory_lock: who waits in it has a snapshot, and the concurrent build would wait for that.
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return False
        try:
            await _ensure(connection, space)
        finally:
            if not connection.is_closed():  # the lock ends with its connection
                await connection.execute("RESET ALL")
                await connection.fetchval("SELECT pg_advisory_unlock($1)", _LOCK)
    return True


async def _ensure(connection: Any, space: VectorSpace) -> None:
    for setting in _SETTINGS:
        await connection.execute(setting)
    wanted = {waiting_name(space): waiting_definition(space)}
    if can_be_indexed(space):
        wanted[index_name(space)] = index_definition(space)
    else:
        _log.warning("insights.vectors_too_long", model=space.name, dimensions=space.dimensions)
    for name, definition in wanted.items():
        await connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {TABLE} {definition}")
        for row in await connection.fetch(_PARTITIONS, TABLE, name):
            if not row["attached"]:
                await _attach(connection, name, row["name"], f"{name}_{row['part']}", definition)
    for row in await connection.fetch(_FORMER, TABLE, list(wanted)):
        await connection.execute(f"DROP INDEX IF EXISTS {row['relname']}")


async def _attach(connection: Any, name: str, partition: str, own: str, definition: str) -> None:
    """Give a partition its own index. What a build left unfinished is of no use and goes first."""
    try:
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {own}")
        await connection.execute(
            f'CREATE INDEX CONCURRENTLY {own} ON "{partition}" {definition}', timeout=_BUILD_SECONDS
        )
        await connection.execute(f"ALTER INDEX {name} ATTACH PARTITION {own}")
    except asyncpg.UndefinedTableError:
        _log.info("insights.partition_gone", partition=partition)  # retention dropped it meanwhile
