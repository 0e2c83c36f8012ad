"""A paid provider in a process of its own: slow by a seeded measure, and charging for a call as soon as it comes.

It keeps its own ledger of what it was asked and what it charged: all of a call, also when the caller is cut off.
``GET /ledger`` tells it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import aiohttp

from tests.processes import ROOT
from tests.upstream import Recorded, Upstream
from tests.upstream_replies import Behaviour

NANO_PER_TOKEN = Decimal("1234.567")
"""A price that floats and early rounding would lose."""

FASTEST, SLOWEST = 0.02, 0.2
_PAUSES = 3
_MOST_SECONDS = 1800


class PaidProvider(Upstream):
    """Takes 20 to 200 ms for a call, in pauses before and between the parts of its reply."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port)
        self._seed = seed

    async def _speak(
        self,
        request: Recorded,
        said: Iterator[tuple[bytes, int]],
        behaviour: Behaviour,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        parts = list(said)
        self._charge(request, sum(tokens for _, tokens in parts))
        pause = random.Random(f"{self._seed} {request.body!r}").uniform(FASTEST, SLOWEST) / _PAUSES
        size = -(-len(parts) // _PAUSES)
        for start in range(0, len(parts), size):
            await asyncio.sleep(pause)
            together = b"".join(part for part, _ in parts[start : start + size])
            if not await super()._speak(request, iter([(together, 0)]), behaviour, reader, writer):
                return False
        return True


class Invoice:
    """What the provider says that it was asked and charged.

    Attributes:
        calls: how often it was asked each text.
        charged: nano-dollars by text.
    """

    def __init__(self, calls: list[dict[str, Any]]) -> None:
        """``calls``: the ledger's lines."""
        self._lines = calls
        self.calls = Counter(call["text"] for call in calls)
        self.charged: Counter[str] = Counter()
        for call in calls:
            self.charged[call["text"]] += price_of(call["charged"])

    @property
    def total(self) -> int:
        """Nano-dollars for everything."""
        return self.charged.total()

    def until(self, at: float) -> Invoice:
        """What was asked up to a time, by the machine's clock."""
        return Invoice([call for call in self._lines if call["at"] <= at])


def price_of(tokens: int) -> int:
    """Nano-dollars for a call, rounded once."""
    return int((tokens * NANO_PER_TOKEN).quantize(Decimal(1), ROUND_HALF_EVEN))


class RunningProvider:
    """The process, seen from a test."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._ledger_url = f"http://127.0.0.1:{port}/ledger"

    async def invoice(self) -> Invoice:
        """Its ledger as it is now."""
        async with aiohttp.ClientSession() as session, session.get(self._ledger_url) as answer:
            return Invoice((await answer.json())["requests"])


@asynccontextmanager
async def paid_provider(seed: int) -> AsyncIterator[RunningProvider]:
    """A provider in a process of its own, until the ``async with`` ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.paid_provider", "--seed", str(seed)),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)},
    )
    assert process.stdout is not None
    try:
        yield RunningProvider(int(await asyncio.wait_for(process.stdout.readline(), 30)))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A paid provider")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with PaidProvider(arguments.port, arguments.seed) as provider:
        print(provider.port, flush=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _MOST_SECONDS)


if __name__ == "__main__":
    asyncio.run(_main())
