"""The worker: reads, leases, reclaim, cancellations, drain. What a request is, is the handler's business."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway_worker.delivery import Delivery, Slots
from gateway_worker.transitions import RUNNING_TTL_MS
from model_gateway.connection import AWAY
from model_gateway.errors import GatewayError
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import GatewayConfig
from model_gateway.streams import GROUP, Keys
from model_gateway.tasks import end, watch

_log = structlog.get_logger(__name__)
_RENEW: Final = load_script("gateway_worker", "renew", "model_gateway:prelude", allow_oom=True)

BLOCK_MS: Final = 1_000
_RENEW_BATCH: Final = 100
_CONTROL_COUNT: Final = 500
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 2.0


Handler = Callable[[Delivery], Awaitable[None]]


async def _nothing_to_reconcile() -> None:
    """Nothing is known that Redis could have lost."""


class Worker:
    """Takes entries off the request stream and keeps their leases until they are handled."""

    def __init__(
        self,
        redis: Redis,
        scripts: Scripts,
        keys: Keys,
        config: GatewayConfig,
        name: str,
        *,
        reconcile: Callable[[], Awaitable[None]] = _nothing_to_reconcile,
    ) -> None:
        """``redis`` must allow answers to take longer than ``BLOCK_MS``.

        ``reconcile`` is called before anything is taken from a Redis, and now and then: it may be another one by now.
        """
        self._reconcile = reconcile
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._name = name
        self._lease = config.worker.lease_seconds
        self._drain_seconds = config.drain_seconds
        self.slots = Slots(config.worker.slots, config.worker.max_parked)
        self._hands: dict[str, Delivery] = {}
        self._stopping = asyncio.Event()
        self._connected_at: float | None = None
        self._away = False

    async def run(self, handler: Handler) -> None:
        """Work until ``stop``, then finish what runs within the drain time; the rest is left for reclaim."""
        reader = asyncio.create_task(self._read(handler), name="read")
        upkeep = [
            asyncio.create_task(loop, name=name)
            for name, loop in (
                ("renew", self._renew()),
                ("reclaim", self._reclaim(handler)),
                ("control", self._listen()),
            )
        ]
        try:
            await watch(reader, *upkeep)
            await self._drain()
        finally:
            await end(reader, *upkeep)

    def stop(self) -> None:
        """Take nothing new."""
        self._stopping.set()
        self.slots.wake()

    # -- taking

    async def _read(self, handler: Handler) -> None:
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            await self.slots.wait_free()
            try:
                if self._connected_at is None:
                    await self._join()
                found: Any = await self._redis.xreadgroup(
                    GROUP,
                    self._name,
                    {self._keys.requests: ">"},
                    count=max(1, self.slots.free),
                    block=BLOCK_MS,
                )
                delay = _FIRST_DELAY
            except (*AWAY, ResponseError, GatewayError) as error:
                self._note_away(error)
                await self._pause(delay)
                delay = min(delay * 2, _LONGEST_DELAY)
                continue
            for _, entries in found or ():
                for entry, fields in entries:
                    self._start(handler, entry.decode(), fields, 1)

    async def _join(self) -> None:
        """Make the group if it is not there: on a new Redis, or one that came back empty."""
        try:
            await self._redis.xgroup_create(self._keys.requests, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self._reconcile()
        self._connected_at = asyncio.get_running_loop().time()
        self._away = False
        _log.info("worker.connected", worker=self._name)

    def _note_away(self, error: Exception) -> None:
        """Say so once, and join anew when Redis is back."""
        if not self._away:
            _log.warning("worker.redis_away", worker=self._name, error=str(error)[:200])
        self._away = True
        self._connected_at = None

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past a stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _start(self, handler: Handler, entry: str, fields: Mapping[bytes, bytes] | None, count: int) -> None:
        if entry in self._hands:
            return
        delivery = Delivery(entry, fields or {}, count, self.slots)
        self._hands[entry] = delivery
        self.slots.take()
        delivery.task = asyncio.create_task(self._handle(handler, delivery), name=f"request {entry}")

    async def _handle(self, handler: Handler, delivery: Delivery) -> None:
        try:
            await handler(delivery)
        except asyncio.CancelledError:
            _log.warning("worker.let_go", entry=delivery.entry, worker=self._name)
        except Exception:  # noqa: BLE001 - a bug in handling one request must not stop the others; its lease will expire
            _log.exception("worker.failed", entry=delivery.entry, worker=self._name)
        finally:
            self._hands.pop(delivery.entry, None)
            self.slots.give_back()

    # -- leases

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            hands = list(self._hands.values())
            batches = [hands[start : start + _RENEW_BATCH] for start in range(0, len(hands), _RENEW_BATCH)]
            await asyncio.gather(*(self._renew_some(batch) for batch in batches))

    async def _renew_some(self, hands: list[Delivery]) -> None:
        tokens = [delivery.token for delivery in hands]
        args = {
            "group": GROUP,
            "consumer": self._name,
            "entries": [delivery.entry for delivery in hands],
            "tokens": tokens,
            "running_ttl_ms": str(RUNNING_TTL_MS),
        }
        records = [delivery.record or self._keys.requests + ":none" for delivery in hands]
        try:
            kept = await self._scripts.call(_RENEW, [self._keys.requests, *records], args, within=self._lease / 3)
        except GatewayError as error:
            self._note_away(error)
            return
        except ResponseError as error:
            _log.warning("worker.not_renewed", worker=self._name, error=str(error)[:200])
            return
        for delivery, token, mine in zip(hands, tokens, kept, strict=True):
            # A request that was admitted or settled meanwhile has not lost anything.
            if not mine and delivery.token == token and delivery.entry in self._hands:
                _log.warning("worker.lease_lost", entry=delivery.entry, worker=self._name)
                delivery.lose()

    # -- reclaim

    async def _reclaim(self, handler: Handler) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(self._lease / 3)
            try:
                await self._reconcile()
                # Idle times ran on while Redis was away: give the owners one lease to renew.
                if self._connected_for() > self._lease:
                    await self._reclaim_expired(handler)
            except (*AWAY, ResponseError, GatewayError) as error:
                _log.warning("worker.not_reclaimed", worker=self._name, error=str(error)[:200])

    def _connected_for(self) -> float:
        if self._connected_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._connected_at

    async def _reclaim_expired(self, handler: Handler) -> None:
        idle = int(self._lease * 1000)
        after = "-"
        while self.slots.free and not self._stopping.is_set():
            expired: Any = await self._redis.xpending_range(
                self._keys.requests, GROUP, min=after, max="+", count=self.slots.free, idle=idle
            )
            if not expired:
                return
            counts = {item["message_id"]: int(item["times_delivered"]) + 1 for item in expired}
            theirs = [entry for entry in counts if entry.decode() not in self._hands]
            if theirs:
                await self._claim(handler, theirs, counts, idle)
            after = f"({expired[-1]['message_id'].decode()}"

    async def _claim(self, handler: Handler, entries: list[bytes], counts: dict[bytes, int], idle: int) -> None:
        claimed: Any = await self._redis.xclaim(
            self._keys.requests, GROUP, self._name, min_idle_time=idle, message_ids=list(entries)
        )
        for entry, fields in claimed:
            _log.info("worker.reclaimed", entry=entry.decode(), worker=self._name)
            self._start(handler, entry.decode(), fields, counts[entry])

    # -- cancellations

    async def _listen(self) -> None:
        after = b"0-0"
        while True:
            try:
                found: Any = await self._redis.xread({self._keys.control: after}, count=_CONTROL_COUNT, block=BLOCK_MS)
                for _, entries in found or ():
                    for entry, fields in entries:
                        await self._cancel(fields)
                        after = entry  # not before: what could not be looked up is read again
            except (RedisError, OSError) as error:
                _log.debug("worker.control_unreadable", worker=self._name, error=str(error)[:200])
                await asyncio.sleep(_LONGEST_DELAY)

    async def _cancel(self, fields: Mapping[bytes, bytes]) -> None:
        """Cancel what is in hand, if its record says so: whoever may write here may not cancel everyone's."""
        owner = b"%b:%b" % (fields.get(b"principal", b""), fields.get(b"id", b""))
        for delivery in list(self._hands.values()):
            if delivery.owner.encode() == owner and await self._is_cancelled(delivery.record):
                delivery.cancel()

    async def _is_cancelled(self, record: str) -> bool:
        try:
            return bool(await cast("Any", self._redis.hexists(record, "cancel")))
        except ResponseError:  # its agent has put something else in the record's place
            return False

    # -- drain

    async def _drain(self) -> None:
        """Wait for what is in hand, a claim that was under way included; let go of the rest."""
        deadline = asyncio.get_running_loop().time() + self._drain_seconds
        if self._hands:
            _log.info("worker.draining", worker=self._name, requests=len(self._hands))
        while tasks := [delivery.task for delivery in self._hands.values() if delivery.task is not None]:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                await end(*tasks)
                return
            await asyncio.wait(tasks, timeout=left)
