"""A batch of events into the tables, in one transaction with the place in the stream up to which it goes.

The cursor decides: it moves from where the batch was read to the batch's last event, or nothing is written. So each
event counts once, whoever reads it how often: after a crash, after a commit whose confirmation was lost, and with
another process that believes itself in charge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from gateway_insights.batch import Batch, Hour
from gateway_insights.rows import COLUMNS, Row
from gateway_insights.sketch import Sketch

ANSWER_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 30.0
"""For the cursor, and for one statement of the transaction."""

_CURSOR: Final = "SELECT event_id FROM insights_cursor"
_MOVE: Final = "UPDATE insights_cursor SET event_id = $2, events = events + $3 WHERE event_id = $1 RETURNING true"

_FIND_OPEN: Final = """
    SELECT principal, request_id, row_time, row_event_id FROM insights_open
    JOIN unnest($1::text[], $2::text[]) AS wanted (principal, request_id) USING (principal, request_id)
"""
_OPEN: Final = """
    INSERT INTO insights_open (principal, request_id, row_time, row_event_id) VALUES ($1, $2, $3, $4)
"""
_CLOSE: Final = "DELETE FROM insights_open WHERE principal = $1 AND request_id = $2"

_KNOWN: Final = """
    SELECT event_id FROM model_insights
    WHERE event_id = ANY($1::text[]) AND time > (SELECT max(time) FROM model_insights) - interval '2 days'
"""
_NAMES: Final = ("time", "event_id")
_KEPT: Final = ("request_text", "reply_text", "text_hash")


def _completion() -> str:
    """The later charge's columns hold, costs add up, and a text that is gone by now stays."""
    sets = []
    for number, name in enumerate(COLUMNS, start=1):
        if name == "cost_nano":
            sets.append(f"cost_nano = cost_nano + ${number}")
        elif name == "estimated":
            sets.append(f"estimated = estimated OR ${number}")
        elif name in _KEPT:
            sets.append(f"{name} = COALESCE(${number}, {name})")
        elif name not in _NAMES:
            sets.append(f"{name} = ${number}")
    return f"UPDATE model_insights SET {', '.join(sets)} WHERE time = $1 AND event_id = $2"  # noqa: S608 - constants


_COMPLETE: Final = _completion()

_SUMS: Final = tuple(name for name in Hour.__slots__ if name not in ("latency", "ttft"))
_SKETCHES: Final = """
    SELECT hour, model, provider, latency, ttft FROM model_stats_hourly
    JOIN unnest($1::timestamptz[], $2::text[], $3::text[]) AS wanted (hour, model, provider)
    USING (hour, model, provider)
"""
_HOURS: Final = f"""
    INSERT INTO model_stats_hourly (hour, model, provider, {", ".join(_SUMS)}, latency, ttft)
    VALUES ({", ".join(f"${number}" for number in range(1, len(_SUMS) + 6))})
    ON CONFLICT (hour, model, provider) DO UPDATE SET
        {", ".join(f"{name} = model_stats_hourly.{name} + excluded.{name}" for name in _SUMS)},
        latency = excluded.latency, ttft = excluded.ttft
"""  # noqa: S608 - constants
_DAYS: Final = """
    INSERT INTO model_cost_trends AS known (day, model, requests, cost_nano, input_tokens, output_tokens)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (day, model) DO UPDATE SET requests = known.requests + excluded.requests,
        cost_nano = known.cost_nano + excluded.cost_nano,
        input_tokens = known.input_tokens + excluded.input_tokens,
        output_tokens = known.output_tokens + excluded.output_tokens
"""
_SETTLED: Final = """
    INSERT INTO insights_settled AS known (scope, window_day, settled_nano) VALUES ($1, $2, $3)
    ON CONFLICT (scope, window_day) DO UPDATE SET
        settled_nano = CASE WHEN $4 THEN excluded.settled_nano ELSE known.settled_nano + excluded.settled_nano END
"""


class CursorMovedError(Exception):
    """The events were taken in already, by another process or by a commit whose confirmation was lost."""


async def cursor(connection: Any) -> str:
    """The last event that was taken in; ``0-0`` before the first."""
    found: str = await connection.fetchval(_CURSOR, timeout=ANSWER_SECONDS)
    return found


