"""Events folded into rows and roll-ups."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from gateway_insights.batch import fold

TS = 1_750_000_000_000
HOUR = datetime(2025, 6, 15, 15, tzinfo=UTC)
DAY = date(2025, 6, 15)


def event(kind, number, **fields):
    known = {
        "event_type": kind,
        "ts": TS,
        "request_id": "r1",
        "principal": "admin",
        "model": "m1",
        "provider": "p",
        "attempt": 1,
        "window": "2025-06-15",
        "scopes": "gateway",
        "usd_nano": 0,
        **fields,
    }
    known = {name: value for name, value in known.items() if value is not None}
    return b"%d-0" % number, {name.encode(): str(value).encode() for name, value in known.items()}


def done(number, **fields):
    return event("model.request.complete", number, **{"latency_ms": 40, **fields})


def test_a_request_that_ends_is_a_row_with_all_that_its_event_tells():
    tokens = {"input_tokens": 10, "output_tokens": 20, "cached_tokens": 4, "audio_input_tokens": 1}
    tokens |= {"audio_output_tokens": 2, "image_input_tokens": 3, "reasoning_tokens": 7, "cache_write_tokens": 5}
    said = {"finish_reason": "stop", "service_tier": "flex", "operation": "messages", "fallback_for": "m0"}
    batch = fold([done(1, usd_nano=99, ttft_ms=12, estimated=1, task="chat", **tokens, **said)])
    (row,) = batch.rows
    assert (row.time, row.event_id) == (datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC), "1-0")
    assert (row.input_tokens, row.output_tokens, row.cached_tokens, row.cache_write_tokens) == (10, 20, 4, 5)
    assert (row.reasoning_tokens, row.audio_tokens, row.image_tokens) == (7, 3, 3)
    assert (row.status, row.cost_nano, row.estimated, row.window_day) == ("done", 99, True, DAY)
    assert (row.finish_reason, row.service_tier, row.operation, row.fallback_for) == ("stop", "flex", "messages", "m0")
    assert (row.latency_ms, row.ttft_ms, row.task) == (40, 12, "chat")


def test_a_lost_attempt_and_the_end_of_its_request_are_one_row_with_both_costs():
    batch = fold(
        [
            event("model.request.unknown", 1, usd_nano=100, error_code="worker_lost"),
            done(2, usd_nano=7, attempt=2, model="m2"),
        ]
    )
    (row,) = batch.rows
    assert (row.event_id, row.cost_nano, row.status, row.attempt, row.model) == ("1-0", 107, "done", 2, "m2")
    assert row.error_code is None
    assert batch.hours[HOUR, "m1", "p"].cost_nano == 100
    assert batch.hours[HOUR, "m1", "p"].requests == 0
    assert batch.hours[HOUR, "m2", "p"].cost_nano == 7
    assert batch.settled["gateway", DAY].nano == 107


def test_the_same_id_of_two_principals_or_after_its_end_are_rows_of_their_own():
    batch = fold([done(1, usd_nano=1), done(2, usd_nano=2, principal="agent-a"), done(3, usd_nano=4)])
    assert [row.cost_nano for row in batch.rows] == [1, 2, 4]


def test_a_day_is_the_one_that_was_charged_and_an_hour_the_one_in_which_it_ended():
    batch = fold([done(1, usd_nano=5, window="2025-06-14")])
    assert batch.days.keys() == {(date(2025, 6, 14), "m1")}
    assert batch.hours.keys() == {(HOUR, "m1", "p")}
    assert batch.settled.keys() == {("gateway", date(2025, 6, 14))}


def test_hours_count_requests_errors_cancellations_and_cache_hits():
    batch = fold(
        [
            done(1, request_id="a", cached_tokens=3),
            event("model.request.failed", 2, request_id="b", latency_ms=1),
            event("model.request.cancelled", 3, request_id="c", latency_ms=1),
            event("model.request.start", 4, request_id="d"),
        ]
    )
    hour = batch.hours[HOUR, "m1", "p"]
    assert (hour.requests, hour.errors, hour.cancelled, hour.cache_hits) == (3, 1, 1, 1)
    assert (hour.latency.count, hour.ttft.count) == (1, 0)


def test_a_reset_takes_what_was_settled_before_it_and_nothing_after():
    reset = (b"2-0", {b"event_type": b"model.budget.reset", b"scope": b"gateway", b"window": b"2025-06-15"})
    batch = fold([done(1, usd_nano=5), reset, done(3, usd_nano=7)])
    assert (batch.settled["gateway", DAY].reset, batch.settled["gateway", DAY].nano) == (True, 7)
    assert batch.days[DAY, "m1"].cost_nano == 12


def test_a_refusal_before_admission_is_a_row_that_settles_nothing():
    refused = event("model.request.failed", 1, scopes=None, window=None, attempt=0, model="unknown", provider=None)
    batch = fold([refused])
    assert batch.rows[0].window_day is None
    assert batch.settled == {}
    assert batch.days[DAY, "unknown"].requests == 1


def test_several_scopes_are_each_charged():
    batch = fold([done(1, usd_nano=5, scopes="gateway,team-a")])
    assert {scope: change.nano for (scope, _), change in batch.settled.items()} == {"gateway": 5, "team-a": 5}


@pytest.mark.parametrize(
    "wrong",
    [{"usd_nano": "much"}, {"usd_nano": 2**63}, {"window": "soon"}, {"request_id": None}, {"window": None}],
    ids=str,
)
def test_an_event_that_cannot_be_read_is_skipped_whole_and_named_and_the_others_count(wrong):
    batch = fold([done(1, usd_nano=1), done(2, **{"usd_nano": 2, "request_id": "r2", **wrong}), (b"3-0", {})])
    assert (batch.skipped, batch.events, batch.last) == (["2-0"], 3, "3-0")
    assert batch.settled["gateway", DAY].nano == batch.hours[HOUR, "m1", "p"].cost_nano == 1
    assert len(batch.rows) == 1


def test_figures_and_texts_that_no_column_takes_are_made_to_fit():
    batch = fold([done(1, latency_ms=10**15, input_tokens=10**30, ts=10**18, finish_reason="st\0p")])
    (row,) = batch.rows
    assert (row.latency_ms, row.input_tokens, row.finish_reason) == (2**31 - 1, 2**40, "st\ufffdp")
    assert row.time.year == 9999
