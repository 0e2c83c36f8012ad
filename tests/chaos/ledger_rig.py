"""The real scripts, each one step as ``reference_ledger`` has it, and a look at all that they keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from gateway_worker.records import Admission, Ended, Entry, Gate, LeaseLostError, Note, Outcome, Subject
from gateway_worker.transitions import RUNNING_TTL_MS, Transitions
from model_gateway.clock import SetClock
from model_gateway.envelope import Envelope
from model_gateway.ledger import GATEWAY_SCOPE, initialise
from model_gateway.money import Usage
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import parse_config
from model_gateway.streams import GROUP, Keys
from tests.chaos.ledger_terms import MAX_ATTEMPTS, Asker, Claim, End, Held
from tests.chaos.reference_ledger import Ledger
from tests.invariants import check_money, check_rest, events_of

KEYS = Keys()
EVENING = 1_795_464_000_000  # 2026-11-23T20:00:00Z
CONFIG = f"""
models: {{echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002}}}}
budget: {{daily_limit_usd: 0.001, warning_threshold: 0.5}}
redelivery: {{max_attempts: {MAX_ATTEMPTS}}}
routing: {{breaker: {{enabled: false}}}}
"""
SUBMIT = load_script("model_gateway", "submit", "model_gateway:prelude")
CANCEL = load_script("model_gateway", "cancel", "model_gateway:prelude", allow_oom=True)
RESET = load_script("model_gateway", "budget_reset", "model_gateway:prelude", allow_oom=True)
RENEW = load_script("gateway_worker", "renew", "model_gateway:prelude", allow_oom=True)
GATE = Gate()
REFUSAL = Entry("error", b'{"error":{}}', status=429, usd_nano=0)
HASHES = (KEYS.ledger, KEYS.open, KEYS.spend, KEYS.counters, KEYS.deployment("x"), KEYS.deployment("y"))
SENDERS = {"agent-a": ("agent-a",), "agent-b": ("agent-b",), "http-x": ("team-1", "team-2")}
STREAMS = (KEYS.requests, KEYS.events, KEYS.control, *(KEYS.replies(sender) for sender in SENDERS))
PRINCIPALS = [(sender, principal) for sender, principals in SENDERS.items() for principal in principals]
KNOWN = [Asker("agent-a", "agent-a", "r1"), Asker("agent-b", "agent-b", "r1"), Asker("http-x", "team-1", "r2")]
LOOK = """
local found = {{}, {}, redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000)}
for i = 1, tonumber(ARGV[2]) do
  found[1][i] = {redis.call('XLEN', KEYS[i]), redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', 1)}
end
for i = tonumber(ARGV[2]) + 1, #KEYS do
  found[2][i - tonumber(ARGV[2])] = redis.call('HGETALL', KEYS[i])
end
return found
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis holds, at one instant.

    Attributes:
        view: as ``Ledger.view`` has it, but for the entries that nobody has taken and for blocked deployments.
        all: everything, to tell whether anything has changed.
    """

    view: tuple[Any, ...]
    all: Any


class Rig:
    """The real scripts: each step as the model has it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.clock = SetClock(EVENING)
        self.config = parse_config(CONFIG)
        self.scripts = Scripts(redis, self.clock)

    async def start(self) -> None:
        await self.redis.flushdb()
        await initialise(self.redis, KEYS)
        await self.redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)

    async def close(self) -> None:
        await self.scripts.close()
        await self.redis.aclose()

    async def submit(self, asker: Asker) -> tuple[str, str]:
        record = KEYS.record(asker.principal, asker.request_id)
        args = {"group": GROUP, "max_depth": "10000", "ttl_ms": "60000"}
        answer = await self.scripts.call(SUBMIT, [KEYS.requests, record, KEYS.full], args, "x", "1")
        return answer[0].decode(), answer[1].decode()

    async def publish(self) -> str:
        return (await self.redis.xadd(KEYS.requests, {"x": "1"})).decode()

    async def take(self, consumer: str) -> str:
        [[_, [[entry, _]]]] = await self.redis.xreadgroup(GROUP, consumer, {KEYS.requests: ">"}, count=1)
        return entry.decode()

    async def claim(self, entry: str, consumer: str) -> None:
        assert await self.redis.xclaim(KEYS.requests, GROUP, consumer, 0, [entry])

    async def renew(self, claim: Claim, *, admitted: bool) -> bool:
        keys = [KEYS.requests, KEYS.record(claim.asker.principal, claim.asker.request_id)]
        args = {"entries": [claim.entry], "tokens": [claim.token if admitted else ""]}
        args |= {"group": GROUP, "consumer": claim.consumer, "running_ttl_ms": str(RUNNING_TTL_MS)}
        return await self.scripts.call(RENEW, keys, args) == [1]

    async def admit(self, claim: Claim, amount: int) -> Admission:
        return await self._steps(claim).admit(subject_of(claim), amount, REFUSAL, old=False)

    async def advance(self, claim: Claim, attempt: int, end: End, deployment: str, amount: int) -> Admission:
        then = subject_of(claim, deployment)
        return await self._steps(claim).advance(self._ended(claim, attempt, end), then, amount, GATE)

    async def note(self, claim: Claim, attempt: int, end: End) -> None:
        await self._steps(claim).note(self._ended(claim, attempt, end))

    async def emit(self, claim: Claim, first: int, number: int) -> str:
        chunks = [Entry("chunk", b'{"x_index":%d}' % i, i, end=False) for i in range(first, first + number)]
        try:
            asked = await self._steps(claim).emit(subject_of(claim), 1, chunks, f"sig-{first + number}")
        except LeaseLostError:
            return "stale"
        return "cancel" if asked else "written"

    async def settle(self, claim: Claim, attempt: int, end: End) -> str:
        ended = self._ended(claim, attempt, end)
        return await self._steps(claim).settle(ended.subject, ended.admission, 0, ended.outcome)

    async def refuse(self, claim: Claim, *, called: bool) -> str:
        return await self._steps(claim).refuse(subject_of(claim), REFUSAL, "outcome_unknown", called=called)

    async def cancel(self, asker: Asker) -> str:
        keys = [KEYS.record(asker.principal, asker.request_id), KEYS.control]
        args = {"principal": asker.principal, "id": asker.request_id, "keep_ms": "600000"}
        return (await self.scripts.call(CANCEL, keys, args))[0].decode()

    async def reset(self, reset_id: str) -> int:
        args = {"scope": GATEWAY_SCOPE, "principal": "admin", "reset_id": reset_id}
        return int((await self.scripts.call(RESET, [KEYS.ledger, KEYS.spend, KEYS.events], args))[1])

    async def look(self, askers: Sequence[Asker]) -> Seen:
        """All that the scripts keep, read at one instant."""
        records = [KEYS.record(asker.principal, asker.request_id) for asker in askers]
        keys = [*STREAMS, *HASHES, *records]
        streams, flat, pending = await self.redis.eval(LOOK, len(keys), *keys, GROUP, len(STREAMS))
        hashes = [_text(found) for found in flat]
        ledger, held = hashes[0], {owner: _held(text) for owner, text in hashes[1].items()}
        states = dict(_states(askers, hashes[len(HASHES) :], held))
        lengths = {sender: length for sender, (length, _) in zip(SENDERS, streams[3:], strict=True) if length}
        owned = {entry.decode(): consumer.decode() for entry, consumer, _, _ in pending}
        view = (states, _balances(ledger), owned, lengths, streams[0][0], streams[1][0])
        return Seen(view, (streams, hashes, owned))

    async def replies(self) -> dict[str, list[tuple[str, int, bool]]]:
        """Each sender's reply stream: id, index, and whether it ends there."""
        found = {}
        for sender in SENDERS:
            entries = [fields for _, fields in await self.redis.xrange(KEYS.replies(sender))]
            found[sender] = [(f[b"id"].decode(), int(f[b"index"]), f[b"end"] == b"1") for f in entries]
        return {sender: entries for sender, entries in found.items() if entries}

    async def check_end(self, ledger: Ledger) -> None:
        """Everything is over: events and replies are as the model has them, one by one, and the money adds up."""
        events = await events_of(self.redis)
        owners = [f"{e['principal']}:{e['request_id']}" if e.get("request_id") else "" for e in events]
        assert list(zip((e["event_type"] for e in events), owners, strict=True)) == ledger.events
        assert await self.replies() == ledger.replies
        ledger.check_ends()
        await check_money(self.redis, events)
        await check_rest(self.redis)

    def _steps(self, claim: Claim) -> Transitions:
        return Transitions(self.scripts, KEYS, self.config, claim.consumer)

    def _ended(self, claim: Claim, attempt: int, end: End) -> Ended:
        return Ended(subject_of(claim), Admission("admitted", attempt), 0, outcome_of(end))


