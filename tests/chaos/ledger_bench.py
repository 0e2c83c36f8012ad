"""The real scripts through their typed face, beside the reference model: each step's answer and effect are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from gateway_worker.records import Admission, Ended, Entry, Gate, LeaseLostError, Note, Outcome, Subject
from gateway_worker.transitions import RUNNING_TTL_MS, Transitions
from model_gateway.client import StreamClient
from model_gateway.clock import SetClock
from model_gateway.connection import connect
from model_gateway.envelope import Envelope
from model_gateway.ledger import initialise
from model_gateway.money import Usage
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import GatewayConfig, parse_config
from model_gateway.streams import GROUP, Keys
from tests.chaos.ledger_comparison import Comparison
from tests.chaos.reference_gates import GateModel
from tests.chaos.reference_model import Model
from tests.chaos.reference_shapes import MAX_ATTEMPTS, End, Who

KEYS = Keys()
LATE: Final = 1_795_477_500_000  # 2026-11-23T23:45:00Z
LIMIT, WARNING = 1_000_000, 500_000
CONFIG = f"""
models: {{echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002}}}}
budget: {{daily_limit_usd: 0.001, warning_threshold: 0.5, hard_stop: %s}}
redelivery: {{max_attempts: {MAX_ATTEMPTS}}}
routing:
  breaker: {{window_seconds: 10, min_calls: 3, error_rate: 0.5, timeouts: 2, open_seconds: 5, max_open_seconds: 12}}
"""
DEPLOYMENTS: Final = {"brittle": None, "scarce": 2}
"""Two deployments, and how many calls a minute each may have; a third, ``free``, takes any."""

SENDERS: Final = {"agent-a": "agent-a", "agent-b": "agent-b", "http-x": "admin"}
"""Who sends, and whose requests."""

_SECRET = "machine-secret-" + "m" * 32
_REFUSAL = Entry("error", b'{"error":{}}', status=429, usd_nano=0)
_RENEW = load_script("gateway_worker", "renew", "model_gateway:prelude", allow_oom=True)


@cache
def config_of(*, hard: bool) -> GatewayConfig:
    """The budget's limit is a hard one, or not."""
    return parse_config(CONFIG % str(hard).lower())


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry on the request stream; ``old``: signed longer ago than ids are remembered."""

    sender: str
    request_id: str
    old: bool = False

    @property
    def owner(self) -> str:
        """Principal and id."""
        return f"{SENDERS[self.sender]}:{self.request_id}"

    def envelope(self) -> Envelope:
        """What was sent."""
        return Envelope(self.sender, SENDERS[self.sender], self.request_id, "chat", "echo", LATE, b"{}")


def outcome_of(end: End, last: int) -> Outcome:
    """An attempt's end as a worker tells it; ``last`` is the index of what is left of the reply."""
    kind = "error" if end.state != "done" else "chunk" if last else "reply"
    replies = [Entry(kind, orjson.dumps({"x_index": last}), last, usd_nano=0)]
    code = "" if end.state == "done" else "upstream_error"
    usage = Usage(input=0 if end.unknown else end.cost)
    return Outcome(end.state, replies, end.cost, end.unknown, usage, error_code=code, note=Note(end.result))


