"""A new Redis gets a ledger; one that lost its ledger does not, until the operator says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway_cli.ledger_marker import EMBEDDED, location, prepare_ledger
from model_gateway.ledger import is_initialised
from model_gateway.streams import Keys

KEYS = Keys()


async def test_a_new_redis_gets_a_ledger_once(redis: Redis, redis_url: str, tmp_path: Path):
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    epoch = await redis.get(KEYS.epoch)
    assert epoch
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    assert await redis.get(KEYS.epoch) == epoch


async def test_a_redis_that_lost_its_ledger_stays_closed_and_the_log_says_so(
    redis: Redis, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    await redis.flushdb()
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    assert not await is_initialised(redis, KEYS)
    assert "ledger.lost" in "".join(capsys.readouterr())


async def test_a_ledger_that_was_there_before_is_remembered(redis: Redis, redis_url: str, tmp_path: Path):
    await redis.set(KEYS.epoch, "of-another-machine")
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    assert await redis.get(KEYS.epoch) == b"of-another-machine"
    await redis.flushdb()
    await prepare_ledger(redis_url, EMBEDDED, tmp_path, KEYS)
    assert not await is_initialised(redis, KEYS)


async def test_another_redis_is_new_to_the_same_data_directory(redis: Redis, redis_url: str, tmp_path: Path):
    await prepare_ledger(redis_url, location("redis://elsewhere:6379/0"), tmp_path, KEYS)
    await redis.flushdb()
    await prepare_ledger(redis_url, location(redis_url), tmp_path, KEYS)
    assert await is_initialised(redis, KEYS)


def test_a_location_holds_no_user_and_no_password():
    assert location("redis://me:hidden@Host:6379/3") == location("redis://:other@host:6379/3")
    assert "hidden" not in location("redis://me:hidden@host:6379/3")
    assert location("redis://host:6379/3") != location("redis://host:6379/4")


async def test_what_marks_a_redis_holds_no_password(redis: Redis, redis_url: str, tmp_path: Path):
    await prepare_ledger(redis_url, location("redis://me:hidden@host:6379/3"), tmp_path, KEYS)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["host:6379/3?\n"]
