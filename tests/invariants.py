"""The invariants, checked against Redis as it stands. Each function fails with what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import orjson
from redis.asyncio import Redis

from model_gateway.events import CHARGING, TERMINAL, decode
from model_gateway.ledger import GATEWAY_SCOPE
from model_gateway.replay import read_ledger, replay
from model_gateway.streams import GROUP, Keys

KEYS = Keys()
ATOMIC_READ = """
local open, ledger = redis.call('HVALS', KEYS[1]), redis.call('HGETALL', KEYS[2])
return {open, ledger}
"""


async def events_of(redis: Redis, keys: Keys = KEYS, *, after: str = "0-0") -> list[dict[str, Any]]:
    """Every event behind an id, oldest first."""
    return [decode(fields, entry.decode()) for entry, fields in await redis.xrange(keys.events, min=f"({after}")]


async def check_budget(redis: Redis, limit_nano: int, keys: Keys = KEYS) -> None:
    """I1 and I2, at one instant: never over the limit, reserved is what is open."""
    open_values, flat = await redis.eval(ATOMIC_READ, 2, keys.open, keys.ledger)
    ledger = dict(zip(flat[::2], flat[1::2], strict=True))
    held: Counter[str] = Counter()
    for value in open_values:
        _, window, amount, _, _ = value.decode().split("|")
        held[window] += int(amount)
    windows = {name.split(b"|")[1].decode() for name in ledger} | set(held)
    for window in windows:
        prefix = f"{GATEWAY_SCOPE}|{window}|"
        settled, reserved, overrun = (
            int(ledger.get((prefix + part).encode(), 0)) for part in ("settled", "reserved", "overrun")
        )
        assert reserved >= 0, f"I1: reserved is {reserved}"
        assert settled + reserved <= limit_nano + overrun, f"I1: {settled} + {reserved} > {limit_nano} + {overrun}"
        assert reserved == held[window], f"I2: reserved {reserved}, open {held[window]}"


async def check_idle(redis: Redis, limit_nano: int, accepted: set[str] | None = None, keys: Keys = KEYS) -> None:
    """All that must hold once everything has come to rest.

    Args:
        redis: the server.
        limit_nano: the hard limit.
        accepted: ids that were accepted, where the caller knows them.
        keys: the names.
    """
    await check_budget(redis, limit_nano, keys)
    events = await events_of(redis, keys)
    await check_money(redis, events, keys)
    _check_terminals(events, accepted)
    await check_rest(redis, keys)
    answered = await _check_replies(redis, events, keys)
    assert (accepted or set()) <= answered, f"without a reply: {(accepted or set()) - answered}"


async def check_money(redis: Redis, events: list[dict[str, Any]], keys: Keys = KEYS) -> None:
    """I2, I3, I10: nothing reserved, settled is the sum of the charges, and the replay gives the ledger."""
    ledger = await read_ledger(redis, keys)
    assert not [name for name in ledger if name.endswith("|reserved")], f"I2: reserved while idle: {ledger}"
    assert await redis.hlen(keys.open) == 0, "I2: open reservations while idle"
    replayed = replay(events)
    assert replayed.ledger() == ledger, f"I10: replay {replayed.ledger()}, ledger {ledger}"
    assert replayed.mismatches == [], f"I3: {replayed.mismatches}"
    spend = {name.decode(): int(value) for name, value in (await redis.hgetall(keys.spend)).items()}
    assert {k: v for k, v in replayed.spend.items() if v} == {k: v for k, v in spend.items() if v}, "I10: spend"
    if not [event for event in events if event["event_type"] == "model.budget.reset"]:
        charged = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
        settled = sum(value for name, value in ledger.items() if name.endswith("|settled"))
        assert settled == charged, f"I3: settled {settled}, charged {charged}"


def _check_terminals(events: list[dict[str, Any]], accepted: set[str] | None) -> None:
    """I4: one terminal event for each accepted id, none for another."""
    ends = Counter(event["request_id"] for event in events if event["event_type"] in TERMINAL)
    started = {event["request_id"] for event in events if event["event_type"] == "model.request.start"}
    assert {name: count for name, count in ends.items() if count != 1} == {}, "I4: more than one terminal event"
    assert started <= set(ends), f"I4: started and never ended: {started - set(ends)}"
    if accepted is not None:
        assert set(ends) == accepted, f"I4: lost {accepted - set(ends)}, made up {set(ends) - accepted}"


async def check_rest(redis: Redis, keys: Keys = KEYS) -> None:
    """I11: nothing pending, nothing unread, no key without a TTL but streams and the ledger."""
    assert (await redis.xpending(keys.requests, GROUP))["pending"] == 0, "I11: pending entries"
    lasting = {keys.requests, keys.events, keys.ledger, keys.spend, keys.counters, keys.open, keys.dead}
    lasting |= {keys.epoch, keys.server}
    without = [key async for key in redis.scan_iter() if key.decode() not in lasting and await redis.ttl(key) == -1]
    assert without == [], f"I11: keys without a TTL: {without}"


async def _check_replies(redis: Redis, events: list[dict[str, Any]], keys: Keys) -> set[str]:
    """I9, I12: chunks contiguous with one end, in the stream of who asked. Returns who was answered."""
    answered = set()
    owners = {event["request_id"]: event["principal"] for event in events if event["event_type"] in TERMINAL}
    async for stream in redis.scan_iter(match=f"{keys.tag}model.replies.*"):
        entries: dict[str, list[dict[bytes, bytes]]] = defaultdict(list)
        for _, fields in await redis.xrange(stream):
            if fields[b"kind"] == b"duplicate":  # no reply: it says where one is
                continue
            entries[fields[b"id"].decode()].append(fields)
        sender = stream.decode().rpartition("model.replies.")[2]
        for request_id, found in entries.items():
            owner = owners.get(request_id)
            if owner is not None and (owner.startswith("agent-") or sender.startswith("agent-")):
                assert owner == sender, f"I12: {request_id} of {owner} in {stream.decode()}"
            _check_chunks(request_id, found)
        answered |= set(entries)
    return answered


def _check_chunks(request_id: str, found: list[dict[bytes, bytes]]) -> None:
    assert [fields[b"end"] for fields in found].count(b"1") == 1, f"I9: {request_id} has no single end"
    assert found[-1][b"end"] == b"1", f"I9: {request_id} goes on after its end"
    assert [int(fields[b"index"]) for fields in found] == list(range(len(found))), f"I9: {request_id} has a gap"
    for number, fields in enumerate(found):
        assert orjson.loads(fields[b"data"]).get("x_index", 0) == number, f"I9: {request_id} chunk {number}"
