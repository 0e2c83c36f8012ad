"""The trouble: workers and Redis killed in turns while requests run, and the budget looked at all the time."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, cast

from model_gateway.connection import AWAY, connect
from tests.invariants import KEYS, check_budget
from tests.processes import Gateway, Part
from tests.redis_server import RedisServer

WORKERS = ("w1", "w2", "w3")
_SAMPLE_SECONDS = 0.02
_HELD_BY = """
local flat, held = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do
  if redis.call('HGET', ARGV[1] .. flat[i], 'consumer') == ARGV[2] then
    held[#held + 1] = flat[i] .. ' ' .. string.match(flat[i + 1], '[^|]*$')
  end
end
return held
"""
_RECORDS = KEYS.record("", "")[:-1]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how long a turn is, and how often something is killed in a turn of workers and in one of Redis.

    ``turns`` is how many there are: a Redis that is killed more often than once a lease lets nobody take anything over.
    """

    turn: float
    worker: float
    redis: float
    turns: int = 1_000


@dataclass(slots=True)
class Toll:
    """What was done, and what the kills hit.

    Attributes:
        workers, redis: how often each was killed.
        in_flight: attempts that were open in a worker when it was killed, as ``<principal>:<id> <attempt>``.
        samples: how often the budget was looked at.
    """

    workers: int = 0
    redis: int = 0
    in_flight: set[str] = field(default_factory=set)
    samples: int = 0


@dataclass(slots=True)
class Trouble:
    """Kills what it is given, until it is stopped.

    ``redis_down`` is called with a Redis that was just killed, before it is started again.
    """

    house: Gateway
    server: RedisServer
    parts: dict[str, Part]
    chance: random.Random
    pace: Pace
    limit_nano: int
    redis_down: Callable[[], Awaitable[object]] | None = None
    toll: Toll = field(default_factory=Toll)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def during(self, load: Awaitable[None]) -> None:
        """Make trouble for as long as the load runs; fails with whichever fails first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_budget())
            group.create_task(self._in_turns())
            try:
                await load
            finally:
                self._over.set()

    async def _in_turns(self) -> None:
        now = asyncio.get_running_loop().time
        turns = ((self._kill_worker, self.pace.worker), (self._kill_redis, self.pace.redis))
        for strike, every in islice(cycle(turns), self.pace.turns):
            end = now() + self.pace.turn
            while now() < end:
                if await self._wait(every):
                    return
                await strike()

    async def _wait(self, seconds: float) -> bool:
        """Wait; whether it is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._over.is_set()

    async def _kill_worker(self) -> None:
        name = self.chance.choice(WORKERS)
        assert self.parts[name].process.returncode is None, self.parts[name].log.read_text()
        await self.parts[name].stop(signal.SIGKILL)
        self.toll.workers += 1
        self.toll.in_flight |= await self.held_by(name)
        self.parts[name] = await self.house.start_worker(name)

    async def held_by(self, name: str) -> set[str]:
        """The attempts that are open in a worker's name."""
        found = await cast("Any", self.house.redis.eval(_HELD_BY, 1, KEYS.open, _RECORDS, name))
        return {held.decode() for held in found}

    async def _kill_redis(self) -> None:
        self.server.stop(signal.SIGKILL)
        self.toll.redis += 1
        if self.redis_down is not None:
            await self.redis_down()
        await self.server.start()

    async def _watch_budget(self) -> None:
        """I1 and I2, over and over, each time at one instant."""
        redis = connect(self.server.url)
        try:
            while not await self._wait(_SAMPLE_SECONDS):
                with suppress(*AWAY):
                    await check_budget(redis, self.limit_nano)
                    self.toll.samples += 1
        finally:
            await redis.aclose()
