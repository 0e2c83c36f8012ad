"""What days of cost tell, and the answer of ``/insights/trends``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from gateway_insights.trend_report import trends
from gateway_insights.trends import Forecast, Series

TODAY = date(2026, 3, 18)
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
USD = 1_000_000_000


def series(*costs: int, today: date = TODAY) -> Series:
    """Days that end with today."""
    first = today - timedelta(days=len(costs) - 1)
    return Series({first + timedelta(days=index): cost for index, cost in enumerate(costs)}, first, today)


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def test_the_change_is_against_the_day_before_in_nano_dollars_and_percent():
    days = series(8, 10, 5)
    assert (days.change(TODAY), days.change_percent(TODAY)) == (-5, -50.0)
    assert (days.change(ago(1)), days.change_percent(ago(1))) == (2, 25.0)


def test_the_first_day_that_is_known_has_no_change():
    assert (series(8, 10).change(ago(1)), series(8, 10).change_percent(ago(1))) == (None, None)


def test_after_a_day_that_cost_nothing_the_change_has_no_percentage():
    assert (series(0, 10).change(TODAY), series(0, 10).change_percent(TODAY)) == (10, None)


def test_the_weeks_mean_counts_days_without_requests_and_no_days_before_the_first():
    first = ago(9)
    days = Series({first: 70, first + timedelta(days=6): 7, TODAY: 14}, first, TODAY)
    assert days.week_mean(first) == 70
    assert days.week_mean(first + timedelta(days=6)) == 11
    assert days.week_mean(TODAY) == 3


def test_the_week_before_a_mean_slides():
    assert [series(*[7] * 7, *[14] * 7).week_mean(ago(back)) for back in (7, 6, 3, 0)] == [7, 8, 11, 14]


def test_the_month_ends_with_what_is_spent_and_the_last_weeks_mean_for_the_time_left():
    days = series(*[5 * USD] * 10, *[10 * USD] * 7, 4 * USD)
    spent = 10 * 5 * USD + 7 * 10 * USD + 4 * USD
    assert days.forecast(NOON) == Forecast("2026-03", spent, spent + 135 * USD, 7)


def test_only_the_month_itself_is_spent_in_it():
    days = series(*[USD] * 30, today=date(2026, 3, 2))
    forecast = days.forecast(datetime(2026, 3, 2, 0, tzinfo=UTC))
    assert (forecast.spent_nano, forecast.forecast_nano) == (2 * USD, 2 * USD + 30 * USD)


def test_on_the_last_day_of_a_leap_february_only_the_rest_of_the_day_is_left():
    days = series(*[24 * USD] * 3, 0, today=date(2028, 2, 29))
    forecast = days.forecast(datetime(2028, 2, 29, 23, tzinfo=UTC))
    assert (forecast.forecast_nano, forecast.basis_days) == (3 * 24 * USD + USD, 3)


def test_on_the_first_day_todays_pace_is_the_forecast():
    forecast = series(USD).forecast(datetime(2026, 3, 18, 6, tzinfo=UTC))
    assert (forecast.forecast_nano, forecast.basis_days) == (USD + round(4 * USD * 13.75), 0)


def test_the_first_minutes_of_all_are_taken_for_an_hours():
    assert series(USD).forecast(datetime(2026, 3, 18, tzinfo=UTC)).forecast_nano == USD + 24 * 14 * USD


def test_the_forecasts_of_models_add_up_to_that_of_all():
    one, two = series(*range(0, 180, 10)), series(*range(7, 127, 7)[:18])
    both = series(*(a + b for a, b in zip(range(0, 180, 10), range(7, 127, 7), strict=False)))
    apart = one.forecast(NOON).forecast_nano + two.forecast(NOON).forecast_nano
    assert abs(both.forecast(NOON).forecast_nano - apart) <= 1


def test_a_day_far_from_the_usual_stands_out_above_and_below():
    even = [100, 104, 97, 101, 99, 103, 96, 100, 98, 102]
    above, below = series(*even, 200, 0).outlier(ago(1)), series(*even, 20, 0).outlier(ago(1))
    assert above is not None and above.usual_nano == 100 and above.score is not None and above.score > 3.5
    assert below is not None and below.score is not None and below.score < -3.5
    assert series(*even, 110, 0).outlier(ago(1)) is None


def test_however_even_the_days_were_a_third_more_does_not_stand_out():
    assert series(*[90] * 10, 120, 0).outlier(ago(1)) is None
    assert series(*[90] * 10, 123, 0).outlier(ago(1)) is not None


def test_days_that_swing_let_a_day_swing():
    assert series(50, 150, 60, 140, 30, 170, 100, 80, 250, 0).outlier(ago(1)) is None


def test_a_quiet_weekend_is_compared_with_weekends():
    weeks = [100 if (ago(back)).weekday() < 5 else 10 for back in range(35, -1, -1)]
    days = series(*weeks)
    assert [day for back in range(20) if days.outlier(day := ago(back))] == []
    saturday = next(index for index in range(29, 36) if ago(35 - index).weekday() == 5)
    weeks[saturday] = 100
    assert series(*weeks).outlier(ago(35 - saturday)) is not None


def test_an_odd_day_does_not_make_the_days_after_it_stand_out():
    days = series(*[100] * 20, 2_000, *[100] * 10)
    assert [day for back in range(31) if days.outlier(day := ago(back))] == [ago(10)]


def test_less_than_a_week_tells_of_no_odd_day():
    assert series(*[100] * 6, 5_000).outlier(TODAY) is None
    assert series(*[100] * 7, 5_000).outlier(TODAY) is not None


def test_after_days_that_cost_nothing_any_cost_stands_out_without_a_score():
    found = series(*[0] * 8, 1).outlier(TODAY)
    assert found is not None and (found.usual_nano, found.score) == (0, None)


def test_a_day_that_has_not_ended_stands_out_only_above():
    assert series(*[100] * 10, 0).outlier(TODAY) is None
    assert series(*[100] * 10, 0, 100).outlier(ago(1)) is not None


async def record(pool, day: date, model: str, cost_nano: int, requests: int = 1) -> None:
    await pool.execute(
        "INSERT INTO model_cost_trends VALUES ($1, $2, $3, $4, $5, $6)",
        *(day, model, requests, cost_nano, 10 * requests, 2 * requests),
    )


async def test_trends_tell_the_cost_of_each_day_in_all_and_by_model(pool):
    await record(pool, ago(1), "a", 100, requests=2)
    await record(pool, ago(1), "b", 50)
    await record(pool, TODAY, "a", 300)
    answer = await trends(pool, 7, NOON)
    assert (answer["days"], answer["from"], answer["to"]) == (7, "2026-03-12", "2026-03-18")
    assert answer["total"] == {
        "requests": 4,
        "input_tokens": 40,
        "output_tokens": 8,
        "cost_nano": 450,
        "cost_usd": 4.5e-07,
    }
    yesterday, today = answer["by_day"]
    assert (yesterday["day"], yesterday["cost_nano"], yesterday["requests"], yesterday["complete"]) == (
        *("2026-03-17", 150, 3),
        True,
    )
    assert (today["cost_nano"], today["change_nano"], today["change_percent"], today["mean_7d_nano"]) == (
        *(300, 150, 100.0),
        225,
    )
    assert today["complete"] is False
    assert [row["cost_nano"] for row in answer["by_model"]["b"]] == [50, 0]


async def test_trends_show_the_days_asked_for_and_rest_on_those_before(pool):
    for back in range(20):
        await record(pool, ago(back), "a", 700 if back == 1 else 7)
    await record(pool, ago(15), "gone", 5)
    answer = await trends(pool, 2, NOON)
    assert [row["day"] for row in answer["by_day"]] == ["2026-03-17", "2026-03-18"]
    assert answer["by_day"][0]["mean_7d_nano"] == 106
    assert list(answer["by_model"]) == ["a"]
    assert {(row["day"], row["model"]) for row in answer["outliers"]} == {("2026-03-17", None), ("2026-03-17", "a")}
    assert answer["forecast"]["month"] == "2026-03"
    assert answer["forecast"]["spent_nano"] == 17 * 7 + 700 + 5
    assert answer["forecast"]["by_model"]["gone"]["spent_nano"] == 5


async def test_a_forecast_knows_the_whole_month_however_few_days_are_asked_for(pool):
    end = datetime(2026, 3, 31, 12, tzinfo=UTC)
    for day in range(1, 32):
        await record(pool, date(2026, 3, day), "a", 10)
    assert (await trends(pool, 1, end))["forecast"]["spent_nano"] == 310


async def test_trends_of_nothing_are_a_day_that_cost_nothing(pool):
    answer = await trends(pool, 7, NOON)
    assert [(row["day"], row["cost_nano"], row["change_nano"]) for row in answer["by_day"]] == [("2026-03-18", 0, None)]
    assert (answer["by_model"], answer["outliers"]) == ({}, [])
    assert answer["forecast"]["forecast_nano"] == 0


@pytest.mark.parametrize("days", [1, 3_650])
async def test_the_shortest_and_the_longest_span_are_answered(pool, days):
    await record(pool, TODAY - timedelta(days=3_649), "a", 9_000_000 * USD)
    await record(pool, TODAY, "a", 1)
    answer = await trends(pool, days, NOON)
    assert len(answer["by_day"]) == days
    assert answer["by_day"][-1]["cost_nano"] == 1
