"""How long rows are kept: a partition for each UTC day, dropped whole when its day is too long ago.

Roll-ups stay: they name no principal and hold no text.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

from gateway_insights.database import Pool, transaction

_log = structlog.get_logger(__name__)

LOCK_MS: Final = 5_000
"""The longest wait for a lock, during which whoever came later waits too."""
_DELETE_SECONDS: Final = 600.0


async def ensure(pool: Pool, now: datetime, days_ahead: int = 2, *, lock_ms: int = LOCK_MS) -> None:
    """Make the partitions of today and the days to come; rows of theirs that are there already move in.

    Where a query holds the tables for longer than ``lock_ms``, the rest is left for the next time: until then
    rows go into the default partition.
    """
    today = now.astimezone(UTC).date()
    for ahead in range(days_ahead + 1):
        day = today + timedelta(days=ahead)
        if not await _unless_busy(pool, lock_ms, "SELECT insights_add_day($1)", day):
            return


async def drop_old(pool: Pool, now: datetime, retention_days: int, *, lock_ms: int = LOCK_MS) -> list[str]:
    """Drop the days of which every row is older than ``retention_days``.

    A row goes at the latest a day after its time has come. What lies in the default partition is deleted.

    Returns:
        The names of the partitions that are gone.
    """
    oldest = now.astimezone(UTC) - timedelta(days=retention_days)
    past = await pool.fetch("SELECT partition FROM insights_days WHERE day < $1 ORDER BY day", oldest.date())
    dropped: list[str] = []
    for (name,) in past:
        if not await _unless_busy(pool, lock_ms, f"DROP TABLE IF EXISTS {name}"):
            break
        dropped.append(name)
    async with transaction(pool) as connection:
        await connection.execute("DELETE FROM model_insights_default WHERE time < $1", oldest, timeout=_DELETE_SECONDS)
        await connection.execute("DELETE FROM insights_open WHERE row_time < $1", oldest)
    return dropped


async def forget_principal(pool: Pool, principal: str) -> int:
    """Delete every row of a principal, with its texts and vectors; how many there were.

    What the event stream still holds of it is read afterwards: whoever wants it gone asks again.
    """
    async with transaction(pool) as connection:
        await connection.execute("DELETE FROM insights_open WHERE principal = $1", principal)
        done = await connection.execute(
            "DELETE FROM model_insights WHERE principal = $1", principal, timeout=_DELETE_SECONDS
        )
    return int(done.removeprefix("DELETE "))


async def _unless_busy(pool: Pool, lock_ms: int, statement: str, *values: Any) -> bool:
    """Carry a statement out, unless others hold its tables for too long; whether it was."""
    try:
        async with transaction(pool) as connection:
            await connection.execute("SELECT set_config('lock_timeout', $1, true)", str(lock_ms))
            await connection.execute(statement, *values)
    except asyncpg.LockNotAvailableError:
        _log.warning("insights.tables_busy", waited_ms=lock_ms)
        return False
    return True
