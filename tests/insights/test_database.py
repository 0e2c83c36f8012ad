"""A PostgreSQL that is away is recognised as away, whenever it goes; nothing is half done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway_cli.ports import ReservedPort
from gateway_insights.database import AWAY, DatabaseAwayError, Pool, connect, transaction
from tests.postgres_server import PostgresServer

HOST = "127.0.0.1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    """A server that a test may stop and kill."""
    server = PostgresServer(tmp_path / "postgres")
    try:
        await server.start()
        yield server
    finally:
        server.close()


async def test_a_server_that_is_not_there_is_away():
    with ReservedPort(HOST, 0, "DATABASE_URL") as port, pytest.raises(DatabaseAwayError, match=r"refused|Connect"):
        await connect(f"postgresql://someone:a-canary@{HOST}:{port.number}/postgres")


@pytest.mark.parametrize("change", ["password", "database"])
async def test_a_server_that_lets_nobody_in_says_so_without_the_password(database_url: str, change: str):
    url = urlsplit(database_url)
    wrong = url._replace(path="/no_such_database")
    if change == "password":
        wrong = url._replace(netloc=f"{url.username}:a-canary@{url.hostname}:{url.port}")
    with pytest.raises(DatabaseAwayError) as refused:
        await connect(wrong.geturl())
    assert "a-canary" not in str(refused.value)
    assert str(url.password) not in str(refused.value)


@pytest.mark.parametrize("url", ["nonsense", "redis://127.0.0.1", "postgresql://u:a-canary@127.0.0.1:port/x"])
async def test_what_is_no_url_of_a_database_is_refused_without_its_text(url: str):
    with pytest.raises(ValueError, match=r"^expected postgresql://") as refused:
        await connect(url)
    assert "a-canary" not in str(refused.value)


async def test_times_come_back_in_utc(pool: Pool):
    assert await pool.fetchval("SHOW timezone") == "UTC"


async def test_a_transaction_is_whole_or_not_at_all(pool: Pool):
    with pytest.raises(ZeroDivisionError):
        async with transaction(pool) as connection:
            await connection.execute("UPDATE insights_cursor SET events = 1")
            raise ZeroDivisionError
    assert await pool.fetchval("SELECT events FROM insights_cursor") == 0


async def test_a_value_that_does_not_fit_is_not_taken_for_an_absence(pool: Pool):
    with pytest.raises(asyncpg.DataError):
        async with transaction(pool) as connection:
            await connection.execute("UPDATE insights_cursor SET events = $1", 2**70)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_server_that_goes_within_a_transaction_is_away_and_has_done_nothing(server: PostgresServer, how: str):
    pool = await connect(server.url)
    await pool.execute("CREATE TABLE counted (n int)")
    with pytest.raises(DatabaseAwayError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO counted VALUES (1)")
            getattr(server, how)()
            await connection.execute("INSERT INTO counted VALUES (2)")
    with pytest.raises(AWAY):
        await pool.fetch("SELECT 1")
    await server.start()
    assert await pool.fetchval("SELECT count(*) FROM counted") == 0
    await pool.close()


async def test_a_plain_transaction_on_a_server_that_went_raises_what_counts_as_away(server: PostgresServer):
    pool = await connect(server.url)
    with pytest.raises(AWAY):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT 1")
            server.kill()
            await connection.execute("SELECT 1")
    await server.start()
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()