class Bench:
    """A real ledger and a modelled one. Each step does the same to both, and compares them."""

    def __init__(self, redis_url: str, *, hard: bool) -> None:
        self.clock = SetClock(LATE)
        gates = {name: GateModel(rpm) for name, rpm in (DEPLOYMENTS | {"free": None}).items()}
        self.model = Model(LIMIT, WARNING, hard, LATE, gates)
        self.redis = connect(redis_url)
        self.config = config_of(hard=hard)
        self.scripts = Scripts(self.redis, self.clock)
        self.clients = {
            sender: StreamClient(redis_url, sender=sender, secret=_SECRET, clock=self.clock) for sender in SENDERS
        }
        self.asked: dict[str, Ask] = {}
        self.unread = 0
        self.comparison = Comparison(self.redis, self.model, tuple(SENDERS))

    async def open(self) -> None:
        """An empty database with a whole ledger."""
        await self.redis.flushdb()
        await initialise(self.redis, KEYS)
        await self.redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)

    async def close(self) -> None:
        """Let the connections go."""
        for client in self.clients.values():
            await client.close()
        await self.scripts.close()
        await self.redis.aclose()

    def step_clock(self, ms: int) -> None:
        """Move the time that the scripts go by."""
        self.clock.advance(ms)
        self.model.now += ms

    # -- the request stream

    async def submit(self, ask: Ask) -> None:
        """Through the client: a new entry, or none where the id is known."""
        known = self.model.record(ask.owner).entry
        client, envelope = self.clients[ask.sender], ask.envelope()
        exchange = await client.submit(
            principal=envelope.principal, model="echo", body=b"{}", request_id=ask.request_id
        )
        async with exchange:
            pass
        if not known:
            self.model.submit(ask.owner, await self._newest(ask))
        await self.compare()

    async def publish(self, ask: Ask) -> None:
        """Past the client: an entry by plain XADD."""
        fields: dict[Any, Any] = dict(ask.envelope().fields(_SECRET))
        await self.redis.xadd(KEYS.requests, fields)
        await self._newest(ask)
        await self.compare()

    async def _newest(self, ask: Ask) -> str:
        [[entry, _]] = await self.redis.xrevrange(KEYS.requests, count=1)
        assert entry.decode() not in self.asked, "nothing new on the stream"
        self.asked[entry.decode()] = ask
        self.unread += 1
        return entry.decode()

    async def take(self, consumer: str) -> str:
        """The next entry, now this consumer's."""
        [[_, [[entry, _]]]] = await self.redis.xreadgroup(GROUP, consumer, {KEYS.requests: ">"}, count=1)
        self.unread -= 1
        self.model.pending[entry.decode()] = consumer
        return str(entry.decode())

    async def claim(self, entry: str, consumer: str) -> None:
        """Take an entry from its consumer, whose lease has run out."""
        found: Any = await self.redis.xclaim(KEYS.requests, GROUP, consumer, 0, [entry])
        assert len(found) == self.model.claim(entry, consumer) == 1
        await self.compare()

    async def renew(self, who: Who, *, admitted: bool) -> None:
        """As a worker that holds it does."""
        token = who.token if admitted else ""
        args = {"group": GROUP, "consumer": who.consumer, "entries": [who.entry], "tokens": [token]}
        record = KEYS.record(*who.owner.split(":"))
        keys, more = [KEYS.requests, record], {"running_ttl_ms": str(RUNNING_TTL_MS)}
        answer = await self.scripts.call(_RENEW, keys, {**args, **more})
        assert answer == [self.model.renew(who, admitted=admitted)]
        await self.compare()

    async def cancel(self, owner: str, sender: str) -> None:
        """As its client does."""
        await self.clients[sender]._cancel(*owner.split(":"))
        self.model.cancel(owner)
        await self.compare()

    async def lose_record(self, owner: str) -> None:
        """Redis, or the agent that may write it, loses a record."""
        await self.redis.delete(KEYS.record(*owner.split(":")))
        del self.model.records[owner]
        await self.compare()

    # -- the scripts of a request

    async def admit(self, who: Who, deployment: str, amount: int) -> tuple[str, int]:
        """Returns the answer's kind and the attempt."""
        old, subject = self.asked[who.entry].old, self.subject(who, deployment)
        expected = self.model.admit(who, deployment, amount, old=old)
        transitions = self.transitions(who.consumer)
        found = await transitions.admit(subject, amount, _REFUSAL, old=old, gate=_gate(deployment))
        return await self._answered((found.kind, found.attempt), expected)

    async def advance(
        self, who: Who, attempt: int, end: End, deployments: tuple[str, str], amount: int
    ) -> tuple[str, int]:
        """Returns the answer's kind and the attempt."""
        expected = self.model.advance(who, attempt, end, deployments, amount)
        ended = Ended(self.subject(who, deployments[0]), _admission(attempt), 0, outcome_of(end, 0))
        subject, gate = self.subject(who, deployments[1]), _gate(deployments[1])
        found = await self.transitions(who.consumer).advance(ended, subject, amount, gate)
        return await self._answered((found.kind, found.attempt), expected)

    async def note(self, who: Who, attempt: int, end: End, deployment: str) -> None:
        """A failure is told before the next attempt."""
        self.model.note(who, attempt, end, deployment)
        ended = Ended(self.subject(who, deployment), _admission(attempt), 0, outcome_of(end, 0))
        await self.transitions(who.consumer).note(ended)
        await self.compare()

    async def emit(self, who: Who, attempt: int, first: int, count: int) -> bool | None:
        """Returns whether it is cancelled; None where the token is stale."""
        expected = self.model.emit(who, attempt, first, count)
        chunks = [Entry("chunk", orjson.dumps({"x_index": first + n}), first + n, end=False) for n in range(count)]
        try:
            found: bool | None = await self.transitions(who.consumer).emit(self.subject(who), attempt, chunks, "s")
        except LeaseLostError:
            found = None
        return await self._answered(found, expected)

    async def settle(self, who: Who, attempt: int, amount: int, end: End, deployment: str, last: int) -> str:
        """Returns the answer."""
        expected = self.model.settle(who, attempt, amount, end, deployment, last)
        admission, subject = _admission(attempt), self.subject(who, deployment)
        found = await self.transitions(who.consumer).settle(subject, admission, amount, outcome_of(end, last))
        return await self._answered(found, expected)

    async def refuse(self, who: Who, *, called: bool) -> str:
        """Returns the answer."""
        expected = self.model.refuse(who, called=called)
        found = await self.transitions(who.consumer).refuse(self.subject(who), _REFUSAL, "invalid_json", called=called)
        return await self._answered(found, expected)

    async def give_up(self, who: Who) -> str:
        """A stale request, accepted or not. Returns the answer."""
        expected = self.model.refuse(who, called=True, accepted_only=True)
        transitions, dead = self.transitions(who.consumer), ("stale", {})
        found = await transitions.refuse(
            self.subject(who), _REFUSAL, "stale_request", called=True, dead=dead, accepted_only=True
        )
        if found == expected == "stranger":
            expected = self.model.dead_letter(who)
            reply = (who.sender, self.asked[who.entry].request_id, _REFUSAL)
            found = await transitions.dead_letter(who.entry, {}, "stale", reply)
        return await self._answered(found, expected)

    async def reset(self, reset_id: str) -> None:
        """As an operator does."""
        script = load_script("model_gateway", "budget_reset", "model_gateway:prelude", allow_oom=True)
        args = {"scope": "gateway", "principal": "admin", "reset_id": reset_id}
        expected = [self.model.window.encode(), str(self.model.reset(reset_id)).encode()]
        found = await self.scripts.call(script, [KEYS.ledger, KEYS.spend, KEYS.events], args)
        await self._answered(found, expected)

    def subject(self, who: Who, deployment: str = "") -> Subject:
        """The request as the scripts are told of it."""
        envelope = self.asked[who.entry].envelope()
        base = ["request_id", envelope.request_id, "principal", envelope.principal, "model", "echo", "provider", "echo"]
        base += ["deployment", deployment, "task", "", "price", "input=1,output=2", "request_entry", who.entry]
        return Subject(who.entry, envelope, "echo", who.token, base, deployment)

    def transitions(self, consumer: str) -> Transitions:
        """A worker's."""
        return Transitions(self.scripts, KEYS, self.config, consumer)

    async def _answered(self, found: Any, expected: Any) -> Any:
        assert found == expected, f"answered {found}, not {expected}"
        await self.compare()
        return found

    async def compare(self) -> None:
        """Redis holds what the model says."""
        await self.comparison.of({ask.owner for ask in self.asked.values()})


def _admission(attempt: int) -> Admission:
    return Admission("admitted", attempt, window="never asked for while the reservation is there")


def _gate(deployment: str) -> Gate:
    return Gate(rpm=DEPLOYMENTS.get(deployment), probe_seconds=30)
