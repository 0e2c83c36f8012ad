"""One call of the OpenAI provider by ``transport: http`` and by ``transport: sdk``: CPU time, and the ratio.

Run as ``python -m benchmarks.transports``. The upstream is a process of its own, so the CPU time is the caller's
alone. Both transports take turns for some rounds; the medians of the rounds are printed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from benchmarks.bare import TEXT
from benchmarks.children import bounded, running
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.settings import ModelRow

CONCURRENCY = 64
ROUNDS = 5
ROUND_SECONDS = 3.0
WARM_UP_SECONDS = 1.0
MOST_SECONDS = 120.0
TRANSPORTS = ("http", "sdk")
MESSAGES = [{"role": "user", "content": TEXT}]


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls in one second, and the CPU time of one in microseconds."""

    rate: float
    cpu: float


def provider(base_url: str, transport: str, http: aiohttp.ClientSession) -> ProviderInterface:
    """The provider as a worker makes it of a row."""
    row = ModelRow.model_validate({"provider": "openai", "api_base": base_url, "free": True, "transport": transport})
    return ProviderFactory.create("benchmark", row, http, {})


async def measure(called: ProviderInterface, seconds: float) -> Measured:
    """Whole calls, 64 at once, for so long."""
    started, cpu = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(_calls(called, started + seconds)) for _ in range(CONCURRENCY)]
    calls = sum(caller.result() for caller in callers)
    return Measured(calls / (time.monotonic() - started), (time.process_time() - cpu) * 1e6 / calls)


async def _calls(called: ProviderInterface, deadline: float) -> int:
    """One call after the other; how many."""
    count = 0
    while time.monotonic() < deadline:
        await called.complete(messages=MESSAGES, model="good")
        count += 1
    return count


async def compare(base_url: str, http: aiohttp.ClientSession) -> None:
    """Both transports in turns, and a table of it."""
    found: dict[str, list[Measured]] = {transport: [] for transport in TRANSPORTS}
    providers = {transport: provider(base_url, transport, http) for transport in TRANSPORTS}
    for called in providers.values():
        await measure(called, WARM_UP_SECONDS)
    for _ in range(ROUNDS):
        for transport, called in providers.items():
            found[transport].append(await measure(called, ROUND_SECONDS))
    for called in providers.values():
        await called.close()
    print("transport  calls/s  CPU us/call  x http")
    for transport, rounds in found.items():
        ratio = median(mine.cpu / theirs.cpu for mine, theirs in zip(rounds, found["http"], strict=True))
        rate, cpu = median(each.rate for each in rounds), median(each.cpu for each in rounds)
        print(f"{transport:9}  {rate:7.0f}  {cpu:11.0f}  {ratio:6.1f}")


async def main() -> None:
    """Against an upstream of our own."""
    print(f"whole calls, {CONCURRENCY} at once; medians of {ROUNDS} rounds of {ROUND_SECONDS:g} s")
    connector = aiohttp.TCPConnector(limit=0)
    with tempfile.TemporaryDirectory() as name:
        async with (
            running(Path(name), "tests.upstream", "--seconds", str(MOST_SECONDS)) as upstream,
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http,
        ):
            await compare(f"http://127.0.0.1:{upstream.said}/v1", http)


if __name__ == "__main__":
    uvloop.run(bounded(main(), MOST_SECONDS))
