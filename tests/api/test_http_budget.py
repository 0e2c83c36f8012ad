"""The budget over HTTP; what it counts is tested with the ledger."""

from __future__ import annotations

PUBLISHED = {
    "date",
    "limit_usd",
    "spent_usd",
    "reserved_usd",
    "remaining_usd",
    "percent_used",
    "hard_stop",
    "warning_threshold",
    "status",
    "resets_at",
    "by_model",
}


async def test_the_stats_hold_every_published_field(api):
    answer = await api.call("GET", "/budget/stats")
    assert answer.status == 200
    assert answer.json.keys() >= PUBLISHED
    assert answer.json["limit_usd"] == 20
    assert answer.json["by_model"] == {}


async def test_a_reset_answers_with_the_amount_and_the_stats_after_it(api, redis):
    answer = await api.call("POST", "/budget/reset")
    assert answer.status == 200
    assert answer.json["reset_nano"] == 0
    assert answer.json["budget"].keys() >= PUBLISHED


async def test_a_reset_is_an_event_with_the_principal(api, redis):
    await api.call("POST", "/budget/reset")
    ((_, fields),) = await redis.xrange("agent.events")
    assert fields[b"event_type"] == b"model.budget.reset"
    assert fields[b"principal"] == b"admin"
