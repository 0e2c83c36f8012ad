"""The ledger out of its journal: replaying the events from empty gives every balance, to the nano-dollar."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import WatchError

from model_gateway.events import CHARGING, RESTORED, TERMINAL, decode, usage_of
from model_gateway.ledger import initialise
from model_gateway.money import Price
from model_gateway.streams import Keys

_PAGE: Final = 1_000
_TRIES: Final = 20


@dataclass(slots=True)
class Replay:
    """What the events add up to.

    Attributes:
        settled, overrun: nano-dollars by (scope, window).
        open: reservations that nothing has closed, by ``<principal>:<id>``.
        spend: the fields of the spend hash.
        mismatches: charges that the event's own tokens and price do not explain.
        events: how many there were.
        first_window: the oldest window that any of them names; older ones have been trimmed.
    """

    settled: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    overrun: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    spend: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    mismatches: list[str] = field(default_factory=list)
    events: int = 0
    first_window: str = ""

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event into account, in the order of the stream."""
        self.events += 1
        self.first_window = self.first_window or event.get("window") or ""
        kind = event["event_type"]
        if kind == "model.request.start":
            self.open[_owner(event)] = dict(event)
        elif kind in CHARGING:
            self._charge(event)
        elif kind == "model.budget.overrun":
            for scope in _scopes(event):
                self.overrun[scope, event["window"]] += event["usd_nano"]
        elif kind == "model.budget.reset":
            self._reset(event["scope"], event["window"])

    def _charge(self, event: Mapping[str, Any]) -> None:
        opened = self.open.get(_owner(event))
        if event["event_type"] != RESTORED and opened is not None and opened["attempt"] == event["attempt"]:
            del self.open[_owner(event)]
        cost = event["usd_nano"] or 0
        for scope in _scopes(event):
            self.settled[scope, event["window"]] += cost
        self._count(event, cost)
        if not explained(event):
            self.mismatches.append(f"{event['id']}: {cost} nano-dollars are not what its tokens cost")

    def _count(self, event: Mapping[str, Any], cost: int) -> None:
        window, model = event.get("window"), event["model"]
        if not window:
            return
        self.spend[f"{window}|spent_nano|{model}"] += cost
        self.spend[f"{window}|input_tokens|{model}"] += event.get("input_tokens") or 0
        self.spend[f"{window}|output_tokens|{model}"] += event.get("output_tokens") or 0
        if event["event_type"] in TERMINAL:
            self.spend[f"{window}|requests|{model}"] += 1

    def _reset(self, scope: str, window: str) -> None:
        self.settled.pop((scope, window), None)
        self.overrun.pop((scope, window), None)
        for name in [name for name in self.spend if name.startswith(f"{window}|")]:
            del self.spend[name]

    @property
    def reserved(self) -> dict[tuple[str, str], int]:
        """Open reservations by (scope, window)."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for event in self.open.values():
            for scope in _scopes(event):
                found[scope, event["window"]] += event["reserved_nano"]
        return found

    def ledger(self) -> dict[str, int]:
        """The fields of the ledger hash that are not zero."""
        parts = {"settled": self.settled, "reserved": self.reserved, "overrun": self.overrun}
        return {
            f"{scope}|{window}|{part}": amount
            for part, amounts in parts.items()
            for (scope, window), amount in amounts.items()
            if amount
        }


def _owner(event: Mapping[str, Any]) -> str:
    return f"{event['principal']}:{event['request_id']}"


def _scopes(event: Mapping[str, Any]) -> list[str]:
    return str(event.get("scopes") or "").split(",") if event.get("scopes") else []


def explained(event: Mapping[str, Any]) -> bool:
    """Whether a charge follows from what stands in the event: tokens and price, or the reservation."""
    cost = event["usd_nano"] or 0
    if event["event_type"] == RESTORED:  # what explained it was lost
        return True
    if event["event_type"] == "model.request.unknown":
        return bool(cost == event["reserved_nano"]) or event["error_code"] == "record_missing"
    if not cost:
        return True
    return Price.parse(event["price"]).cost(usage_of(event)) == cost


def replay(events: Iterable[Mapping[str, Any]]) -> Replay:
    """Replay events from empty."""
    found = Replay()
    for event in events:
        found.add(event)
    return found


async def read_events(redis: Redis, keys: Keys) -> AsyncIterator[dict[str, Any]]:
    """Every event in the stream, oldest first."""
    start = "-"
    while True:
        page: Any = await redis.xrange(keys.events, min=start, count=_PAGE)
        for entry, fields in page:
            yield decode(fields, entry.decode())
        if len(page) < _PAGE:
            return
        start = f"({page[-1][0].decode()}"


async def replay_stream(redis: Redis, keys: Keys) -> Replay:
    """Replay what the stream holds."""
    found = Replay()
    async for event in read_events(redis, keys):
        found.add(event)
    return found


async def read_ledger(redis: Redis, keys: Keys) -> dict[str, int]:
    """The balances in Redis that are not zero, as ``Replay.ledger`` has them."""
    raw: Any = await redis.hgetall(keys.ledger)
    amounts = {name.decode(): value for name, value in raw.items()}
    return {
        name: int(value)
        for name, value in amounts.items()
        if name.rpartition("|")[2] in ("settled", "reserved", "overrun") and int(value)
    }


async def rebuild(redis: Redis, keys: Keys) -> Replay:
    """Write the ledger anew from the events and open admission.

    Raises:
        RuntimeError: events kept coming in; stop the workers first.
    """
    for _ in range(_TRIES):
        async with redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(keys.events)
            found = await replay_stream(redis, keys)
            pipeline.multi()  # type: ignore[no-untyped-call]
            _write(pipeline, keys, found)
            try:
                await pipeline.execute()
            except WatchError:
                continue
        await initialise(redis, keys)
        return found
    raise RuntimeError("events kept coming in while the ledger was rebuilt; stop the workers and try again")


def _write(pipeline: Any, keys: Keys, found: Replay) -> None:
    pipeline.delete(keys.ledger, keys.spend, keys.open)
    if found.ledger():
        pipeline.hset(keys.ledger, mapping=found.ledger())
    if found.spend:
        pipeline.hset(keys.spend, mapping=dict(found.spend))
    # The fence token lies in the request's record; here it only fills its place.
    held = {
        owner: f"rebuilt|{event['window']}|{event['reserved_nano']}|{event['scopes']}|{event['attempt']}"
        for owner, event in found.open.items()
    }
    if held:
        pipeline.hset(keys.open, mapping=held)
