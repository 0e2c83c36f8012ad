"""How SQL speaks of the vectors of one model: what to order by, and what an index needs to be used.

Vectors of several models lie in one column, so the column has no fixed length. The HNSW index of a model is a
partial index over an expression; PostgreSQL uses it only for a query that has both, the expression in ``ORDER BY``
and the predicate in ``WHERE``, letter by letter::

    SELECT ..., {distance_expression(embedder, "$1")} AS distance
    FROM model_insights
    WHERE {model_predicate(embedder)} AND ...
    ORDER BY {distance_expression(embedder, "$1")}
    LIMIT $2

with ``$1`` the query's vector as text (``vector_text``), and ``SEARCH_SETTINGS`` run first in the same transaction.
Nothing here takes text from outside: the model's name is quoted, all else is numbers.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

TABLE: Final = "model_insights"
OWN_PRINCIPAL: Final = "insights"
"""Whose requests embed other requests; they are never embedded themselves, or each would make the next."""

SEARCH_SETTINGS: Final = (
    "SET LOCAL hnsw.iterative_scan = 'strict_order'",
    "SET LOCAL hnsw.ef_search = 40",
    "SET LOCAL hnsw.max_scan_tuples = 20000",
)
"""With filters beside the order, the index is read on until enough rows pass them, within a bound.

With 30 partitions a search reads 30 indexes: a larger ``ef_search`` costs each of them more, finds no more (see
benchmarks/similar.py), and makes the planner read whole tables where there is a filter.
"""

_MOST_VECTOR: Final = 2_000
_MOST_HALFVEC: Final = 4_000
"""How many dimensions pgvector can index, in 32 and in 16 bits."""


class VectorSpace(Protocol):
    """A model by what its vectors are."""

    @property
    def name(self) -> str:
        """The model's id, stored with each vector."""

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""


def model_predicate(space: VectorSpace) -> str:
    """True for the rows whose vector is of this model: the index's predicate. A row given up has a model, no vector."""
    return f"embedding_model = {literal(space.name)} AND embedding IS NOT NULL"


def distance_expression(space: VectorSpace, parameter: str = "$1") -> str:
    """The cosine distance (0 to 2) between a row's vector and a parameter with ``vector_text``.

    Args:
        space: the model.
        parameter: a placeholder, ``$1``; never text from outside.
    """
    kind = _kind(space)
    return f"embedding::{kind} <=> {parameter}::text::{kind}"


def vector_text(vector: NDArray[np.float32]) -> str:
    """A vector as pgvector reads it, such as ``[0.5,-0.25]``, without loss."""
    return f"[{','.join(map(repr, vector.tolist()))}]"


def index_name(space: VectorSpace) -> str:
    """The HNSW index of a model."""
    return f"insights_near_{_mark(space)}"


def waiting_name(space: VectorSpace) -> str:
    """The index of the rows that wait for a vector of a model."""
    return f"insights_waiting_{_mark(space)}"


def can_be_indexed(space: VectorSpace) -> bool:
    """Whether an HNSW index can hold such vectors; without one a search reads every row."""
    return space.dimensions <= _MOST_HALFVEC


def index_definition(space: VectorSpace) -> str:
    """What follows ``CREATE INDEX name ON table`` for the HNSW index."""
    kind = _kind(space)
    operators = f"{kind.partition('(')[0]}_cosine_ops"
    return f"USING hnsw ((embedding::{kind}) {operators}) WHERE {model_predicate(space)}"


def waiting_predicate(space: VectorSpace) -> str:
    """True for the rows that wait for a vector of this model.

    A row whose text was not stored waits for its first vector only: later its text is gone.
    """
    return (
        f"embedding_model IS DISTINCT FROM {literal(space.name)} AND (embedding_model IS NULL OR request_text <> '') "
        f"AND principal <> {literal(OWN_PRINCIPAL)}"
    )


def waiting_definition(space: VectorSpace) -> str:
    """What follows ``CREATE INDEX name ON table`` for the index of the rows that wait."""
    return f"(time, event_id) WHERE {waiting_predicate(space)}"


def literal(text: str) -> str:
    """Text as a literal of SQL; PostgreSQL takes no parameter in an index's predicate."""
    if "\0" in text:
        raise ValueError("a NUL character in SQL text")
    return "'" + text.replace("'", "''") + "'"


def _kind(space: VectorSpace) -> str:
    """The type that the vectors are compared in."""
    return f"{'vector' if space.dimensions <= _MOST_VECTOR else 'halfvec'}({space.dimensions})"


def _mark(space: VectorSpace) -> str:
    """A short name for a model that fits an identifier."""
    return hashlib.sha256(space.name.encode()).hexdigest()[:12]
