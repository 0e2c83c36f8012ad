"""Fixtures for all tests: a real Redis-compatible server, empty before each test."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from model_gateway.connection import connect
from tests.redis_server import redis_for_tests

gc.disable()  # until everything is collected


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for all tests of this process."""
    with redis_for_tests(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database."""
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()
