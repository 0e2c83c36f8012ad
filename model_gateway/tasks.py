"""Background tasks that really end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.2


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they are done; their results and errors are dropped.

    Once is not enough before Python 3.12: ``asyncio.wait_for``, through which redis-py sends, swallows a
    cancellation that arrives at the moment its inner future finishes.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def watch(main: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    """Wait for ``main``; raise what ends another before it: a loop that failed in silence would go unnoticed."""
    await asyncio.wait((main, *others), return_when=asyncio.FIRST_COMPLETED)
    for task in (main, *others):
        if task.done():
            task.result()
    await main


@asynccontextmanager
async def background(coroutine: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """A task that lives as long as the block."""
    task = asyncio.create_task(coroutine, name=name)
    try:
        yield task
    finally:
        await end(task)
