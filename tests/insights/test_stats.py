"""The answer of ``/insights/stats``: sums and percentiles over roll-ups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway_insights.sketch import ACCURACY, Sketch
from gateway_insights.stats import stats

NOW = datetime(2026, 3, 18, 12, 34, 56, tzinfo=UTC)
HOUR = NOW.replace(minute=0, second=0)


def sketch(*values: float) -> bytes:
    found = Sketch()
    for value in values:
        found.add(value)
    return found.to_bytes()


async def record(pool, hours_ago: int, model: str, provider: str = "echo", **counts) -> None:
    values = {"hour": HOUR - timedelta(hours=hours_ago), "model": model, "provider": provider, **counts}
    names, marks = ", ".join(values), ", ".join(f"${index + 1}" for index in range(len(values)))
    await pool.execute(f"INSERT INTO model_stats_hourly ({names}) VALUES ({marks})", *values.values())


async def test_counts_are_summed_per_model_and_in_all(pool):
    counts = {
        "requests": 4,
        "errors": 1,
        "cancelled": 1,
        "cache_hits": 2,
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 30,
        "reasoning_tokens": 5,
        "cost_nano": 1_000_000_001,
    }
    await record(pool, 0, "a", **counts)
    await record(pool, 3, "a", "other", **counts)
    await record(pool, 3, "b", **counts)
    answer = await stats(pool, 24, NOW)
    assert (answer["hours"], answer["from"], answer["to"]) == (
        *(24, "2026-03-17T12:00:00+00:00"),
        "2026-03-18T12:34:56+00:00",
    )
    for part, times in ((answer["total"], 3), (answer["by_model"]["a"], 2), (answer["by_model"]["b"], 1)):
        assert {name: part[name] for name in counts} == {name: times * count for name, count in counts.items()}
        assert (part["error_rate"], part["cache_hit_rate"]) == (0.25, 0.5)
        assert part["cost_usd"] == pytest.approx(times * 1.000000001)


async def test_percentiles_are_those_of_all_requests_not_a_mean_of_the_hours(pool):
    quick, slow = [10.0] * 980, [float(value) for value in range(1_000, 1_020)]
    await record(pool, 0, "a", requests=980, latency=sketch(*quick), ttft=sketch(5.0))
    await record(pool, 1, "a", requests=20, latency=sketch(*slow))
    answer = await stats(pool, 24, NOW)
    for part in (answer["total"], answer["by_model"]["a"]):
        assert part["latency_ms"]["p50"] == pytest.approx(10, rel=ACCURACY)
        assert part["latency_ms"]["p95"] == pytest.approx(10, rel=ACCURACY)
        assert part["latency_ms"]["p99"] == pytest.approx(1_009, rel=2 * ACCURACY)
        assert part["ttft_ms"]["p99"] == pytest.approx(5, rel=ACCURACY)


async def test_the_hour_in_which_the_span_begins_counts_whole_and_the_one_before_not_at_all(pool):
    await record(pool, 2, "a", requests=1)
    await record(pool, 3, "a", requests=10)
    assert (await stats(pool, 2, NOW))["total"]["requests"] == 1
    assert (await stats(pool, 3, NOW))["total"]["requests"] == 11


async def test_stats_of_nothing_are_zeros_and_nulls(pool):
    answer = await stats(pool, 1, NOW)
    assert answer["by_model"] == {}
    total = answer["total"]
    assert (total["requests"], total["cost_nano"], total["cost_usd"]) == (0, 0, 0)
    assert (total["error_rate"], total["cache_hit_rate"]) == (None, None)
    assert total["latency_ms"] == total["ttft_ms"] == {"p50": None, "p95": None, "p99": None}


async def test_more_roll_ups_than_are_read_at_once_all_count(pool):
    rows = [(HOUR - timedelta(hours=hours), "a", f"p{hours % 2}", 1) for hours in range(2_503)]
    await pool.executemany(
        "INSERT INTO model_stats_hourly (hour, model, provider, requests) VALUES ($1, $2, $3, $4)", rows
    )
    assert (await stats(pool, 8_760, NOW))["total"]["requests"] == 2_503
