"""The published metrics, counted in Redis inside the scripts: exact over all workers and restarts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, cast

from redis.asyncio import Redis

from model_gateway.streams import Keys

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the latency histogram, in seconds."""


def bucket_of(latency_ms: int) -> str:
    """The histogram's bucket for a latency: its upper bound, or ``+Inf``."""
    return next((f"{bound:g}" for bound in BUCKETS if latency_ms <= bound * 1000), "+Inf")


@dataclass(slots=True)
class Histogram:
    """A cumulative histogram, as Prometheus wants it.

    Attributes:
        buckets: upper bound in seconds and how many were at most that; without ``+Inf``.
        count: all of them.
        sum_seconds: their sum.
    """

    buckets: list[tuple[float, int]]
    count: int
    sum_seconds: float


@dataclass(slots=True)
class Counters:
    """A reading of all counters."""

    requests: dict[str, int] = field(default_factory=dict)
    latency: dict[str, Histogram] = field(default_factory=dict)
    cost_usd_nano: int = 0
    budget_exceeded: int = 0


async def read_counters(redis: Redis, keys: Keys) -> Counters:
    """The counters as they stand."""
    flat = cast("dict[bytes, bytes]", await cast("Any", redis.hgetall(keys.counters)))
    return _counters({name.decode(): int(value) for name, value in flat.items()})


def _counters(values: dict[str, int]) -> Counters:
    found = Counters(cost_usd_nano=values.get("cost_nano", 0), budget_exceeded=values.get("budget_exceeded", 0))
    buckets: dict[str, dict[str, int]] = defaultdict(dict)
    for name, value in values.items():
        what, _, rest = name.partition("|")
        if what == "requests":
            found.requests[rest] = value
        elif what == "latency":
            bound, _, model = rest.partition("|")
            buckets[model][bound] = value
    for model, counts in buckets.items():
        found.latency[model] = _histogram(counts, values.get(f"latency_ms|{model}", 0))
    return found


def _histogram(counts: dict[str, int], sum_ms: int) -> Histogram:
    cumulative, buckets = 0, []
    for bound in BUCKETS:
        cumulative += counts.get(f"{bound:g}", 0)
        buckets.append((bound, cumulative))
    return Histogram(buckets, cumulative + counts.get("+Inf", 0), sum_ms / 1000)