def _text(flat: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _held(text: str) -> Held:
    token, window, amount, _, attempt = text.split("|")
    return Held(token, window, int(amount), int(attempt))


def _balances(ledger: dict[str, str]) -> dict[str, int]:
    parts = ("settled", "reserved", "overrun")
    return {name: int(n) for name, n in ledger.items() if name.rpartition("|")[2] in parts and int(n)}


def _states(
    askers: Sequence[Asker], records: list[dict[str, str]], held: dict[str, Held]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for asker, record in zip(askers, records, strict=True):
        if record or asker.owner in held:
            texts = (record.get(name, "") for name in ("state", "entry", "token"))
            counts = (int(record.get(name, "0")) for name in ("attempt", "lost", "chunks"))
            rest = ("cancel" in record, int(record.get("noted", "-1")), held.get(asker.owner))
            yield asker.owner, (*texts, *counts, *rest)


def subject_of(claim: Claim, deployment: str = "") -> Subject:
    """As the worker has it."""
    asker, name = claim.asker, deployment or claim.deployment
    envelope = Envelope(asker.sender, asker.principal, asker.request_id, "chat", "echo", EVENING, b"{}")
    base = ["request_id", asker.request_id, "principal", asker.principal, "model", "echo", "provider", "echo"]
    base += ["deployment", name, "task", "", "price", "input=1000,output=2000", "request_entry", claim.entry]
    return Subject(claim.entry, envelope, "echo", claim.token, base, name)


def outcome_of(end: End) -> Outcome:
    """As the worker has it."""
    cost = 0 if end.unknown else end.cost
    reply = Entry("reply" if end.state == "done" else "error", b'{"x_index":%d}' % end.index, end.index, usd_nano=cost)
    note = Note("none", float(end.blocked))
    return Outcome(end.state, [reply], cost, end.unknown, Usage(input=cost // 1000), error_code="lost", note=note)
