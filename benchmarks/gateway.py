"""The gateway over HTTP beside a bare aiohttp server: requests/s, latency, and the CPU time of each process.

Run as ``python -m benchmarks.gateway``. The load generator, the bare server and each part of the gateway are
processes of their own on loopback. Both servers take turns for some rounds; the medians of the rounds are printed.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bare import CHUNK_CHARS, TEXT
from benchmarks.children import bounded, cpu_us, running
from benchmarks.load import Job, Result, load

CONCURRENCY = 64
ROUNDS = 3
BUSY_SECONDS = 2.0
ALONE_SECONDS = 1.0
WARM_UP_SECONDS = 1.0
MOST_REQUESTS = 50_000
MOST_SECONDS = 120.0
CONFIG = f"""
models:
  echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002, options: {{chunk_chars: {CHUNK_CHARS}}}}}
budget: {{daily_limit_usd: 1000000}}
insights: {{enabled: false}}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the processes that it consists of."""

    url: str
    token: str
    parts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load found, and the CPU time of each part in microseconds a request."""

    result: Result
    cpu: Mapping[str, float]


@asynccontextmanager
async def gateway(folder: Path, **more: str) -> AsyncIterator[Target]:
    """An embedded Redis, one worker and one front door, as ``make up`` starts them; without insights.

    ``more`` are further variables.
    """
    config, token = folder / "models.yaml", secrets.token_hex(32)
    config.write_text(CONFIG)
    variables = {"GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_CONFIG": str(config), "ADMIN_TOKEN": token}
    ports = {"GATEWAY_PORT": "0", "GATEWAY_EVENTS_PORT": "0"}
    async with running(folder, "gateway_cli", "up", **variables, **ports, **more) as up:
        url = next(word for word in up.said.split() if word.startswith("http://"))
        found = up.children()
        parts = {"front door": found.pop("gateway_api"), "worker": found.pop("gateway_worker")}
        [parts["Redis"]] = found.values()
        yield Target(url, token, parts)


@asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[Target]:
    """The server to compare with."""
    async with running(folder, "benchmarks.bare") as server:
        yield Target(server.said, "none", {"server": server.pid})


async def measure(target: Target, *, stream: bool, concurrency: int, seconds: float) -> Measured:
    """Put a load on a server."""
    before = {name: cpu_us(pid) for name, pid in target.parts.items()}
    job = Job(target.url, target.token, TEXT, stream, concurrency, MOST_REQUESTS, seconds)
    result = await load(job)
    cpu = {name: (cpu_us(pid) - before[name]) / result.requests for name, pid in target.parts.items()}
    return Measured(result, cpu)


async def compare(ours: Target, theirs: Target, *, stream: bool) -> None:
    """Both servers in turns, busy and with one request at a time, and a table of it."""
    for target in (theirs, ours):
        await measure(target, stream=stream, concurrency=CONCURRENCY, seconds=WARM_UP_SECONDS)
    rounds: list[list[Measured]] = []
    for _ in range(ROUNDS):
        rounds.append([])
        for concurrency, seconds in ((CONCURRENCY, BUSY_SECONDS), (1, ALONE_SECONDS)):
            for target in (theirs, ours):
                found = await measure(target, stream=stream, concurrency=concurrency, seconds=seconds)
                rounds[-1].append(found)
    _print("streamed" if stream else "whole", *map(list, zip(*rounds, strict=True)))


def _print(
    kind: str, theirs: list[Measured], ours: list[Measured], theirs_alone: list[Measured], ours_alone: list[Measured]
) -> None:
    """One table; each ratio is taken within its round."""
    yardsticks = [sum(found.cpu.values()) for found in theirs]
    print(f"\n{kind:14}  req/s  p50 ms  p99 ms  p50 ms at 1  CPU us/request  x bare")
    for name, busy, alone in (("bare", theirs, theirs_alone), ("gateway", ours, ours_alone)):
        rate = median(found.result.requests / found.result.seconds for found in busy)
        p50, p99 = (median(values) for values in zip(*((m.result.p50_ms, m.result.p99_ms) for m in busy), strict=True))
        at_one = median(found.result.p50_ms for found in alone)
        used = _cpu([sum(found.cpu.values()) for found in busy], yardsticks)
        print(f"  {name:12} {rate:6.0f}  {p50:6.1f}  {p99:6.1f}  {at_one:11.2f}  {used}")
    for part in ours[0].cpu:
        print(f"    {part:45}  {_cpu([found.cpu[part] for found in ours], yardsticks)}")
    added = median(a.result.p50_ms - b.result.p50_ms for a, b in zip(ours_alone, theirs_alone, strict=True))
    print(f"  added to the p50 of one request at a time: {added:.2f} ms")


def _cpu(used: list[float], yardsticks: list[float]) -> str:
    ratio = median(mine / theirs for mine, theirs in zip(used, yardsticks, strict=True))
    return f"{median(used):14.0f}  {ratio:6.1f}"


async def main() -> None:
    """Whole and streamed."""
    print(f"{CONCURRENCY} at once; medians of {ROUNDS} rounds of {BUSY_SECONDS:g} s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with bare(folder) as theirs, gateway(folder) as ours:
            for stream in (False, True):
                await compare(ours, theirs, stream=stream)


if __name__ == "__main__":
    asyncio.run(bounded(main(), MOST_SECONDS))
