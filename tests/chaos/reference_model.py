"""A small reference model of requests and of the ledger: what each script is to do, in plain Python.

Each method is one script. It says the answer, and what must have changed: the ledger, the records, the events, the
replies, and who has which entry.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.chaos.reference_gates import GateModel
from tests.chaos.reference_shapes import FINAL, MAX_ATTEMPTS, End, Event, Held, Record, Who


@dataclass(slots=True)
class Model:
    """Everything that Redis is to hold."""

    limit: int
    warning: int
    hard: bool
    now: int
    gates: dict[str, GateModel]
    ledger: Counter[tuple[str, str]] = field(default_factory=Counter)
    warned: set[str] = field(default_factory=set)
    open: dict[str, Held] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    replies: dict[str, list[tuple[str, str, int, bool]]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    started: Counter[tuple[str, int]] = field(default_factory=Counter)
    last_reset: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def window(self) -> str:
        """The UTC day."""
        return f"{datetime.fromtimestamp(self.now / 1000, UTC):%Y-%m-%d}"

    def record(self, owner: str) -> Record:
        """A request's record; an empty one where there is none."""
        return self.records.get(owner, Record())

    # -- the request stream

    def submit(self, owner: str, entry: str) -> None:
        """A new entry, and a record that is queued."""
        self.records[owner] = Record("queued", entry)

    def claim(self, entry: str, consumer: str) -> bool:
        """Whether the entry was still somebody's; then it is this consumer's."""
        if entry in self.pending:
            self.pending[entry] = consumer
        return entry in self.pending

    def renew(self, who: Who, *, admitted: bool) -> int:
        """1 where the lease was renewed, 0 where it is lost."""
        held = self.record(who.owner).token in ("", who.token) if admitted else self._is_here(who)
        if held:
            self.claim(who.entry, who.consumer)
        return int(held)

    def cancel(self, owner: str) -> None:
        """Mark a request that is not over."""
        if self.record(owner).state in ("queued", "running"):
            self.records[owner].cancelled = True

    def _is_here(self, who: Who) -> bool:
        return self.pending.get(who.entry) == who.consumer

    def _not_to_be_run(self, who: Who) -> str:
        rec = self.record(who.owner)
        if not self._is_here(who):
            return "lost"
        if not rec.state or (rec.state not in FINAL and rec.entry == who.entry):
            return ""
        if rec.state in FINAL and rec.entry != who.entry:
            self._reply(who, *rec.replies)
        del self.pending[who.entry]
        return "duplicate"

    # -- the scripts of a request

    def admit(self, who: Who, deployment: str, amount: int, *, old: bool) -> tuple[str, int]:
        """The answer's kind and the attempt."""
        held, rec = self.open.get(who.owner), self.record(who.owner)
        if held and held.token == who.token:
            return "admitted", held.attempt
        if rec.state == "running" and rec.token == who.token:
            return ("exhausted" if rec.lost >= MAX_ATTEMPTS or rec.chunks > 0 else "cancelled"), rec.attempt
        if answer := self._not_to_be_run(who):
            return answer, 0
        if old and not rec.state and not held:
            return "stale", 0
        rec = self.records.setdefault(who.owner, Record())
        attempt = held.attempt if held else rec.attempt
        if held or rec.state == "running":
            self._charge_lost(who)
            rec.state, rec.token, rec.entry, rec.attempt = "queued", who.token, who.entry, attempt
        exhausted = rec.lost >= MAX_ATTEMPTS or rec.chunks > 0
        if exhausted or rec.cancelled:
            self._take(who, attempt)
            return ("exhausted" if exhausted else "cancelled"), attempt
        if self.gates[deployment].shut(self.now, who.token):
            return "gated", 0
        if self._over(who, amount, 0):
            self._finish(who, "failed", 0, attempt, [("error", 0, True)])
            return "refused", 0
        self._start(who, deployment, amount, attempt + 1)
        return "admitted", attempt + 1

    def advance(self, who: Who, attempt: int, end: End, deployments: tuple[str, str], amount: int) -> tuple[str, int]:
        """From an attempt that failed to the next one, on the second of two deployments."""
        held, rec = self.open.get(who.owner), self.record(who.owner)
        if held and held.token != who.token:
            return "stale", 0
        if not held or rec.state != "running" or rec.token != who.token:
            return "missing", 0
        if held.attempt == attempt + 1:
            return "admitted", held.attempt
        if held.attempt != attempt:
            return "stale", 0
        if rec.cancelled:
            return "cancelled", 0
        self._leave_early(who, attempt, end, deployments[0])
        if self.gates[deployments[1]].shut(self.now, who.token):
            return "gated", 0
        given_back = held.amount if not end.unknown and held.window == self.window else 0
        if self._over(who, amount, given_back):
            return "refused", 0
        self._close(who, held.amount if end.unknown else 0, unknown=end.unknown)
        self._tell("retry", who.owner, attempt)
        self._start(who, deployments[1], amount, attempt + 1)
        return "admitted", attempt + 1

    def note(self, who: Who, attempt: int, end: End, deployment: str) -> None:
        """What a failed attempt says of its deployment, at once."""
        held = self.open.get(who.owner)
        if held and (held.token, held.attempt) == (who.token, attempt) and self.record(who.owner).token == who.token:
            self._leave_early(who, attempt, end, deployment)

    def emit(self, who: Who, attempt: int, first: int, count: int) -> bool | None:
        """Whether somebody asked for a cancellation; None where the token is stale."""
        rec = self.record(who.owner)
        if rec.state != "running" or rec.token != who.token:
            return None
        if rec.chunks == first:
            chunks = [("chunk", first + number, False) for number in range(count)]
            if first == 0:
                self._tell("model.streaming.start", who.owner, attempt)
            rec.chunks += count
            rec.replies += chunks
            self._reply(who, *chunks)
        return rec.cancelled

    def settle(self, who: Who, attempt: int, amount: int, end: End, deployment: str, last: int) -> str:
        """The end of a request whose last reply has the index ``last``."""
        held, rec = self.open.get(who.owner), self.record(who.owner)
        holder = held.token if held else rec.token
        if holder and holder != who.token:
            return "stale"
        if not held and rec.state in FINAL:
            return "already"
        kind = "reply" if end.state == "done" and not last else "chunk" if end.state == "done" else "error"
        replies = [(kind, last, True)]
        if not rec.token:
            assert held, "the model loses no record of a request that has nothing reserved"
            self._close(who, amount if end.unknown else end.cost, unknown=True)
            self._finish(who, "failed", 0, held.attempt, replies)
            return "missing"
        cost = 0 if end.unknown or not held or held.attempt != attempt else end.cost
        if held:
            unknown = end.unknown and held.attempt == attempt
            self._close(who, held.amount if unknown else cost, unknown=unknown)
        if rec.noted != attempt:
            self._leave(who, end, deployment)
        self._finish(who, end.state, cost, held.attempt if held else attempt, replies)
        return "settled"

    def refuse(self, who: Who, *, called: bool, accepted_only: bool = False) -> str:
        """The end of a delivery that is not called."""
        if answer := self._not_to_be_run(who):
            return answer
        held, rec = self.open.get(who.owner), self.record(who.owner)
        if accepted_only and not rec.state and not held:
            return "stranger"
        if held and rec.token == who.token and not called:
            self._close(who, 0)
        elif held:
            self._charge_lost(who)
        self._finish(who, "failed", 0, held.attempt if held else rec.attempt, [("error", 0, True)])
        return "refused"

    def dead_letter(self, who: Who) -> str:
        """An entry that is put aside, with an error reply."""
        if not self._is_here(who):
            return "lost"
        self._reply(who, ("error", 0, True))
        del self.pending[who.entry]
        return "moved"

    def reset(self, reset_id: str) -> int:
        """What was settled in this window; the last reset's amount where this is that one, sent again."""
        last, amount = self.last_reset.get(self.window, ("", 0))
        if last != reset_id:
            amount = self.ledger[self.window, "settled"]
            self.ledger[self.window, "settled"] = self.ledger[self.window, "overrun"] = 0
            self.warned.discard(self.window)
            self.last_reset[self.window] = reset_id, amount
            self._tell("model.budget.reset", "", 0, amount)
        return amount

    # -- what they are made of

    def _over(self, who: Who, amount: int, given_back: int) -> bool:
        """Whether a hard limit refuses so much more; what is over a limit is told either way."""
        over = amount > 0 and self._used() - given_back + amount > self.limit
        if over:
            self._tell("model.budget.exceeded", who.owner)
        return over and self.hard

    def _used(self) -> int:
        return self.ledger[self.window, "settled"] + self.ledger[self.window, "reserved"]

    def _start(self, who: Who, deployment: str, amount: int, attempt: int) -> None:
        self.gates[deployment].enter(self.now, who.token)
        self.ledger[self.window, "reserved"] += amount
        if self._used() >= self.warning and self.window not in self.warned:
            self.warned.add(self.window)
            self._tell("model.budget.warning", who.owner)
        self.open[who.owner] = Held(who.token, self.window, amount, attempt)
        self._take(who, attempt)
        self._tell("start", who.owner, attempt)
        self.started[who.owner, attempt] += 1

    def _take(self, who: Who, attempt: int) -> None:
        rec = self.records.setdefault(who.owner, Record())
        rec.state, rec.token, rec.entry, rec.attempt = "running", who.token, who.entry, attempt

    def _close(self, who: Who, cost: int, *, unknown: bool = False) -> None:
        held = self.open.pop(who.owner)
        self.ledger[held.window, "reserved"] -= held.amount
        self.ledger[held.window, "settled"] += cost
        if cost > held.amount:
            self.ledger[held.window, "overrun"] += cost - held.amount
            self._tell("model.budget.overrun", who.owner, held.attempt, cost - held.amount)
        if unknown:
            self._tell("unknown", who.owner, held.attempt, cost)

    def _charge_lost(self, who: Who) -> None:
        if held := self.open.get(who.owner):
            self._close(who, held.amount, unknown=True)
            self.records.setdefault(who.owner, Record()).lost += 1

    def _leave_early(self, who: Who, attempt: int, end: End, deployment: str) -> None:
        rec = self.record(who.owner)
        if rec.noted != attempt:
            self._leave(who, end, deployment)
            rec.noted = attempt

    def _leave(self, who: Who, end: End, deployment: str) -> None:
        if moved := self.gates[deployment].leave(self.now, who.token, end.result):
            self._tell(f"model.deployment.{moved}", who.owner)

    def _finish(self, who: Who, state: str, cost: int, attempt: int, replies: list[tuple[str, int, bool]]) -> None:
        rec = self.records.setdefault(who.owner, Record())
        self._reply(who, *replies)
        rec.replies += replies
        self._tell(FINAL[state], who.owner, attempt, cost)
        self.pending.pop(who.entry, None)
        rec.state, rec.token, rec.entry = state, who.token, who.entry
        self.ends[who.owner] += 1

    def _reply(self, who: Who, *entries: tuple[str, int, bool]) -> None:
        self.replies[who.sender] += [(who.owner.partition(":")[2], *entry) for entry in entries]

    def _tell(self, kind: str, owner: str, attempt: int = 0, usd_nano: int = 0) -> None:
        self.events.append((kind, owner, attempt, usd_nano))
