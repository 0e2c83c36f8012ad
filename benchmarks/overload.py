"""Overload: how much of the peak is left at 2 and 5 times of it, and how soon all is well again.

Run as ``python -m benchmarks.overload --seconds 60``. An embedded Redis, a front door and two workers, whose model
``echo`` answers after 50 ms, share the machine with the load generator. First the peak, with so many clients that each
waits for its answer; then, for each factor, half the peak, so many times the peak, and half the peak again. Then once
more the peak, as a machine is not always as fast: the mean of both is what the good answers are held against.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median, quantiles

import uvloop

from benchmarks.arrivals import LATE, OK, REFUSED, Arrivals, Job, arrive
from benchmarks.bare import TEXT
from benchmarks.children import bounded, cpu_us
from benchmarks.load import Job as ClosedJob
from benchmarks.load import load
from model_gateway.connection import connect
from model_gateway.tasks import background
from tests.processes import ADMIN_TOKEN, gateway
from tests.redis_server import RedisServer

FACTORS = (2.0, 5.0)
CLIENTS = (96, 128, 192)
PEAK_SECONDS = 5.0
CALM_SECONDS = 10.0
SETTLE_SECONDS = 2.0
BUCKET_SECONDS = 0.5
RECOVERED = 1.5
PROMPT_MS = 50.0
CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002, options: {delay_ms: 50}}
budget: {daily_limit_usd: 1000000}
insights: {enabled: false}
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of an overload.

    Attributes:
        rate: good answers a second, in the time of overload.
        peak: answers a second, before and after, in the mean.
        share: ``rate`` as a part of it.
        p50_ms: of good answers; ``p99_ms`` likewise.
        calm_p99_ms: before the overload.
        refused: how many were refused, with Retry-After.
        refused_p99_ms: how long that took.
        refused_under_50_ms: the part of them that was told so soon.
        late: requests without an answer within 5 s; ``broken``: without a proper one.
        recovery_seconds: until the p99 was within 1.5 times of that before.
        cpu_us: of all processes of the gateway, for each good answer, what refusals cost included; see ``find_peak``.
        memory_mb: of each process, resident: first, highest, last.
    """

    rate: float
    peak: float
    share: float
    p50_ms: float
    p99_ms: float
    calm_p99_ms: float
    refused: int
    refused_p99_ms: float
    refused_under_50_ms: float
    late: int
    broken: int
    recovery_seconds: float
    cpu_us: float
    memory_mb: dict[str, str]

    def figures(self) -> dict[str, object]:
        """All of it, rounded."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }


async def find_peak(url: str, pids: dict[str, int]) -> float:
    """The most answers a second that clients get who wait for one before they ask again."""
    rates = []
    for clients in CLIENTS:
        before = sum(map(cpu_us, pids.values()))
        done = await load(ClosedJob(url, ADMIN_TOKEN, TEXT, False, clients, 1_000_000, PEAK_SECONDS))
        rates.append(done.requests / done.seconds)
        cost = (sum(map(cpu_us, pids.values())) - before) / done.requests
        print(
            f"  {clients} clients: {rates[-1]:.0f} answers/s, p50 {done.p50_ms:.0f} ms, p99 {done.p99_ms:.0f} ms, "
            f"CPU {cost:.0f} us/answer"
        )
    return max(rates)


async def overload(url: str, pids: dict[str, int], peak: float, factor: float, seconds: float) -> Found:
    """Calm, overload, calm; and what became of it."""
    memory: dict[str, list[float]] = {name: [] for name in pids}
    used: list[tuple[float, float]] = []
    phases = [(peak / 2, CALM_SECONDS), (peak * factor, seconds), (peak / 2, CALM_SECONDS)]
    async with background(_watch(pids, memory, used), "watch"):
        done = await arrive(Job(url, ADMIN_TOKEN, "echo", TEXT, phases))
    mean_peak = (peak + await find_peak(url, pids)) / 2
    start, end = CALM_SECONDS, CALM_SECONDS + seconds
    good, refused = of(done, OK, start, end), of(done, REFUSED, start, end)
    calm_ms = p99(of(done, OK, SETTLE_SECONDS, start))
    return Found(
        rate=len(good) / seconds,
        peak=mean_peak,
        share=len(good) / seconds / mean_peak,
        p50_ms=median(good or [float("nan")]),
        p99_ms=p99(good),
        calm_p99_ms=calm_ms,
        refused=len(refused),
        refused_p99_ms=p99(refused),
        refused_under_50_ms=sum(ms < PROMPT_MS for ms in refused) / max(1, len(refused)),
        late=done.ended.count(LATE),
        broken=sum(how not in (OK, REFUSED, LATE) for how in done.ended),
        recovery_seconds=_recovery_seconds(done, end, calm_ms),
        cpu_us=(_at(used, done.started + end) - _at(used, done.started + start)) / max(1, len(good)),
        memory_mb={name: f"{mb[0]:.0f}/{max(mb):.0f}/{mb[-1]:.0f}" for name, mb in memory.items()},
    )


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _watch(pids: dict[str, int], memory: dict[str, list[float]], used: list[tuple[float, float]]) -> None:
    while True:
        used.append((time.monotonic(), sum(map(cpu_us, pids.values()))))
        for name, pid in pids.items():
            memory[name].append(_resident_mb(pid))
        await asyncio.sleep(BUCKET_SECONDS)


def _at(used: list[tuple[float, float]], moment: float) -> float:
    """CPU time until the first sample after a moment."""
    return next((cpu for at, cpu in used if at >= moment), used[-1][1])


def p99(values: list[float]) -> float:
    """The 99th percentile; not a number where there is too little."""
    return quantiles(values, n=100)[98] if len(values) > 1 else float("nan")


def of(done: Arrivals, kind: str, start: float, end: float) -> list[float]:
    """How long requests of a kind took that were due in a span of seconds."""
    rows = zip(done.at, done.took_ms, done.ended, strict=True)
    return [ms for at, ms, how in rows if how == kind and start <= at < end]


def _recovery_seconds(done: Arrivals, end: float, before_ms: float) -> float:
    """Seconds from the overload's end to the last half second that was not yet as before."""
    last = 0.0
    for step in range(int(CALM_SECONDS / BUCKET_SECONDS)):
        start = end + step * BUCKET_SECONDS
        stop = start + BUCKET_SECONDS
        due = sum(start <= at < stop for at in done.at)
        answered = of(done, OK, start, stop)
        if len(answered) < due or p99(answered) > RECOVERED * before_ms:
            last = stop - end
    return last


