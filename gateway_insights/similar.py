"""``/insights/similar``: the requests whose text is nearest in meaning to a query."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from gateway_insights.database import Pool, transaction
from gateway_insights.embedding import Embedder
from gateway_insights.embedding.sql import SEARCH_SETTINGS, distance_expression, model_predicate, vector_text
from gateway_insights.parameters import Filters, Search
from gateway_insights.queries import statement
from model_gateway.money import usd_number

Rows = Sequence[Mapping[str, Any]]

_SETTINGS: Final = (
    *SEARCH_SETTINGS,
    "SET LOCAL plan_cache_mode = force_custom_plan",  # the filters and the time decide which index is best
    "SET LOCAL statement_timeout = '5s'",
)
_EXACT_SETTINGS: Final = ("SET LOCAL enable_indexscan = off", "SET LOCAL statement_timeout = '3s'")
"""Without index scans there is no HNSW index; the filters' own indexes still serve, as bitmaps."""


async def similar(pool: Pool, embedder: Embedder, search: Search) -> dict[str, Any]:
    """The answer of ``/insights/similar``.

    Args:
        pool: the database.
        embedder: the model whose vectors are compared; rows of another one wait for theirs.
        search: what is looked for.

    Raises:
        GatewayError: the embedding model did not answer.
        DatabaseAwayError: PostgreSQL did not.
    """
    vector, sql, name = await asyncio.to_thread(_prepare, embedder, search.query)
    rows = await _nearest(pool, sql, (vector, *_values(search.filters), search.limit))
    return {"query": search.query, "embedding_model": name, "results": [_result(row) for row in rows]}


def _prepare(embedder: Embedder, query: str) -> tuple[str, str, str]:
    """The query's vector, the SQL for vectors of its kind, and the model's id; blocks while the model thinks."""
    [vector] = embedder.embed([query])
    sql = statement("similar").format(distance=distance_expression(embedder), of_the_model=model_predicate(embedder))
    return vector_text(vector), sql, embedder.name


async def _nearest(pool: Pool, sql: str, values: tuple[Any, ...]) -> Rows:
    """The nearest rows by the index, and where it finds too few, by looking at all that pass the filters.

    The index reads on for rows that pass, but within a bound: a rare principal's may lie past it.
    """
    async with transaction(pool) as connection:
        await connection.execute(";".join(_SETTINGS))
        rows: Rows = await connection.fetch(sql, *values)
        if len(rows) == values[-1]:
            return rows
        try:
            async with connection.transaction():
                await connection.execute(";".join(_EXACT_SETTINGS))
                return list(await connection.fetch(sql, *values))
        except asyncpg.QueryCanceledError:  # too many to look at them all: what the index found stands
            return rows


def _values(filters: Filters) -> tuple[Any, ...]:
    return filters.model, filters.principal, filters.status, filters.since


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    """One request; its texts are null where they are not stored."""
    return {
        **row,
        "time": row["time"].isoformat(timespec="milliseconds"),
        "similarity": round(row["similarity"], 4),
        "cost_usd": usd_number(row["cost_nano"]),
    }
