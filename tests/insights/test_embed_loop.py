"""The embed loop over a real database: what is embedded when, with what, and which indexes a search then uses."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from gateway_insights.embed_loop import BATCH, EmbedLoop
from gateway_insights.embedding.indexes import ensure_indexes
from gateway_insights.embedding.sql import (
    OWN_PRINCIPAL,
    SEARCH_SETTINGS,
    distance_expression,
    index_name,
    model_predicate,
    vector_text,
    waiting_predicate,
)
from gateway_insights.partitions import ensure
from model_gateway.errors import GatewayError
from tests.processes import wait_until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INSERT = """
    INSERT INTO model_insights (time, event_id, request_id, principal, model, status, cost_nano, request_text)
    VALUES ($1, $2, $2, $3, 'm', 'done', 0, $4)
"""


class Hashes:
    """A model whose vectors say which text they were made of, and which can be told to fail."""

    def __init__(self, name="hashes", dimensions=8):
        self.name = name
        self.dimensions = dimensions
        self.seen: list[list[str]] = []
        self.error: GatewayError | None = None
        self.refused = ""

    def vector(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        found = np.random.default_rng(seed).standard_normal(self.dimensions)
        return (found / np.linalg.norm(found)).astype(np.float32)

    def embed(self, texts):
        self.seen.append(list(texts))
        if self.error is not None:
            raise self.error
        if self.refused in texts:
            raise GatewayError("upstream_rejected", "too long")
        return np.stack([self.vector(text) for text in texts]) if texts else np.empty((0, self.dimensions))


async def nothing(_):
    return {}


@asynccontextmanager
async def loop_of(pool, model, unstored=nothing):
    loop = EmbedLoop(pool, model, unstored)
    await loop.ensure_indexes()
    try:
        yield loop
    finally:
        loop.close()


async def add(pool, *texts, principal="admin", start=0):
    """Rows a second apart, the last one the newest."""
    rows = [
        (NOW + timedelta(seconds=number), f"{number}-0", principal, text) for number, text in enumerate(texts, start)
    ]
    await pool.executemany(INSERT, rows)


async def found(pool):
    """Event ids to model and vector, as they are stored."""
    rows = await pool.fetch("SELECT event_id, embedding_model, embedding FROM model_insights ORDER BY time")
    return {
        row["event_id"]: (row["embedding_model"], None if row["embedding"] is None else row["embedding"].to_numpy())
        for row in rows
    }


async def test_rows_are_given_the_vectors_of_their_texts_and_the_models_name(pool):
    model = Hashes()
    await add(pool, "one", "two")
    async with loop_of(pool, model) as loop:
        assert await loop.embed_batch() == 2
        assert await loop.embed_batch() == 0
        assert loop.embedded == 2
    stored = await found(pool)
    for event_id, text in (("0-0", "one"), ("1-0", "two")):
        assert stored[event_id][0] == "hashes"
        assert np.array_equal(stored[event_id][1], model.vector(text))


async def test_the_newest_rows_come_first_in_small_batches(pool):
    model = Hashes()
    await add(pool, *(f"text {number}" for number in range(BATCH + 3)))
    async with loop_of(pool, model) as loop:
        assert [await loop.embed_batch(), await loop.embed_batch()] == [BATCH, 3]
    assert model.seen == [[f"text {number}" for number in range(BATCH + 2, 2, -1)], ["text 2", "text 1", "text 0"]]


async def test_the_same_text_is_embedded_once_in_a_batch(pool):
    model = Hashes()
    await add(pool, "same", "same", "other")
    async with loop_of(pool, model) as loop:
        assert await loop.embed_batch() == 3
    assert model.seen == [["other", "same"]]
    assert {name for name, _ in (await found(pool)).values()} == {"hashes"}


async def test_a_row_whose_text_is_not_stored_is_embedded_from_the_streams(pool):
    asked = []

    async def streams(event_ids):
        asked.append(list(event_ids))
        return {"1-0": "still in the stream"}

    model = Hashes()
    await add(pool, "stored", None, None)
    async with loop_of(pool, model, streams) as loop:
        assert await loop.embed_batch() == 3
        assert await loop.embed_batch() == 0
    assert asked == [["2-0", "1-0"]]
    stored = await found(pool)
    assert np.array_equal(stored["1-0"][1], model.vector("still in the stream"))
    assert stored["2-0"] == ("hashes", None)  # its text is gone: it waits no longer, and no search finds it
    assert await pool.fetchval("SELECT count(*) FROM model_insights WHERE request_text IS NOT NULL") == 1


async def test_what_the_insights_themselves_asked_is_never_embedded(pool):
    model = Hashes()
    await add(pool, "an embeddings request", principal=OWN_PRINCIPAL)
    async with loop_of(pool, model) as loop:
        assert await loop.embed_batch() == 0
    assert await found(pool) == {"0-0": (None, None)}


async def test_a_change_of_model_embeds_anew_what_has_a_text_and_keeps_what_has_none(pool):
    async def streams(event_ids):
        return dict.fromkeys(event_ids, "from the stream")

    await add(pool, "stored", None)
    async with loop_of(pool, Hashes("former"), streams) as loop:
        await loop.embed_batch()
    later = Hashes("later", dimensions=5)
    async with loop_of(pool, later) as loop:
        assert await loop.embed_batch() == 1
        assert await loop.embed_batch() == 0
    stored = await found(pool)
    assert stored["0-0"][0] == "later"
    assert np.array_equal(stored["0-0"][1], later.vector("stored"))
    assert stored["1-0"][0] == "former"
    assert stored["1-0"][1] is not None


async def test_a_text_that_the_model_refuses_does_not_hold_up_the_others(pool):
    model = Hashes()
    model.refused = "poison"
    await add(pool, "one", "poison", "two")
    async with loop_of(pool, model) as loop:
        assert await loop.embed_batch() == 3
        assert await loop.embed_batch() == 0
        assert loop.embedded == 2
    stored = await found(pool)
    assert stored["1-0"] == ("hashes", None)
    assert np.array_equal(stored["2-0"][1], model.vector("two"))


@pytest.mark.parametrize("code", ["budget_exceeded", "request_timeout", "upstream_unavailable", "model_not_found"])
async def test_while_the_model_does_not_answer_rows_wait(pool, code):
    model = Hashes()
    await add(pool, "one")
    async with loop_of(pool, model) as loop:
        model.error = GatewayError(code, "not now")
        with pytest.raises(GatewayError):
            await loop.embed_batch()
        assert await found(pool) == {"0-0": (None, None)}
        model.error = None
        assert await loop.embed_batch() == 1


async def test_failures_in_a_row_are_waited_out_ever_longer_and_success_begins_anew(pool):
    model = Hashes()
    await add(pool, "one")
    async with loop_of(pool, model) as loop:
        model.error = GatewayError("upstream_unavailable", "not now")
        assert [await loop._turn() for _ in range(7)] == [1.0, 2.0, 5.0, 15.0, 60.0, 60.0, 60.0]
        model.error = None
        assert await loop._turn() == 0.0
        model.error = GatewayError("upstream_unavailable", "not now")
        await add(pool, "two", start=1)
        assert await loop._turn() == 1.0


async def test_the_loop_embeds_what_comes_until_it_is_cancelled(pool, background):
    loop = EmbedLoop(pool, Hashes(), nothing)
    background(loop.run())
    await add(pool, "one")
    await wait_until(lambda: loop.embedded == 1)
    await add(pool, "two", start=1)
    await wait_until(lambda: loop.embedded == 2)


async def plan_of(pool, model, extra=""):
    query = f"""
        EXPLAIN SELECT event_id FROM model_insights WHERE {model_predicate(model)} {extra}
        ORDER BY {distance_expression(model)} LIMIT 5
    """
    async with pool.acquire() as connection, connection.transaction():
        for setting in (*SEARCH_SETTINGS, "SET LOCAL enable_seqscan = off", "SET LOCAL enable_sort = off"):
            await connection.execute(setting)
        return "\n".join(row[0] for row in await connection.fetch(query, vector_text(model.vector("q"))))


@pytest.mark.parametrize("dimensions", [8, 3072])
async def test_a_search_uses_the_index_in_every_partition_older_and_newer(pool, dimensions):
    await ensure(pool, NOW, 0)
    model = Hashes("it's gateway:x/8", dimensions)
    await add(pool, *(f"text {number}" for number in range(20)))
    async with loop_of(pool, model) as loop:
        await loop.embed_batch()
    await ensure(pool, NOW, 2)
    plan = await plan_of(pool, model)
    scans = [line for line in plan.splitlines() if "Index Scan using" in line]
    assert len(scans) == 4, plan  # three days and the default
    assert plan.count("Order By: ((embedding)::") == 4, plan
    rows = await nearest(pool, model, "text 7", 1)
    assert rows == ["7-0"]


async def nearest(pool, model, text, limit):
    query = f"""
        SELECT event_id FROM model_insights WHERE {model_predicate(model)}
        ORDER BY {distance_expression(model)} LIMIT {limit}
    """
    async with pool.acquire() as connection, connection.transaction():
        for setting in SEARCH_SETTINGS:
            await connection.execute(setting)
        return [row[0] for row in await connection.fetch(query, vector_text(model.vector(text)))]


async def test_rows_that_wait_are_found_by_an_index_of_their_own(pool):
    model = Hashes()
    await ensure_indexes(pool, model)
    query = f"EXPLAIN SELECT 1 FROM model_insights WHERE {waiting_predicate(model)} ORDER BY time DESC LIMIT 5"
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch(query))
    assert "insights_waiting_" in plan, plan


async def indexes(pool):
    query = """
        SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relname ~ '^insights_(near|waiting)' AND indrelid = 'model_insights'::regclass
    """
    return {row["relname"]: row["indisvalid"] for row in await pool.fetch(query)}


async def test_indexes_are_made_once_and_those_of_a_former_model_dropped(pool):
    former, later = Hashes("former"), Hashes("later", 5)
    assert await ensure_indexes(pool, former)
    before = await indexes(pool)
    assert await ensure_indexes(pool, former)
    assert await indexes(pool) == before
    assert index_name(former) in before
    assert all(before.values())
    await ensure_indexes(pool, later)
    after = await indexes(pool)
    assert not set(before) & set(after)
    assert len(after) == 2
    assert all(after.values())


async def test_what_a_killed_build_left_behind_is_built_anew(pool):
    model = Hashes()
    await ensure_indexes(pool, model)
    [own] = await pool.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::text::regclass",
        index_name(model),
    )
    await pool.execute(f"DROP INDEX {index_name(model)}")
    await pool.execute(f"CREATE INDEX {own['name']} ON model_insights_default (principal)")
    await ensure_indexes(pool, model)
    assert (await indexes(pool))[index_name(model)]
    assert "hnsw" in await pool.fetchval("SELECT pg_get_indexdef($1::text::regclass)", own["name"])


async def test_one_process_makes_indexes_at_a_time(pool):
    async with pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock($1)", 0x6E656172)
        assert not await ensure_indexes(pool, Hashes())
        await other.execute("SELECT pg_advisory_unlock($1)", 0x6E656172)
    assert await ensure_indexes(pool, Hashes())


async def test_vectors_too_long_for_an_index_are_still_stored_and_found(pool):
    model = Hashes("long", 4_100)
    await add(pool, "one", "two")
    async with loop_of(pool, model) as loop:
        assert await loop.embed_batch() == 2
    assert index_name(model) not in await indexes(pool)
    assert await nearest(pool, model, "two", 1) == ["1-0"]


@pytest.fixture
async def background():
    """Runs coroutines beside the test, and cancels them at its end."""
    tasks = []
    yield lambda coroutine: tasks.append(asyncio.create_task(coroutine))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
