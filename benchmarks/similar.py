"""How well and how fast similar requests are found: recall@5, embedding speed, and ``similar`` at 100,000 rows.

Run as ``python -m benchmarks.similar [rows]``; ``DATABASE_URL`` names a server to use instead of the embedded one. Both
local models embed the labelled set of the tests. Then rows over 30 days are written, each with a text of its own and a
vector near one of the labelled texts (embedding so many would measure the model again); the index is built as the
insights process builds it, and searches run one after the other, embedding of the query included.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from gateway_insights.database import Pool, connect, migrate
from gateway_insights.embedding import Embedder, make_embedder
from gateway_insights.embedding.indexes import ensure_indexes
from gateway_insights.embedding.sql import TABLE, distance_expression, index_name, model_predicate, vector_text
from gateway_insights.parameters import Filters, Search
from gateway_insights.partitions import ensure
from gateway_insights.similar import similar
from model_gateway.process import log_to_stderr
from tests.insights.test_recall import GROUPS, recall_of
from tests.postgres_server import empty_database, postgres_for_tests

ROWS = 100_000
DAYS = 30
SEARCHES = 200
WARM_UP = 20
LIMIT = 10
NOISE = 0.6
"""How far a row's vector lies from its text's, as a share of its length: cosines of about 0.86."""
CHUNK = 5_000
COLUMNS = (
    *("time", "event_id", "request_id", "principal", "model", "status", "cost_nano"),
    *("request_text", "reply_text", "embedding", "embedding_model"),
)
TEXTS = [text for group in GROUPS for text in group]


def embedding_speed(embedder: Embedder, texts: Sequence[str]) -> float:
    """Texts per second of CPU, on one core."""
    embedder.embed(list(texts[:8]))
    began = time.process_time()
    embedder.embed(list(texts))
    return len(texts) / (time.process_time() - began)


def report_models() -> None:
    """Recall and speed of the local models."""
    long = [f"{text} {' '.join(TEXTS[at : at + 20])}" for at, text in enumerate(TEXTS[:60])]
    print(f"{len(GROUPS)} groups of paraphrases, {len(TEXTS)} texts")
    for setting in ("minilm", "wordllama"):
        embedder = make_embedder(setting)
        assert embedder is not None
        speeds = f"{embedding_speed(embedder, TEXTS):,.0f} short texts/s, {embedding_speed(embedder, long):,.0f} long"
        print(f"{setting:10} recall@5 {recall_of(setting):.3f}   {speeds} (on one core)")


async def fill(pool: Pool, embedder: Embedder, rows: int) -> None:
    """Write the rows, the oldest first."""
    random = np.random.default_rng(1)
    texts = embedder.embed(TEXTS)
    now = datetime.now(UTC)
    step = timedelta(days=DAYS) / rows
    for day in range(DAYS):
        await ensure(pool, now - timedelta(days=day), 0)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        which = random.integers(len(TEXTS), size=count)
        noise = random.standard_normal((count, embedder.dimensions))
        vectors = texts[which] + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        records = [
            _record(start + at, now - step * (rows - start - at), TEXTS[which[at]], vectors[at], embedder.name)
            for at in range(count)
        ]
        async with pool.acquire() as connection:
            await connection.copy_records_to_table(TABLE, records=records, columns=COLUMNS)
    await pool.execute(f"ANALYZE {TABLE}", timeout=300)


def _record(number: int, at: datetime, text: str, vector: Any, name: str) -> tuple[Any, ...]:
    """A row: four models, 50 principals of which the last has one row in a thousand, one failure in twenty."""
    principal = "rare" if number % 1000 == 7 else f"agent-{number % 49}"
    status = "failed" if number % 20 == 3 else "done"
    asked = f"{text} ({number})"
    return (
        at,
        f"{number}-0",
        f"req_{number}",
        principal,
        f"model-{number % 4}",
        status,
        1000,
        asked,
        text,
        vector,
        name,
    )


async def latencies(pool: Pool, embedder: Embedder, filters: Filters) -> list[float]:
    """Milliseconds of one search each."""
    found = []
    for number in range(WARM_UP + SEARCHES):
        search = Search(TEXTS[number % len(TEXTS)], filters, LIMIT)
        began = time.perf_counter()
        answer = await similar(pool, embedder, search)
        found.append((time.perf_counter() - began) * 1000)
        assert answer["results"]
    return found[WARM_UP:]


async def index_recall(pool: Pool, embedder: Embedder) -> float:
    """The share of the ten nearest rows, as read one by one, that a search by the index finds."""
    wanted, nearest = model_predicate(embedder), distance_expression(embedder)
    exact = f"SELECT request_id FROM {TABLE} WHERE {wanted} ORDER BY {nearest} LIMIT {LIMIT}"
    hits = 0
    queries = TEXTS[::10]
    for text in queries:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL enable_indexscan = off")
            rows = await connection.fetch(exact, vector_text(embedder.embed([text])[0]))
        answer = await similar(pool, embedder, Search(text, Filters(), LIMIT))
        hits += len({row[0] for row in rows} & {row["request_id"] for row in answer["results"]})
    return hits / (LIMIT * len(queries))


async def sizes(pool: Pool, embedder: Embedder, rows: int) -> str:
    """Bytes a row."""
    index = await pool.fetchval(
        "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = $1::text::regclass",
        index_name(embedder),
    )
    whole = await pool.fetchval(
        "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::text::regclass) WHERE isleaf", TABLE
    )
    return f"{whole / rows:,.0f} bytes a row in all, of which the HNSW index {index / rows:,.0f}"


async def report_searches(url: str, rows: int) -> None:
    """Latency of ``similar``."""
    embedder = await asyncio.to_thread(make_embedder, "minilm")
    assert embedder is not None
    async with empty_database(url) as database, await connect(database) as pool:
        await migrate(pool)
        await fill(pool, embedder, rows)
        began = time.perf_counter()
        await ensure_indexes(pool, embedder)
        print(f"\n{rows:,} rows over {DAYS} days; index built in {time.perf_counter() - began:.0f} s")
        print(await sizes(pool, embedder, rows))
        print(f"the index finds {await index_recall(pool, embedder):.3f} of the ten nearest")
        await _report_latencies(pool, embedder)


async def _report_latencies(pool: Pool, embedder: Embedder) -> None:
    today = datetime.now(UTC) - timedelta(days=1)
    searches = {
        "no filter": Filters(),
        "model (1 in 4)": Filters(model="model-1"),
        "status (1 in 20)": Filters(status="failed"),
        "principal (1 in 49)": Filters(principal="agent-5"),
        "principal (1 in 1,000)": Filters(principal="rare"),
        "the last day (1 in 30)": Filters(since=today),
    }
    print(f"similar, {SEARCHES} searches each, one at a time, with embedding of the query, in ms")
    for name, filters in searches.items():
        found = quantiles(await latencies(pool, embedder, filters), n=100)
        print(f"{name:24} p50 {found[49]:7.1f}   p95 {found[94]:7.1f}   p99 {found[98]:7.1f}")


def main() -> None:
    log_to_stderr(logging.WARNING)
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    report_models()
    with tempfile.TemporaryDirectory() as folder, postgres_for_tests(Path(folder) / "postgres") as url:
        asyncio.run(report_searches(url, rows))


if __name__ == "__main__":
    main()
