"""Trimming, by id and never by count: what is unread, pending or not yet old enough stays."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from model_gateway.clock import Clock
from model_gateway.connection import AWAY
from model_gateway.errors import GatewayError
from model_gateway.insights import GROUP as INSIGHTS
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import Retention, Span
from model_gateway.streams import GROUP, Keys

_log = structlog.get_logger(__name__)
PERIOD_SECONDS: Final = 30.0
_FORGET: Final = load_script("gateway_worker", "forget_consumers", "model_gateway:prelude", allow_oom=True)
_IDLE_CONSUMER_MS: Final = 86_400_000
_CUT: Final = 1_000
_MAX_CUTS: Final = 2_000
_LIVE_REPLIES_MS: Final = 300_000
"""Replies younger than this may be waited for; older ones serve only a repeated id."""

_WINDOW_MS: Final = 2 * 86_400_000
"""Events of the open window, and of the one before it that may still settle, are the ledger's journal."""


class Janitor:
    """Keeps the streams within their retention; one worker at a time."""

    def __init__(
        self,
        redis: Redis,
        scripts: Scripts,
        keys: Keys,
        retention: Retention,
        *,
        clock: Clock,
        name: str,
        insights: bool = True,
    ) -> None:
        """``insights``: whether somebody is to read the events into PostgreSQL."""
        self._insights = insights
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._retention = retention
        self._clock = clock
        self._name = name

    async def run(self) -> None:
        """Sweep every half minute, until cancelled."""
        while True:
            try:
                if await self._my_turn():
                    await self.sweep()
            except (*AWAY, ResponseError, GatewayError) as error:
                _log.warning("janitor.skipped", error=str(error)[:200])
            await asyncio.sleep(PERIOD_SECONDS)

    async def _my_turn(self) -> bool:
        """A lock that runs out before the next sweep."""
        ttl = int(PERIOD_SECONDS * 900)
        return bool(await self._redis.set(self._keys.epoch + ":janitor", self._name, nx=True, px=ttl))

    async def sweep(self) -> None:
        """Trim what may go; past a byte budget that trimming can't meet, new work is refused."""
        now = self._clock.now_ms()
        full = await self._trim(self._keys.requests, self._retention.requests, now)
        full |= await self._trim_events(now)
        full |= await self._trim_replies(now)
        await self._forget_windows(now)
        if await self._redis.exists(self._keys.requests):
            idle = {"group": GROUP, "idle_ms": str(_IDLE_CONSUMER_MS)}
            await self._scripts.call(_FORGET, [self._keys.requests], idle)
        if full:
            await self._redis.set(self._keys.full, "1", px=int(PERIOD_SECONDS * 2_500))
            _log.error("janitor.storage_full", todo="raise retention.*.bytes, or let consumers catch up")
        else:
            await self._redis.delete(self._keys.full)

    async def _trim_events(self, now: int) -> bool:
        """Trim the events. Insights that are switched off, or too far behind for the bytes, don't hold up requests."""
        events, span = self._keys.events, self._retention.events
        if not self._insights and await self._redis.exists(events):
            await self._redis.xgroup_destroy(events, INSIGHTS)
        if not await self._trim(events, span, now, keep_ms=_WINDOW_MS):
            return False
        still_full = await self._trim(events, span, now, keep_ms=_WINDOW_MS, without=INSIGHTS)
        if not still_full:
            _log.error("janitor.insights_lose_events", todo="bring PostgreSQL back, or raise retention.events.bytes")
        return still_full

    async def _trim(self, stream: str, span: Span, now: int, *, keep_ms: int = 0, without: str = "") -> bool:
        """Trim one stream by time, then by bytes, but for the group ``without``. Whether it is still past its bytes."""
        floor = await self._needed_from(stream, without)
        if keep_ms:
            floor = min(floor, (now - keep_ms, 0))
        old = min(floor, (now - span.seconds * 1000, 0))
        await self._redis.xtrim(stream, minid=_text(old), approximate=False)
        return await self._cut_to(stream, span.bytes, floor) > span.bytes

    async def _trim_replies(self, now: int) -> bool:
        """All reply streams share one byte budget; the largest lose first what nobody can be waiting for."""
        streams = [stream async for stream in self._redis.scan_iter(match=self._keys.replies("*"), count=1000)]
        sizes = {stream.decode(): await self._bytes(stream.decode()) for stream in streams}
        total, budget = sum(sizes.values()), self._retention.replies.bytes
        for stream, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if total <= budget:
                break
            total -= size - await self._cut_to(stream, size - (total - budget), (now - _LIVE_REPLIES_MS, 0))
        return total > budget

    async def _cut_to(self, stream: str, budget: int, floor: tuple[int, int]) -> int:
        """Cut the oldest entries below ``floor``, a few at a time, until the stream fits; its bytes then."""
        for _ in range(_MAX_CUTS):
            size = await self._bytes(stream)
            if size <= budget:
                break
            if not await self._redis.xtrim(stream, minid=_text(floor), approximate=True, limit=_CUT):
                break
        return await self._bytes(stream)

    async def _forget_windows(self, now: int) -> None:
        """Drop balances of windows whose events are gone."""
        kept = max(self._retention.events.seconds, _WINDOW_MS // 1000)
        oldest = datetime.fromtimestamp(now / 1000 - kept, UTC).strftime("%Y-%m-%d")
        for key, part in ((self._keys.ledger, 1), (self._keys.spend, 0)):
            names: Any = await self._redis.hkeys(key)
            old = [name for name in names if name.decode().split("|")[part] < oldest]
            if old:
                await cast("Any", self._redis.hdel(key, *old))

    async def _bytes(self, stream: str) -> int:
        return int(await self._redis.memory_usage(stream) or 0)

    async def _needed_from(self, stream: str, without: str) -> tuple[int, int]:
        """The oldest entry that a group other than ``without`` has not read or not acknowledged."""
        floor = (2**62, 0)
        if not await self._redis.exists(stream):
            return floor
        groups = await self._redis.xinfo_groups(stream)
        for group in (group for group in groups if group["name"] != without.encode()):
            floor = min(floor, _next(place(group["last-delivered-id"])))
            pending: Any = await self._redis.xpending(stream, group["name"])
            if pending["min"]:
                floor = min(floor, place(pending["min"]))
        return floor


def place(entry: bytes) -> tuple[int, int]:
    """A stream id as numbers, to compare."""
    time, _, number = entry.decode().partition("-")
    return int(time), int(number)


def _text(at: tuple[int, int]) -> str:
    return f"{max(at[0], 0)}-{at[1]}"


def _next(at: tuple[int, int]) -> tuple[int, int]:
    return at[0], at[1] + 1