async def rows_of(connection: Any, event_ids: Sequence[str]) -> set[str]:
    """Which of some events made a row that is there."""
    found = await connection.fetch(_KNOWN, list(event_ids), timeout=WRITE_SECONDS)
    return {row["event_id"] for row in found}


async def write(connection: Any, after: str, batch: Batch) -> None:
    """Write a batch that was read behind the event ``after``.

    Args:
        connection: in no transaction yet.
        after: the event before the batch's first.
        batch: of at least one event.

    Raises:
        CursorMovedError: the cursor is elsewhere by now; nothing was written.
        asyncpg.PostgresError, AWAY: nothing was written, or all of it where the commit's confirmation was lost.
    """
    async with connection.transaction():
        # First of all: it locks the row, so that whoever else is at it waits here and then finds it moved.
        if not await connection.fetchval(_MOVE, after, batch.last, batch.events, timeout=WRITE_SECONDS):
            raise CursorMovedError(f"the cursor is no longer at {after}")
        await _write_rows(connection, batch.rows)
        await _write_hours(connection, batch)
        await _write_days(connection, batch)
        await _many(connection, _SETTLED, [(*key, change.nano, change.reset) for key, change in batch.settled.items()])


async def _write_rows(connection: Any, rows: Sequence[Row]) -> None:
    """New rows, and charges of requests whose row was written before."""
    known = await _open_rows(connection, rows)
    new: list[Row] = []
    completions: list[tuple[Any, ...]] = []
    closed: list[tuple[str, str]] = []
    for row in rows:
        place = None if row.is_restored else known.get(row.key)
        if place is None:
            new.append(row)
            continue
        completions.append((*place, *row.values()[len(place) :]))
        if not row.is_open:
            closed.append(row.key)
            del known[row.key]
    if new:
        await connection.copy_records_to_table(
            "model_insights", records=[row.values() for row in new], columns=COLUMNS, timeout=WRITE_SECONDS
        )
    await _many(connection, _COMPLETE, completions)
    await _many(connection, _CLOSE, closed)
    await _many(connection, _OPEN, [(*row.key, row.time, row.event_id) for row in new if row.is_open])


async def _open_rows(connection: Any, rows: Sequence[Row]) -> dict[tuple[str, str], tuple[datetime, str]]:
    """Where the rows of requests are that were charged before and have not ended."""
    if not rows:
        return {}
    principals, ids = zip(*(row.key for row in rows), strict=True)
    found = await connection.fetch(_FIND_OPEN, principals, ids, timeout=WRITE_SECONDS)
    return {(row["principal"], row["request_id"]): (row["row_time"], row["row_event_id"]) for row in found}


async def _write_hours(connection: Any, batch: Batch) -> None:
    """Add to the hours; their sketches are merged here, which is safe as whoever else writes waits for the cursor."""
    if not batch.hours:
        return
    times, models, providers = zip(*batch.hours, strict=True)
    found = await connection.fetch(_SKETCHES, times, models, providers, timeout=WRITE_SECONDS)
    stored = {(row["hour"], row["model"], row["provider"]): (row["latency"], row["ttft"]) for row in found}
    values = [(*key, *_hour_values(batch.hours[key], *stored.get(key, (None, None)))) for key in sorted(batch.hours)]
    await _many(connection, _HOURS, values)


async def _write_days(connection: Any, batch: Batch) -> None:
    days = [
        (*key, day.requests, day.cost_nano, day.input_tokens, day.output_tokens)
        for key, day in sorted(batch.days.items())
    ]
    await _many(connection, _DAYS, days)


def _hour_values(hour: Hour, latency: bytes | None, ttft: bytes | None) -> tuple[Any, ...]:
    """Its sums, to be added, and its sketches, merged with those that are stored."""
    sums = (getattr(hour, name) for name in _SUMS)
    return (*sums, _merged(hour.latency, latency), _merged(hour.ttft, ttft))


def _merged(sketch: Sketch, stored: bytes | None) -> bytes:
    found = Sketch.from_bytes(stored) if stored else Sketch()
    found.merge(sketch)
    return found.to_bytes()


async def _many(connection: Any, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
    """A statement for each of some values, in one round trip; none where there are none."""
    rows = list(values)
    if rows:
        await connection.executemany(statement, rows, timeout=WRITE_SECONDS)
