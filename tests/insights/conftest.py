"""Fixtures of the insights: a real PostgreSQL, and in it an empty database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway_insights.database import Pool, connect, migrate
from tests.postgres_server import empty_database, postgres_for_tests


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for all tests of this process."""
    with postgres_for_tests(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """A database with nothing in it, not even the tables."""
    async with empty_database(postgres_url) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """An empty database with all tables."""
    pool = await connect(database_url)
    await migrate(pool)
    yield pool
    await pool.close()
