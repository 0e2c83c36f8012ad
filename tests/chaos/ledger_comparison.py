"""What Redis holds beside what the reference model says."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, cast

from redis.asyncio import Redis

from model_gateway.events import decode
from model_gateway.streams import GROUP, Keys
from tests.chaos.reference_model import Model
from tests.chaos.reference_shapes import Event

KEYS = Keys()
_LOOK = """
local found = {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]),
  redis.call('XRANGE', KEYS[3], '(' .. ARGV[1], '+'), redis.call('XPENDING', KEYS[4], ARGV[2], '-', '+', 1000), {}, {}}
for i = 5, 7 do
  found[5][i - 4] = redis.call('XRANGE', KEYS[i], '(' .. ARGV[i - 2], '+')
end
for i = 8, #KEYS do
  found[6][i - 7] = redis.call('HMGET', KEYS[i], 'state', 'token', 'entry', 'attempt', 'lost', 'chunks', 'cancel')
end
return found
"""


class Comparison:
    """Compares all that can be seen, after each step; of streams only what is new."""

    def __init__(self, redis: Redis, model: Model, senders: tuple[str, str, str]) -> None:
        self.redis = redis
        self.model = model
        self.senders = senders
        self._after: dict[str, bytes] = defaultdict(lambda: b"0-0")

    async def of(self, known: set[str]) -> None:
        """Redis, read at one instant, holds what the model says of these requests; I1 and I2 hold."""
        owners = sorted(known)
        streams = [KEYS.replies(sender) for sender in self.senders]
        keys = [KEYS.open, KEYS.ledger, KEYS.events, KEYS.requests, *streams]
        keys += [KEYS.record(*owner.split(":")) for owner in owners]
        after = [self._after[name] for name in (KEYS.events, *streams)]
        opened, ledger, events, pending, replies, records = await cast(
            "Any", self.redis.eval(_LOOK, len(keys), *keys, after[0], GROUP, *after[1:])
        )
        self._compare_money(_pairs(opened), _pairs(ledger))
        self._compare_events(events)
        assert {entry.decode(): consumer.decode() for entry, consumer, *_ in pending} == self.model.pending
        for sender, stream, entries in zip(self.senders, streams, replies, strict=True):
            self._compare_replies(sender, stream, entries)
        for owner, values in zip(owners, records, strict=True):
            assert _record(values) == self._expected_record(owner), owner

    def _compare_money(self, opened: dict[str, str], ledger: dict[str, str]) -> None:
        parts = [(name.split("|"), int(value)) for name, value in ledger.items() if "|reset" not in name]
        money = Counter({(window, part): value for (_, window, part), value in parts if part != "warned" and value})
        held = {owner: value.split("|") for owner, value in opened.items()}
        for window in {window for window, _ in money}:
            settled, reserved, overrun = (money[window, part] for part in ("settled", "reserved", "overrun"))
            assert reserved == sum(int(each[2]) for each in held.values() if each[1] == window), "I2"
            assert not self.model.hard or settled + reserved <= self.model.limit + overrun, "I1"
        assert money == Counter({key: value for key, value in self.model.ledger.items() if value})
        assert {window for (_, window, part), _ in parts if part == "warned"} == self.model.warned
        assert held == {
            owner: [each.token, each.window, str(each.amount), "gateway", str(each.attempt)]
            for owner, each in self.model.open.items()
        }

    def _compare_events(self, events: list[Any]) -> None:
        found = [_told(decode(dict(zip(flat[::2], flat[1::2], strict=True)), entry.decode())) for entry, flat in events]
        expected, self.model.events = self.model.events, []
        assert found == expected
        if events:
            self._after[KEYS.events] = events[-1][0]

    def _compare_replies(self, sender: str, stream: str, entries: list[Any]) -> None:
        fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
        found = [(f[b"id"].decode(), f[b"kind"].decode(), int(f[b"index"]), f[b"end"] == b"1") for f in fields]
        expected = self.model.replies.pop(sender, [])
        assert found == expected, sender
        if entries:
            self._after[stream] = entries[-1][0]

    def _expected_record(self, owner: str) -> tuple[Any, ...]:
        rec = self.model.record(owner)
        return rec.state, rec.token, rec.entry, rec.attempt, rec.lost, rec.chunks, rec.cancelled


def _pairs(flat: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _record(values: list[bytes | None]) -> tuple[Any, ...]:
    state, token, entry, attempt, lost, chunks, cancelled = ((value or b"").decode() for value in values)
    return state, token, entry, int(attempt or 0), int(lost or 0), int(chunks or 0), bool(cancelled)


def _told(event: dict[str, Any]) -> Event:
    owner = f"{event['principal']}:{event['request_id']}" if event.get("request_id") else ""
    kind = event["event_type"].removeprefix("model.request.")
    return kind, owner, event.get("attempt") or 0, event.get("usd_nano") or 0