async def main(seconds: float, factors: list[float], given_peak: float) -> None:
    """Start everything, find the peak, and overload it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        server = RedisServer(folder / "redis")
        try:
            await server.start()
            redis = connect(server.url)
            async with gateway(redis, server.url, folder, CONFIG) as house:
                parts = {"worker 1": await house.start_worker("w1"), "worker 2": await house.start_worker("w2")}
                parts["front door"] = await house.start_api()
                pids = {name: part.process.pid for name, part in parts.items()}
                assert server.process is not None
                pids["Redis"] = server.process.pid
                peak = given_peak or await find_peak(house.url, pids)
                print(f"the peak is {peak:.0f} answers/s", flush=True)
                for factor in factors:
                    found = await overload(house.url, pids, peak, factor, seconds)
                    print(f"{factor:g} x the peak for {seconds:g} s:")
                    for name, value in found.figures().items():
                        print(f"  {name:20} {value}", flush=True)
            await redis.aclose()
        finally:
            server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each overload lasts")
    parser.add_argument("--factor", type=float, action="append", help="times the peak; default: 2 and 5")
    parser.add_argument("--peak", type=float, default=0.0, help="answers a second, where it is known already")
    given = parser.parse_args()
    uvloop.run(bounded(main(given.seconds, given.factor or list(FACTORS), given.peak), 600 + 5 * given.seconds))
