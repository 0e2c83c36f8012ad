"""The schema comes into being by itself, once, whole or not at all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest
from pgvector import Vector

from gateway_insights import migrate as migrating
from gateway_insights.database import Pool, connect, migrate
from gateway_insights.migrate import Migration, SchemaError, migrations

TABLES = {
    "model_insights",
    "model_insights_default",
    "model_stats_hourly",
    "model_cost_trends",
    "insights_open",
    "insights_cursor",
    "insights_settled",
    "insights_migrations",
}


async def applied(pool: Pool) -> list[tuple[int, str]]:
    rows = await pool.fetch("SELECT version, name FROM insights_migrations ORDER BY version")
    return [(row["version"], row["name"]) for row in rows]


async def tables(pool: Pool) -> set[str]:
    return {row[0] for row in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


async def test_an_empty_database_gets_every_table_and_one_cursor_at_the_beginning(pool: Pool):
    assert await applied(pool) == [(migration.version, migration.name) for migration in migrations()]
    assert await tables(pool) == TABLES
    assert [tuple(row) for row in await pool.fetch("SELECT event_id, events FROM insights_cursor")] == [("0-0", 0)]


async def test_there_is_never_a_second_cursor(pool: Pool):
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("INSERT INTO insights_cursor (event_id, events) VALUES ('1-0', 1)")


async def test_the_numbers_of_the_migrations_have_no_gap():
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


async def test_processes_that_start_at_once_on_an_empty_database_migrate_it_once(database_url: str):
    async with AsyncExitStack() as stack:
        pools = [await connect(database_url, max_size=1) for _ in range(5)]
        for pool in pools:
            stack.push_async_callback(pool.close)
        await asyncio.gather(*(migrate(pool) for pool in pools))
        assert len(await applied(pools[0])) == len(migrations())


async def test_migrating_again_changes_nothing(pool: Pool):
    before = await pool.fetch("SELECT * FROM insights_migrations ORDER BY version")
    await migrate(pool)
    assert await pool.fetch("SELECT * FROM insights_migrations ORDER BY version") == before


async def test_a_pool_older_than_the_tables_gives_and_takes_vectors(pool: Pool):
    await pool.execute(
        "INSERT INTO model_insights (time, event_id, request_id, principal, model, status, cost_nano, embedding)"
        " VALUES (now(), '1-0', 'r', 'admin', 'echo', 'done', 0, $1)",
        Vector([1.0, 0.5]),
    )
    assert (await pool.fetchval("SELECT embedding FROM model_insights")).to_list() == [1.0, 0.5]


async def test_a_migration_that_fails_half_way_leaves_nothing_and_is_carried_out_when_it_can_be(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    sound = migrations()
    version = len(sound) + 1
    broken = Migration(version, "more", "CREATE TABLE more (a int); SELECT nobody_knows_me()")
    monkeypatch.setattr(migrating, "migrations", lambda: [*sound, broken])
    with pytest.raises(SchemaError, match=rf"migration {version} \(more\) failed: .*nobody_knows_me"):
        await migrate(pool)
    assert await tables(pool) == TABLES
    monkeypatch.setattr(migrating, "migrations", lambda: [*sound, Migration(version, "more", "CREATE TABLE more ()")])
    await migrate(pool)
    assert await tables(pool) == TABLES | {"more"}


async def test_a_database_of_a_newer_release_is_left_alone(pool: Pool):
    await pool.execute("INSERT INTO insights_migrations (version, name) VALUES (9999, 'from the future')")
    with pytest.raises(SchemaError, match="has migration 9999, which this release does not know"):
        await migrate(pool)
    assert (await tables(pool)) == TABLES
    assert await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
