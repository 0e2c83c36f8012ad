"""Steps of workers, clients and faults in any order, each done to a real ledger and to a modelled one."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.chaos.ledger_bench import DEPLOYMENTS, LIMIT, SENDERS, Ask, Bench
from tests.chaos.ledger_hands import Hand, Made
from tests.chaos.reference_gates import MINUTE_MS
from tests.chaos.reference_shapes import End, Who
from tests.invariants import check_budget, check_money, check_rest, events_of

MIDNIGHT_MS = 15 * MINUTE_MS
"""From when the clock stands at first; twice that is the next day."""

consumers = st.sampled_from(["a", "b"])
asks = st.builds(
    Ask, st.sampled_from(sorted(SENDERS)), st.sampled_from(["r1", "r2", "r3"]), st.integers(0, 5).map(lambda n: n == 5)
)
deployments = st.sampled_from(sorted(DEPLOYMENTS))
results = st.sampled_from(["ok", "error", "timeout", "none"])
amounts = st.sampled_from([200_000, 333_333, 0, 1, 600_000, LIMIT])
costs = st.sampled_from([150_000, 333_333, 0, 1, 700_000, LIMIT + 1])
states = st.sampled_from(["done", "done", "failed", "cancelled"])
picks = st.integers(0, 999)
answers = st.integers(0, 3).map(bool)
"""Whether an answer arrives: one of four is lost."""


@dataclass
class Tally:
    """What was tried, over all examples."""

    examples: int = 0
    steps: Counter[str] = field(default_factory=Counter)


def some(quality: str) -> Any:
    """A rule for when there is a hand of a quality."""
    return precondition(lambda self: any(getattr(hand, quality) for hand in self.hands))


def at_most(times: int, what: str) -> Any:
    """A rule that an example uses only so often."""
    return precondition(lambda self: self.done[what] < times)


class LedgerMachine(RuleBasedStateMachine):
    """Entries in workers' hands, calls that were made, and one bench."""

    def __init__(self, redis_url: str, tally: Tally) -> None:
        super().__init__()
        self.redis_url, self.tally = redis_url, tally
        self.numbers = itertools.count(1)
        self.hands: list[Hand] = []
        self.made: list[Made] = []
        self.done: Counter[str] = Counter()
        self.sound = False
        self.runner = asyncio.Runner()

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Run a step to its end; what fails leaves the bench unsound."""
        self.sound = False
        found = self.runner.run(step)
        self.sound = True
        return found

    def do(self, what: str, step: Coroutine[Any, Any, Any]) -> Any:
        """Run a step, and count what it answered."""
        found = self.run(step)
        self.done[what] += 1
        answer = found[0] if isinstance(found, tuple) else found
        self.tally.steps[f"{what}: {answer}"] += 1
        return found

    def make(self, made: Made, *, answered: bool = True) -> None:
        """Make a call; its worker hears the answer if that is not lost."""
        self.made.append(made)
        self.call(made, made.what, answered=answered)

    def call(self, made: Made, what: str, *, answered: bool) -> None:
        answer = self.do(what, made.call())
        if answered:
            made.hear(answer)

    def pick(self, number: int, quality: str) -> Hand:
        """One of the hands that have a quality, the newest first."""
        found = [hand for hand in reversed(self.hands) if getattr(hand, quality)]
        return found[number % len(found)]

    @initialize(hard=st.booleans(), asked=st.lists(asks, min_size=2, max_size=4), consumer=consumers)
    def begin(self, hard, asked, consumer):
        self.tally.examples += 1
        self.bench = Bench(self.redis_url, hard=hard)
        self.do("begin", self.bench.open())
        for ask in asked:
            self.submit(ask)
        self.take(consumer)

    # -- clients and operators

    @rule(ask=asks)
    def submit(self, ask):
        self.do("submit", self.bench.submit(ask))

    @at_most(2, "publish")
    @rule(ask=asks)
    def publish_past_the_client(self, ask):
        self.do("publish", self.bench.publish(ask))

    @at_most(2, "cancel")
    @rule(pick=picks)
    def cancel(self, pick):
        asked = list(self.bench.asked.values())
        ask = asked[pick % len(asked)]
        self.do("cancel", self.bench.cancel(ask.owner, ask.sender))

    @at_most(2, "reset")
    @rule()
    def reset_the_budget(self):
        reset = partial(self.bench.reset, f"reset-{next(self.numbers)}")
        self.made = [made for made in self.made if made.what != "reset"]  # only the last one is remembered
        self.make(Made("reset", reset))

    # -- time and faults

    @at_most(6, "time")
    @rule(ms=st.sampled_from([1, 1_000, 6_000, MINUTE_MS, MIDNIGHT_MS]))
    def time_passes(self, ms):
        self.bench.step_clock(ms)
        self.done["time"] += 1

    @at_most(2, "lose a record")
    @precondition(lambda self: self.bench.model.open.keys() & self.bench.model.records.keys())
    @rule(pick=picks)
    def lose_a_record(self, pick):
        model = self.bench.model
        owners = sorted(model.open.keys() & model.records.keys())
        self.do("lose a record", self.bench.lose_record(owners[pick % len(owners)]))

    # -- deliveries

    @precondition(lambda self: self.bench.unread)
    @rule(consumer=consumers)
    def take(self, consumer):
        entry = self.run(self.bench.take(consumer))
        self.hands.append(Hand(self.who(entry, consumer), self.bench.asked[entry].old))

    @at_most(8, "take over")
    @precondition(lambda self: self.bench.model.pending)
    @rule(pick=picks, consumer=consumers)
    def take_over(self, pick, consumer):
        pending = sorted(self.bench.model.pending)
        entry = pending[pick % len(pending)]
        self.do("take over", self.bench.claim(entry, consumer))
        self.hands.append(Hand(self.who(entry, consumer), self.bench.asked[entry].old))

    def who(self, entry: str, consumer: str) -> Who:
        ask = self.bench.asked[entry]
        return Who(ask.owner, ask.sender, entry, consumer, f"t{next(self.numbers)}")

    @at_most(4, "renew")
    @precondition(lambda self: self.hands)
    @rule(pick=picks)
    def renew(self, pick):
        hand = self.hands[pick % len(self.hands)]
        self.do("renew", self.bench.renew(hand.who, admitted=bool(hand.heard)))

    # -- a request's steps, by a worker that holds it or believes so

    @some("waits")
    @rule(pick=picks, deployment=deployments, amount=amounts, answered=answers)
    def admit(self, pick, deployment, amount, answered):
        hand = self.pick(pick, "waits")
        call = partial(self.bench.admit, hand.who, deployment, amount)
        self.make(Made("admit", call, partial(hand.heard_admission, deployment, amount)), answered=answered)

    @some("may_try_on")
    @rule(pick=picks, unknown=st.booleans(), result=results, deployment=deployments, amount=amounts, answered=answers)
    def advance(self, pick, unknown, result, deployment, amount, answered):
        hand = self.pick(pick, "may_try_on")
        end, attempt = End("failed", unknown=unknown, result=result), hand.attempt
        call = partial(self.bench.advance, hand.who, attempt, end, (hand.deployment, deployment), amount)
        hand.trying = True
        self.make(Made("advance", call, partial(hand.heard_advance, attempt, deployment, amount)), answered=answered)

    @some("calls")
    @rule(pick=picks, result=results)
    def note(self, pick, result):
        hand = self.pick(pick, "calls")
        end = End("failed", result=result)
        self.make(Made("note", partial(self.bench.note, hand.who, hand.attempt, end, hand.deployment)))

    @some("calls")
    @rule(pick=picks, count=st.integers(1, 3))
    def emit(self, pick, count):
        hand = self.pick(pick, "calls")
        call = partial(self.bench.emit, hand.who, hand.attempt, hand.chunks, count)
        hand.chunks += count
        self.make(Made("emit", call))

    @some("may_settle")
    @rule(pick=picks, state=states, cost=costs, unknown=st.booleans(), result=results)
    def settle(self, pick, state, cost, unknown, result):
        hand = self.pick(pick, "may_settle")
        hand.over = True
        if hand.heard != "admitted":
            end = End(hand.heard.replace("exhausted", "failed"))
        elif state != "done" and unknown:
            end = End(state, unknown=True, result=result)
        else:
            end = End(state, 0 if state == "failed" else cost, result=result)
        call = partial(self.bench.settle, hand.who, hand.attempt, hand.amount, end, hand.deployment, hand.chunks)
        self.make(Made("settle", call))

    @at_most(1, "refuse")
    @some("waits")
    @rule(pick=picks)
    def refuse(self, pick):
        hand = self.pick(pick, "waits")
        hand.over = True
        self.make(Made("refuse", partial(self.bench.refuse, hand.who, called=False)))

    @some("may_try_on")
    @rule(pick=picks)
    def refuse_after_the_call(self, pick):
        hand = self.pick(pick, "may_try_on")
        hand.over = True
        self.make(Made("refuse", partial(self.bench.refuse, hand.who, called=True)))

    @some("is_stale")
    @rule(pick=picks)
    def give_up_as_stale(self, pick):
        hand = self.pick(pick, "is_stale")
        hand.over = True
        self.do("give up", self.bench.give_up(hand.who))

    @at_most(15, "again")
    @precondition(lambda self: self.made)
    @rule(pick=picks, answered=answers)
    def send_again(self, pick, answered):
        made = self.made[-1 - pick % len(self.made)]
        self.call(made, f"{made.what} again", answered=answered)
        self.done["again"] += 1

    # -- the end

    def teardown(self) -> None:
        try:
            if self.sound:
                self.do("finish", self.finish())
        finally:
            if hasattr(self, "bench"):
                self.runner.run(self.bench.close())
            self.runner.close()

    async def finish(self) -> None:
        """Another worker takes over all that is left; then everything adds up."""
        bench, model = self.bench, self.bench.model
        while bench.unread:
            await bench.take("last")
        for entry in sorted(model.pending):
            await bench.claim(entry, "last")
            await self.run_to_its_end(self.who(entry, "last"))
        assert not model.pending
        if model.hard:
            await check_budget(bench.redis, LIMIT)
        await check_money(bench.redis, await events_of(bench.redis))
        await check_rest(bench.redis)
        due = set(model.records)
        assert dict(model.ends) == dict.fromkeys(due, 1), "I4"
        assert set(model.started.values()) <= {1}, "I5: one attempt was started twice"

    async def run_to_its_end(self, who: Who) -> None:
        bench = self.bench
        kind, attempt = await bench.admit(who, "free", 0)
        if kind in ("admitted", "exhausted", "cancelled"):
            end = End({"admitted": "done", "exhausted": "failed"}.get(kind, kind))
            assert await bench.settle(who, attempt, 0, end, "free", bench.model.record(who.owner).chunks) == "settled"
        elif kind == "stale":
            assert await bench.give_up(who) == "moved"
