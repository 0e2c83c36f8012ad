"""``/insights/stats``: what the last hours brought, per model and in all, out of the hourly roll-ups."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway_insights.database import Pool, transaction
from gateway_insights.queries import statement
from gateway_insights.sketch import Sketch
from gateway_insights.sketch_sum import merged
from model_gateway.money import usd_number

_COUNTS: Final = (
    "requests",
    "errors",
    "cancelled",
    "cache_hits",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_nano",
)
_TIMES: Final = {"latency": "latency_ms", "ttft": "ttft_ms"}
"""Sketches by column, and what their percentiles are called in the answer."""

_PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_CHUNK: Final = 500
"""Roll-ups read and merged at once: more do not fit into a cache, and a year of many models not into memory."""


class Totals:
    """Sums of roll-ups. Percentiles come from merged sketches: a mean of percentiles is none."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._sketches = {column: Sketch() for column in _TIMES}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Some roll-ups more."""
        for name in _COUNTS:
            self._counts[name] += sum(row[name] for row in rows)
        for column, sketch in self._sketches.items():
            sketch.merge(merged([row[column] for row in rows if row[column] is not None]))

    def merge(self, other: Totals) -> None:
        """Another's sums too."""
        for name, count in other._counts.items():
            self._counts[name] += count
        for column, sketch in self._sketches.items():
            sketch.merge(other._sketches[column])

    def answer(self) -> dict[str, Any]:
        """As it stands in the answer; dollars are for people, ``cost_nano`` is exact."""
        counts, requests = self._counts, self._counts["requests"]
        return {
            **counts,
            "cost_usd": usd_number(counts["cost_nano"]),
            "error_rate": _rate(counts["errors"], requests),
            "cache_hit_rate": _rate(counts["cache_hits"], requests),
            **{name: _percentiles(self._sketches[column]) for column, name in _TIMES.items()},
        }


async def stats(pool: Pool, hours: int, now: datetime) -> dict[str, Any]:
    """The answer of ``/insights/stats``.

    Args:
        pool: the database.
        hours: how far back; the hour in which that begins counts whole.
        now: the time, in UTC.
    """
    since = (now - timedelta(hours=hours)).replace(minute=0, second=0, microsecond=0)
    by_model: dict[str, Totals] = {}
    async with transaction(pool) as connection:
        cursor = await connection.cursor(statement("hourly"), since, now)
        while rows := await cursor.fetch(_CHUNK):
            await asyncio.to_thread(_add, by_model, rows)
    return {
        "hours": hours,
        "from": since.isoformat(timespec="seconds"),
        "to": now.isoformat(timespec="seconds"),
        "total": await asyncio.to_thread(_total, by_model.values()),
        "by_model": {model: totals.answer() for model, totals in by_model.items()},
    }


def _add(by_model: dict[str, Totals], rows: Iterable[Mapping[str, Any]]) -> None:
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["model"]].append(row)
    for model, group in grouped.items():
        by_model.setdefault(model, Totals()).add(group)


def _total(parts: Iterable[Totals]) -> dict[str, Any]:
    total = Totals()
    for part in parts:
        total.merge(part)
    return total.answer()


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _percentiles(sketch: Sketch) -> dict[str, float | None]:
    """By name, in milliseconds; null where nothing was measured."""
    found = {name: sketch.quantile(q) for name, q in _PERCENTILES.items()}
    return {name: None if value is None else round(value, 1) for name, value in found.items()}
