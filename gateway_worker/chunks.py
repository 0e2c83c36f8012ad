"""Chunks on their way out: signed in order, written together where they came together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway_worker.records import Entry
from model_gateway.dialects.answers import Piece
from model_gateway.signing import ChunkChain

_MAX_PENDING: Final = 256

Emit = Callable[[list[Entry], str], Awaitable[None]]
"""Writes chunks, with the signature of the last one; raises what stops the call."""


class ChunkWriter:
    """Signs chunks in order and emits them; those that arrive while a write is under way go in the next one."""

    def __init__(self, chain: ChunkChain, emit: Emit, served_by: str) -> None:
        """``served_by`` stands on the first chunk's entry."""
        self._served_by = served_by
        self._chain = chain
        self._emit = emit
        self._pending: list[Entry] = []
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ChunkWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        """What was signed must be out before anything follows, on the way out by an error too."""
        await self.flush()

    async def put(self, piece: Piece) -> None:
        """Sign a chunk and see it on its way.

        Raises:
            whatever ``emit`` raised for chunks before it.
        """
        index = self._chain.index
        served_by = "" if index else self._served_by
        data = self._chain.seal(piece.data)
        self._pending.append(Entry("chunk", data, index, end=False, event=piece.event, served_by=served_by))
        if self._writing is None or self._writing.done():
            await self._settle_write()
            self._writing = asyncio.create_task(self._write(), name="emit")
        elif len(self._pending) >= _MAX_PENDING:
            await self.flush()

    async def flush(self) -> None:
        """Wait until everything is written."""
        while self._writing is not None or self._pending:
            if self._writing is None:
                self._writing = asyncio.create_task(self._write(), name="emit")
            # Shielded: a write must not be torn from its answer by a cancellation.
            await asyncio.shield(self._writing)
            await self._settle_write()

    async def _settle_write(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            await self._emit(batch, self._chain.previous)
