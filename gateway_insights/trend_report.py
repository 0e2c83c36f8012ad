"""``/insights/trends``: cost by day and model, and what the days tell."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from gateway_insights.database import Pool, transaction
from gateway_insights.queries import statement
from gateway_insights.trends import LOOKBACK_DAYS, Forecast, Series, days_between
from model_gateway.money import usd_number

_COUNTS: Final = ("requests", "input_tokens", "output_tokens", "cost_nano")

Days = dict[date, dict[str, int]]
"""Counts by day."""


async def trends(pool: Pool, days: int, now: datetime) -> dict[str, Any]:
    """The answer of ``/insights/trends``.

    Args:
        pool: the database.
        days: how many, today included.
        now: the time, in UTC.
    """
    today = now.date()
    first = today - timedelta(days=days - 1)
    since = min(first - timedelta(days=LOOKBACK_DAYS), today.replace(day=1))
    async with transaction(pool) as connection:
        rows = await connection.fetch(statement("daily"), since, today)
    return await asyncio.to_thread(_report, rows, days_between(first, today), now)


def _report(rows: Sequence[Mapping[str, Any]], days: list[date], now: datetime) -> dict[str, Any]:
    first_known = rows[0]["first_day"] if rows else now.date()
    by_model, whole = _by_model(rows)
    shown = [day for day in days if day >= first_known]
    series = {name: Series(_costs(counts), first_known, now.date()) for name, counts in by_model.items()}
    total = Series(_costs(whole), first_known, now.date())
    kept = {name: counts for name, counts in by_model.items() if any(day in counts for day in shown)}
    return {
        "days": len(days),
        "from": days[0].isoformat(),
        "to": days[-1].isoformat(),
        "total": _sums(whole[day] for day in shown if day in whole),
        "by_day": _by_day(total, whole, shown, now.date()),
        "by_model": {name: _by_day(series[name], counts, shown, now.date()) for name, counts in kept.items()},
        "forecast": {
            **_forecast(total.forecast(now)),
            "by_model": {name: _forecast(of_model.forecast(now)) for name, of_model in series.items()},
        },
        "outliers": _outliers([(None, total), *series.items()], shown),
    }


def _by_model(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Days], Days]:
    """Counts by day of each model, and of all."""
    by_model: dict[str, Days] = defaultdict(dict)
    whole: Days = {}
    for row in rows:
        counts = {name: row[name] for name in _COUNTS}
        by_model[row["model"]][row["day"]] = counts
        whole[row["day"]] = _summed((whole.get(row["day"], {}), counts))
    return by_model, whole


def _by_day(series: Series, counts: Days, shown: list[date], today: date) -> list[dict[str, Any]]:
    """The days, in order; days before a first request are left out, later ones without any stand with zeros."""
    begin = min(counts, default=today)
    return [
        {
            "day": day.isoformat(),
            "complete": day < today,
            **_sums([counts.get(day, {})]),
            "change_nano": series.change(day),
            "change_percent": series.change_percent(day),
            "mean_7d_nano": series.week_mean(day),
            "mean_7d_usd": usd_number(series.week_mean(day)),
        }
        for day in shown
        if day >= begin
    ]


def _outliers(series: Sequence[tuple[str | None, Series]], shown: list[date]) -> list[dict[str, Any]]:
    """The days that stand out, in order; a model of null is all of them together."""
    found = []
    for day in shown:
        for model, costs in series:
            outlier = costs.outlier(day)
            if outlier is not None:
                found.append(
                    {
                        "day": day.isoformat(),
                        "model": model,
                        "cost_nano": costs.cost(day),
                        "cost_usd": usd_number(costs.cost(day)),
                        "usual_nano": outlier.usual_nano,
                        "usual_usd": usd_number(outlier.usual_nano),
                        "score": outlier.score,
                    }
                )
    return found


def _forecast(forecast: Forecast) -> dict[str, Any]:
    return {
        "month": forecast.month,
        "spent_nano": forecast.spent_nano,
        "spent_usd": usd_number(forecast.spent_nano),
        "forecast_nano": forecast.forecast_nano,
        "forecast_usd": usd_number(forecast.forecast_nano),
        "basis_days": forecast.basis_days,
    }


def _costs(days: Days) -> dict[date, int]:
    return {day: counts["cost_nano"] for day, counts in days.items()}


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    sums = dict.fromkeys(_COUNTS, 0)
    for part in parts:
        for name, count in part.items():
            sums[name] += count
    return sums


def _sums(parts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    sums = _summed(parts)
    return {**sums, "cost_usd": usd_number(sums["cost_nano"])}
