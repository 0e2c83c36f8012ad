"""``similar``: the nearest requests by meaning, among those that pass the filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from gateway_insights.embedding.indexes import ensure_indexes
from gateway_insights.embedding.sql import vector_text
from gateway_insights.embedding.wordllama import WordLlama
from gateway_insights.parameters import Filters, Search
from gateway_insights.similar import similar

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)


class Angles:
    """Texts that are angles in degrees, as vectors: which are near is plain."""

    dimensions = 2

    def __init__(self, name: str = "angles") -> None:
        self.name = name

    def embed(self, texts):
        radians = np.radians([float(text) for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


ANGLES = Angles()


@pytest.fixture
def store(pool):
    """Writes a row; its id is its text unless it is told."""

    async def written(text: str, *, embedder=ANGLES, stored: bool = True, minutes_ago: int = 0, **columns) -> None:
        values = {
            "time": NOW - timedelta(minutes=minutes_ago),
            "event_id": f"{text}-{embedder.name}-{columns}",
            "request_id": text,
            "principal": "admin",
            "model": "m",
            "status": "done",
            "cost_nano": 1_500,
            "request_text": text if stored else None,
            "embedding": vector_text(embedder.embed([text])[0]),
            "embedding_model": embedder.name,
            **columns,
        }
        kinds = {"embedding": "::text::vector"}
        names = ", ".join(values)
        marks = ", ".join(f"${index + 1}{kinds.get(name, '')}" for index, name in enumerate(values))
        await pool.execute(f"INSERT INTO model_insights ({names}) VALUES ({marks})", *values.values())

    return written


async def find(pool, query: str, limit: int = 10, embedder=ANGLES, **filters) -> list[str]:
    answer = await similar(pool, embedder, Search(query, Filters(**filters), limit))
    return [result["request_id"] for result in answer["results"]]


async def test_the_nearest_come_first_and_no_more_than_the_limit(pool, store):
    for angle in ("10", "80", "40", "170"):
        await store(angle)
    assert await find(pool, "45") == ["40", "10", "80", "170"]
    assert await find(pool, "45", limit=2) == ["40", "10"]


async def test_a_result_tells_how_near_it_is_and_what_the_request_was(pool, store):
    await store("60", provider="echo", deployment="m#1", task="t", reply_text="sixty", input_tokens=7, latency_ms=12)
    answer = await similar(pool, ANGLES, Search("0", Filters(), 10))
    [result] = answer["results"]
    assert (answer["query"], answer["embedding_model"]) == ("0", "angles")
    expected = {
        "similarity": 0.5,
        "time": "2026-03-18T12:00:00.000+00:00",
        "request_id": "60",
        "request_text": "60",
        "reply_text": "sixty",
        "cost_nano": 1_500,
        "cost_usd": 1.5e-06,
        "input_tokens": 7,
        "latency_ms": 12,
        "deployment": "m#1",
    }
    assert {name: result[name] for name in expected} == expected
    assert "embedding" not in result


async def test_a_row_without_text_is_found_and_its_text_is_null(pool, store):
    await store("5", stored=False)
    [result] = (await similar(pool, ANGLES, Search("5", Filters(), 10)))["results"]
    assert (result["request_id"], result["request_text"], result["similarity"]) == ("5", None, 1)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"model": "other"}, ["20"]),
        ({"principal": "agent-a"}, ["30"]),
        ({"status": "failed"}, ["40"]),
        ({"since": NOW - timedelta(minutes=10)}, ["10", "20", "30", "40"]),
        ({"since": NOW - timedelta(hours=2)}, ["10", "20", "30", "40", "50"]),
        ({"model": "m", "principal": "admin", "status": "done", "since": NOW}, ["10"]),
        ({"model": "other", "status": "failed"}, []),
    ],
)
async def test_only_requests_that_pass_every_filter_are_found(pool, store, filters, found):
    await store("10")
    await store("20", model="other")
    await store("30", principal="agent-a")
    await store("40", status="failed")
    await store("50", minutes_ago=60)
    assert await find(pool, "0", **filters) == found


@pytest.mark.parametrize("name", ["%", "_", "m%", "'; DROP TABLE model_insights; --", "\\", "$1", "{distance}"])
async def test_signs_of_sql_and_like_are_names_like_any_other(pool, store, name):
    await store("10")
    await store("20", model=name, principal=name)
    assert await find(pool, "0", model=name) == ["20"]
    assert await find(pool, "0", principal=name) == ["20"]


async def test_vectors_of_another_model_are_not_compared(pool, store):
    other = Angles("o'ther {model} $2")
    await store("10")
    await store("20", embedder=other)
    assert await find(pool, "0") == ["10"]
    assert await find(pool, "0", embedder=other) == ["20"]


async def test_of_a_model_that_has_no_rows_nothing_is_found(pool):
    assert await find(pool, "0") == []


async def test_requests_that_pass_a_filter_are_found_behind_thousands_that_are_nearer_and_do_not(pool):
    """The index alone gives up after so many rows; the rest is looked up without it."""
    await pool.execute(
        """
        INSERT INTO model_insights
            (time, event_id, request_id, principal, model, status, cost_nano, embedding, embedding_model)
        SELECT $1, 'e' || n, n::text, 'admin', 'm', CASE WHEN n > 22500 THEN 'failed' ELSE 'done' END, 0,
               ARRAY[1, CASE WHEN n > 22500 THEN 1 + (n - 22500) * 0.01 ELSE n * 1e-6 END]::real[]::vector, 'angles'
        FROM generate_series(1, 25000) n
        """,
        NOW,
    )
    await ensure_indexes(pool, ANGLES)
    await pool.execute("ANALYZE model_insights")
    assert await find(pool, "0", limit=2, status="failed") == ["22501", "22502"]
    assert len(await find(pool, "0")) == 10


async def test_a_paraphrase_finds_its_request_with_a_real_model(pool, store):
    words = WordLlama()
    texts = [
        "How do I reset the password of my account?",
        "Write a haiku about autumn leaves",
        "What is the capital of Australia?",
        "Translate this contract into French",
    ]
    for text in texts:
        await store(text, embedder=words)
    assert (await find(pool, "I forgot my login password, how can I change it", embedder=words))[0] == texts[0]
    assert (await find(pool, "poem on leaves falling in the autumn", embedder=words))[0] == texts[1]
