"""Gives rows their vectors, behind the consumer and at its own pace; after a change of model, gives them new ones."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import asyncpg
import numpy as np
import structlog
from numpy.typing import NDArray

from gateway_insights.database import AWAY, Pool
from gateway_insights.embedding import Embedder
from gateway_insights.embedding.indexes import ensure_indexes
from gateway_insights.embedding.sql import TABLE, waiting_predicate
from gateway_insights.embedding.texts import MOST_CHARACTERS
from model_gateway.connection import AWAY as REDIS_AWAY
from model_gateway.errors import GatewayError

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

BATCH: Final = 32
_IDLE_SECONDS: Final = 1.0
_PAUSES: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds to wait after the first, second, ... failure in a row; the last one from then on."""
_NICENESS: Final = 10
_FAULT_OF_TEXT: Final = frozenset({"upstream_rejected", "request_too_large", "invalid_value"})
_LATER: Final = (*AWAY, *REDIS_AWAY, asyncpg.PostgresError, GatewayError)
"""What may be otherwise when it is tried again."""

_WAITING: Final = f"""
    SELECT time, event_id, CASE WHEN length(request_text) <= {2 * MOST_CHARACTERS} THEN request_text
        ELSE left(request_text, {MOST_CHARACTERS}) || ' ' || right(request_text, {MOST_CHARACTERS}) END AS text
    FROM {TABLE} WHERE %s ORDER BY time DESC, event_id DESC LIMIT {BATCH}
"""  # noqa: S608 - constants
_WRITE: Final = f"UPDATE {TABLE} SET embedding = $3, embedding_model = $4 WHERE time = $1 AND event_id = $2"  # noqa: S608

Vector = NDArray[np.float32]
Unstored = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Event ids to the texts that were asked, for rows that are stored without: ``Texts.of_events``."""


class EmbedLoop:
    """The one place of the process that embeds rows, in one thread of low priority."""

    def __init__(self, pool: Pool, embedder: Embedder, unstored: Unstored) -> None:
        self._pool = pool
        self._embedder = embedder
        self._unstored = unstored
        self._thread = ThreadPoolExecutor(1, "embedding", initializer=_step_back)
        self._indexed = False
        self._failures = 0
        self.embedded = 0
        """Rows that were given a vector since the start."""

    async def run(self) -> None:
        """Embed whatever waits, newest first, until cancelled."""
        try:
            while True:
                pause = await self._turn()
                await asyncio.sleep(pause)
        finally:
            self.close()

    def close(self) -> None:
        """Let the thread go, once it is through with its batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> float:
        """Do a batch; seconds to wait before the next."""
        try:
            if not self._indexed:
                self._indexed = await self.ensure_indexes()
            found = await self.embed_batch()
        except _LATER as error:
            return self._failed(error)
        self._failures = 0
        return 0.0 if found else _IDLE_SECONDS

    async def ensure_indexes(self) -> bool:
        """The indexes of the model, see ``indexes.ensure_indexes``."""
        await self._in_thread(lambda: self._embedder.dimensions)
        return await ensure_indexes(self._pool, self._embedder)

    async def embed_batch(self) -> int:
        """Give the newest rows that wait their vectors; how many waited.

        A row without a text, or with one that the model refuses, gets the model's name alone and waits no longer.

        Raises:
            GatewayError: the model did not answer; the rows still wait.
        """
        name = await self._in_thread(lambda: self._embedder.name)
        rows = await self._pool.fetch(_WAITING % waiting_predicate(self._embedder))
        texts = await self._texts(rows)
        vectors = await self._in_thread(partial(self._vectors, list(dict.fromkeys(filter(None, texts)))))
        found = [vectors.get(text) for text in texts]
        values = [(row["time"], row["event_id"], vector, name) for row, vector in zip(rows, found, strict=True)]
        await self._pool.executemany(_WRITE, values)
        self.embedded += sum(vector is not None for vector in found)
        return len(rows)

    async def _texts(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """The rows' texts; what is not stored may still stand in the streams."""
        missing = [row["event_id"] for row in rows if not row["text"]]
        elsewhere = await self._unstored(missing) if missing else {}
        return [row["text"] or elsewhere.get(row["event_id"], "") for row in rows]

    def _vectors(self, texts: list[str]) -> dict[str, Vector]:
        """In the thread: all at once, and one by one where one of them is refused."""
        try:
            return dict(zip(texts, self._embedder.embed(texts), strict=True))
        except GatewayError as error:
            if error.code not in _FAULT_OF_TEXT:
                raise
        if len(texts) == 1:
            return {}
        return {text: vector for one in texts for text, vector in self._vectors([one]).items()}

    def _failed(self, error: BaseException) -> float:
        """Log the first failure in a row; seconds to wait."""
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        if not self._failures:
            _log.warning("insights.embedding_waits", error=type(error).__name__, reason=str(error)[:200])
        self._failures += 1
        return pause

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _step_back() -> None:
    """Lower this thread's priority; on Linux that is a thread's own."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
