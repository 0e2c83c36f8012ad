"""What the cost of days tells: the change from the day before, the mean of a week, the end of the month, odd days.

All of it is made of whole nano-dollars by day; a day without a request costs 0 once the first one is known. The
day that has not ended is marked: its cost is compared as it stands.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from statistics import median
from typing import Final

WEEK: Final = 7

LOOKBACK_DAYS: Final = 56
"""Days before the first one asked for that the figures rest on: eight of each weekday."""

_USUAL_DAYS: Final = 28
_FEWEST_DAYS: Final = 7
"""Days to compare with, and how many must be known before a day can stand out."""

_FEWEST_WEEKDAYS: Final = 2
"""Days of the same weekday that are better to compare with than all: a quiet Sunday is no news."""

_SPREADS: Final = 3.5
"""Robust standard deviations past which a day stands out (Iglewicz and Hoaglin)."""

_MAD_TO_SIGMA: Final = 1.4826
_LEAST_SPREAD: Final = 0.1
"""Of the usual cost: below a third more or less nothing stands out, however even the days before were."""

_LEAST_DAY_PART: Final = Fraction(1, 24)


@dataclass(frozen=True, slots=True)
class Outlier:
    """A day that stands out.

    Attributes:
        usual_nano: the median of the days that it was compared with.
        score: robust standard deviations from there, negative below; None where all those days cost nothing.
    """

    usual_nano: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a month will have cost at its end.

    Attributes:
        month: ``YYYY-MM``.
        spent_nano: until now.
        forecast_nano: with the days to come, each at the mean of the last complete days.
        basis_days: how many complete days that mean is of, at most seven; 0: today's pace, where there is none yet.
    """

    month: str
    spent_nano: int
    forecast_nano: int
    basis_days: int


class Series:
    """Nano-dollars by day, from the first day that is known.

    Args:
        costs: by day; what is absent was 0.
        first: the first day that is known, of the gateway as a whole, so that means of models add up to the whole's.
        today: the day that has not ended.
    """

    def __init__(self, costs: Mapping[date, int], first: date, today: date) -> None:
        self._costs = costs
        self._first = first
        self._today = today

    def cost(self, day: date) -> int:
        """What a day cost, in nano-dollars."""
        return self._costs.get(day, 0)

    def change(self, day: date) -> int | None:
        """Nano-dollars against the day before; None where that one is not known."""
        before = day - timedelta(days=1)
        return self.cost(day) - self.cost(before) if before >= self._first else None

    def change_percent(self, day: date) -> float | None:
        """The same in percent; None where the day before cost nothing or is not known."""
        change, before = self.change(day), self.cost(day - timedelta(days=1))
        return round(100 * change / before, 2) if change is not None and before else None

    def week_mean(self, day: date) -> int:
        """The mean of seven days up to this one, or of those that are known, in nano-dollars."""
        days = self._known(day - timedelta(days=WEEK - 1), day) or [day]
        return round(Fraction(sum(map(self.cost, days)), len(days)))

    def outlier(self, day: date) -> Outlier | None:
        """Whether a day stands out from those before it; one that has not ended only if it costs too much already."""
        before = self._to_compare(day)
        if not before:
            return None
        usual = median(before)
        away = self.cost(day) - usual
        spread = max(_MAD_TO_SIGMA * median(abs(cost - usual) for cost in before), _LEAST_SPREAD * usual)
        if abs(away) <= _SPREADS * spread or (away < 0 and day >= self._today):
            return None
        return Outlier(round(usual), round(away / spread, 1) if spread else None)

    def forecast(self, now: datetime) -> Forecast:
        """The month that ``now`` lies in, at its end."""
        first = self._today.replace(day=1)
        spent = sum(map(self.cost, self._known(first, self._today)))
        basis = self._known(self._today - timedelta(days=WEEK), self._today - timedelta(days=1))
        if basis:
            rate = Fraction(sum(map(self.cost, basis)), len(basis))
        else:
            rate = self.cost(self._today) / max(_day_part(now), _LEAST_DAY_PART)
        left = monthrange(first.year, first.month)[1] - self._today.day + 1 - _day_part(now)
        return Forecast(first.strftime("%Y-%m"), spent, spent + round(rate * left), len(basis))

    def _known(self, start: date, end: date) -> list[date]:
        """The days from ``start`` to ``end`` that are known, both included."""
        return days_between(max(start, self._first), end)

    def _to_compare(self, day: date) -> Sequence[int]:
        """The days that say what is usual: the same weekdays of eight weeks, else all of four weeks."""
        last = day - timedelta(days=1)
        weekdays = [
            self.cost(same)
            for weeks in range(1, LOOKBACK_DAYS // WEEK + 1)
            if (same := day - timedelta(days=WEEK * weeks)) >= self._first
        ]
        if len(weekdays) >= _FEWEST_WEEKDAYS:
            return weekdays
        days = self._known(day - timedelta(days=_USUAL_DAYS), last)
        return [self.cost(other) for other in days] if len(days) >= _FEWEST_DAYS else []


def days_between(start: date, end: date) -> list[date]:
    """Every day from ``start`` to ``end``, both included."""
    return [start + timedelta(days=index) for index in range((end - start).days + 1)]


def _day_part(now: datetime) -> Fraction:
    """How much of the day is over, exactly."""
    midnight = datetime.combine(now.date(), time(), UTC)
    return Fraction((now - midnight) // timedelta(microseconds=1), 86_400_000_000)
