"""The reckoning: what was accepted, what became of it, and what the provider charged, held against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.asyncio import Redis

from model_gateway.events import CHARGING, TERMINAL
from model_gateway.fleet import queue_state
from tests.chaos.load import NOT_TAKEN, Told
from tests.chaos.paid_provider import Invoice
from tests.invariants import KEYS, events_of
from tests.processes import wait_until

_PAGE = 1_000


async def come_to_rest(redis: Redis, *, within: float) -> None:
    """Wait until nothing is queued, pending or reserved (I7)."""

    async def at_rest() -> bool:
        return not (await queue_state(redis, KEYS)).depth and not await redis.hlen(KEYS.open)

    await wait_until(at_rest, within=within, what="every accepted request to be terminal")


@dataclass(slots=True)
class Accounts:
    """The streams as they are at the end, by request id.

    Attributes:
        texts: what each request on the stream asked, in the order of the stream.
        entries: how often each id is on the stream.
        events: all of them.
        ends: terminal events.
        attempts: attempts that were started.
        charged: nano-dollars that were settled.
    """

    events: list[dict[str, Any]]
    texts: dict[str, str] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)
    ends: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    attempts: Counter[str] = field(default_factory=Counter)
    charged: Counter[str] = field(default_factory=Counter)

    @classmethod
    async def read(cls, redis: Redis) -> Accounts:
        """Both streams, whole."""
        found = cls(await events_of(redis))
        for event in found.events:
            found._add(event)
        start = "-"
        while page := await redis.xrange(KEYS.requests, min=start, count=_PAGE):
            for _, fields in page:
                request_id = fields[b"id"].decode()
                found.entries[request_id] += 1
                found.texts[request_id] = orjson.loads(fields[b"body"])["messages"][-1]["content"]
            start = f"({page[-1][0].decode()}"
        return found

    def _add(self, event: dict[str, Any]) -> None:
        kind, request_id = event["event_type"], event.get("request_id", "")
        if kind in TERMINAL:
            self.ends[request_id].append(event)
        if kind in CHARGING:
            self.charged[request_id] += event["usd_nano"] or 0
        self.attempts[request_id] += kind == "model.request.start"

    @property
    def accepted(self) -> set[str]:
        """Ids of all requests that are on the stream."""
        return set(self.entries)

    @property
    def unknown(self) -> set[str]:
        """Attempts whose outcome was lost, as ``<principal>:<id> <attempt>``."""
        return {
            f"{event['principal']}:{event['request_id']} {event['attempt']}"
            for event in self.of_kind("model.request.unknown")
        }

    @property
    def settled(self) -> int:
        """Nano-dollars in all."""
        return self.charged.total()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event_type"] == kind]

    def ended_as(self) -> Counter[str]:
        """How many requests ended how: ``done``, or the error's code."""
        ends = [event for events in self.ends.values() for event in events]
        return Counter("done" if event["status"] == "done" else event["error_code"] for event in ends)

    # -- checks

    def check_clients(self, told: Iterable[Told]) -> None:
        """I4, as clients see it: who was answered was accepted, and the answer is how the request ended."""
        for each in told:
            if each.code in NOT_TAKEN or each.cut:
                continue
            assert each.request_id in self.entries, f"lost: {each}"
            assert self.texts[each.request_id] == each.text, f"answered with another's id: {each}"
            (end,) = self.ends[each.request_id]
            assert each.code == ("done" if end["status"] == "done" else end["error_code"]), f"{each} ended as {end}"

    def check_charges(self, invoice: Invoice) -> None:
        """I5 and I6, request by request; to the nano-dollar where no attempt's outcome was lost."""
        lost = {event["request_id"] for event in self.of_kind("model.request.unknown")}
        for request_id, text in self.texts.items():
            calls, paid = invoice.calls.get(text, 0), invoice.charged.get(text, 0)
            assert calls <= self.attempts[request_id], f"I5: {request_id} was called {calls} times"
            assert paid <= self.charged[request_id], f"I6: {request_id} cost {paid}, settled {self.charged[request_id]}"
            assert request_id in lost or paid == self.charged[request_id], f"I3: {request_id} cost {paid}"
        assert set(invoice.calls) <= set(self.texts.values()), "called and never accepted"
        for event in self.of_kind("model.request.unknown"):
            assert event["usd_nano"] <= event["reserved_nano"], f"unknown above its reservation: {event}"

    # -- checks where Redis has lost something

    def check_ends(self) -> None:
        """I4 of what Redis has: one end for each request on the stream; for others only where a record was lost."""
        assert [name for name, ends in self.ends.items() if len(ends) > 1] == [], "I4: more than one terminal event"
        assert self.accepted <= set(self.ends), f"I4: never ended: {self.accepted - set(self.ends)}"
        lost = {event["request_id"] for event in self.events if event.get("error_code") == "record_missing"}
        assert set(self.ends) - self.accepted <= lost, f"I4: made up: {set(self.ends) - self.accepted - lost}"

    def check_restored(self) -> None:
        """What was charged again was lost, and charged again once."""
        restored = Counter(event["lost_event"] for event in self.of_kind("model.request.restored"))
        assert {event: times for event, times in restored.items() if times > 1} == {}, "charged again twice"
        assert restored.keys().isdisjoint(event["id"] for event in self.events), "charged again and not lost"

    def unpaid(self, invoice: Invoice, told: Iterable[Told]) -> dict[str, int]:
        """Nano-dollars that the provider charged for a request beyond what was settled, by id or else by text."""
        ids = {each.text: each.request_id for each in told if each.request_id}
        ids |= {text: request_id for request_id, text in self.texts.items()}
        short = {
            ids.get(text, text): paid - self.charged[ids.get(text, text)] for text, paid in invoice.charged.items()
        }
        return {name: amount for name, amount in short.items() if amount > 0}
