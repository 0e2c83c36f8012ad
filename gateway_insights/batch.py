"""What a batch of events adds to the tables: rows and roll-ups, worked out without a database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from gateway_insights.rows import Row, clean, row_of, time_of
from gateway_insights.sketch import Sketch
from model_gateway.events import CHARGING, TERMINAL, decode

RESET: Final = "model.budget.reset"
_TAKEN: Final = frozenset(name.encode() for name in (*CHARGING, RESET))

LOST: Final = b"lost_event"
"""The field that names the event that a charge stands in for."""

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""A stream entry: its id and its fields."""


@dataclass(slots=True)
class Hour:
    """What an hour of a model at a provider adds up to; sketches are of answered requests, in milliseconds."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    cache_hits: int = 0
    latency: Sketch = field(default_factory=Sketch)
    ttft: Sketch = field(default_factory=Sketch)


@dataclass(slots=True)
class Day:
    """What a UTC day of a model adds up to."""

    requests: int = 0
    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Settled:
    """What happens to a budget: ``nano`` is added, after it was set to 0 where ``reset``."""

    nano: int = 0
    reset: bool = False


@dataclass(slots=True)
class Batch:
    """What some events in a row add to the tables.

    Attributes:
        last: the newest event's id; empty where there was none.
        events: how many there were, of every kind.
        rows: by request, in the order of their first charge. Of one request several only where its id was used
            again after its end.
        hours: by (hour, model, provider).
        days: by (day, model).
        settled: by (scope, window).
        skipped: ids of events that can't be read.
    """

    last: str = ""
    events: int = 0
    rows: list[Row] = field(default_factory=list)
    hours: dict[tuple[datetime, str, str], Hour] = field(default_factory=dict)
    days: dict[tuple[date, str], Day] = field(default_factory=dict)
    settled: dict[tuple[str, date], Settled] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _open: dict[tuple[str, str], Row] = field(default_factory=dict)

    def skip(self, entry: str) -> None:
        """Pass over the next event."""
        self.last = entry
        self.events += 1

    def take(self, entry: str, fields: Mapping[bytes, bytes]) -> None:
        """Take the next event in; one that can't be read is skipped as a whole, and named."""
        self.skip(entry)
        if fields.get(b"event_type") not in _TAKEN:
            return
        try:
            self._take(decode(fields, entry))
        except (KeyError, ValueError, TypeError, OverflowError):
            self.skipped.append(entry)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["event_type"] == RESET:
            self.settled[clean(event["scope"]), date.fromisoformat(event["window"])] = Settled(reset=True)
            return
        row = row_of(event)
        scopes = _scopes(event)
        if scopes and row.window_day is None:
            raise ValueError("a charge without its window")
        for scope in scopes:
            self.settled.setdefault((scope, row.window_day), Settled()).nano += row.cost_nano  # type: ignore[arg-type]
        self._count(row, time_of(event), terminal=event["event_type"] in TERMINAL)
        self._add(row)

    def _add(self, row: Row) -> None:
        """One row for a request: its charges until its end go together. One that was lost stands by itself."""
        if row.is_restored:
            self.rows.append(row)
            return
        known = self._open.pop(row.key, None)
        if known is None:
            self.rows.append(row)
            known = row
        else:
            known.continue_with(row)
        if known.is_open:
            self._open[known.key] = known

    def _count(self, row: Row, time: datetime, *, terminal: bool) -> None:
        hour = self.hours.setdefault((time.replace(minute=0, second=0, microsecond=0), row.model, row.provider), Hour())
        day = self.days.setdefault((row.window_day or time.date(), row.model), Day())
        for found in (hour, day):
            found.requests += terminal
            found.cost_nano += row.cost_nano
            found.input_tokens += row.input_tokens
            found.output_tokens += row.output_tokens
        hour.errors += row.status == "failed"
        hour.cancelled += row.status == "cancelled"
        hour.cached_tokens += row.cached_tokens
        hour.reasoning_tokens += row.reasoning_tokens
        hour.cache_hits += row.cached_tokens > 0
        if row.status == "done":
            _note(hour.latency, row.latency_ms)
            _note(hour.ttft, row.ttft_ms)


def fold(entries: Iterable[Entry], kept: Collection[str] = ()) -> Batch:
    """What entries of the event stream, oldest first, add up to.

    Args:
        entries: as read.
        kept: events that were taken in before Redis lost them: they count, what restores them does not.
    """
    batch = Batch()
    for entry, fields in entries:
        if fields.get(LOST, b"").decode() in kept:
            batch.skip(entry.decode())
        else:
            batch.take(entry.decode(), fields)
    return batch


def _scopes(event: Mapping[str, Any]) -> list[str]:
    return [clean(scope) for scope in (event.get("scopes") or "").split(",") if scope]


def _note(sketch: Sketch, value: int | None) -> None:
    if value is not None:
        sketch.add(value)
