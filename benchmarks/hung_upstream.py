"""A provider that hangs, beside one that answers: is anybody else slower for it?

Run as ``python -m benchmarks.hung_upstream --seconds 60``. An embedded Redis, a front door and two workers, everything
at its default settings. A steady load goes to ``good`` and to ``bad``. First both are answered after 50 ms; then the
provider of ``bad`` accepts calls and never answers; then both are answered again. ``bad`` is asked for more than both
workers may call at once (``max_concurrency``, twice 256). Printed: how long requests to ``good`` took, and what became
of those to ``bad``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.arrivals import OK, Arrivals, Job, arrive
from benchmarks.bare import TEXT
from benchmarks.children import bounded
from benchmarks.overload import of, p99
from model_gateway.connection import connect
from tests.processes import ADMIN_TOKEN, gateway
from tests.redis_server import RedisServer
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

GOOD_RATE, BAD_RATE = 150.0, 50.0
GOOD_SECONDS, BAD_SECONDS = 5.0, 150.0
SETTLE_SECONDS = 3.0
ANSWERS, HANGS = Behaviour(delay=0.05), Behaviour(hold_at=0)
CONFIG = """
models:
  good: {{provider: openai, api_base: "{base}", api_key_env: SOME_KEY, free: true}}
  bad: {{provider: openai, api_base: "{base}", api_key_env: SOME_KEY, free: true}}
insights: {{enabled: false}}
"""


async def both(url: str, seconds: float) -> tuple[Arrivals, Arrivals]:
    """The load on both, for some seconds; until the last of it has been answered."""
    good = Job(url, ADMIN_TOKEN, "good", TEXT, [(GOOD_RATE, seconds)], GOOD_SECONDS, connections=300)
    bad = Job(url, ADMIN_TOKEN, "bad", TEXT, [(BAD_RATE, seconds)], BAD_SECONDS, connections=3_000)
    return await asyncio.gather(arrive(good), arrive(bad))


async def part(name: str, url: str, seconds: float) -> tuple[float, float]:
    """One part; the median and the 99th percentile of requests to ``good``."""
    good, bad = await both(url, seconds)
    answered = of(good, OK, SETTLE_SECONDS, seconds)
    found = median(answered or [float("nan")]), p99(answered)
    print(f"{name:10} good: p50 {found[0]:.1f} ms, p99 {found[1]:.1f} ms, {dict(Counter(good.ended))}")
    print(
        f"{'':10} bad: p99 {p99(of(bad, OK, SETTLE_SECONDS, seconds)):.1f} ms, {dict(Counter(bad.ended))}", flush=True
    )
    return found


async def measure(url: str, upstream: Upstream, seconds: float) -> float:
    """Before, meanwhile, after; the p99 of ``good`` meanwhile over that before."""
    upstream.script["good"] = upstream.script["bad"] = ANSWERS
    before = await part("both good", url, seconds)
    upstream.script["bad"] = HANGS
    meanwhile = await part("bad hangs", url, seconds)
    upstream.script["bad"] = ANSWERS
    upstream.release()
    await part("again good", url, seconds)
    print(f"good, while bad hung: p50 x {meanwhile[0] / before[0]:.2f}, p99 x {meanwhile[1] / before[1]:.2f}")
    return meanwhile[1] / before[1]


async def main(seconds: float) -> None:
    """Start everything, and measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        server = RedisServer(folder / "redis")
        try:
            await server.start()
            redis = connect(server.url)
            async with Upstream() as upstream:
                config = CONFIG.format(base=upstream.base_url)
                async with gateway(redis, server.url, folder, config, SOME_KEY="sk-test") as house:
                    await house.start_worker("w1")
                    await house.start_worker("w2")
                    await house.start_api()
                    await measure(house.url, upstream, seconds)
            await redis.aclose()
        finally:
            server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each of the three parts lasts")
    given = parser.parse_args()
    uvloop.run(bounded(main(given.seconds), 3 * (given.seconds + BAD_SECONDS)))
