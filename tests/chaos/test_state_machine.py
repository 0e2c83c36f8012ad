"""Any order of steps, resends, takeovers and stale tokens, against a real server and beside a small reference model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model_gateway.scripts import connect
from tests.chaos.ledger_rig import EVENING, PRINCIPALS, Rig
from tests.chaos.ledger_terms import LIMIT, RUNNABLE, Asker, Claim, Delivery, End
from tests.chaos.reference_ledger import Ledger
from tests.chaos.scale import SEED, scaled
from tests.invariants import check_budget, check_money, check_rest, events_of

EXAMPLES, STEPS = scaled(1_200, 60), scaled(60, 40)
HOUR = 3_600_000

KNOWN = [Asker("agent-a", "agent-a", "r1"), Asker("agent-b", "agent-b", "r1"), Asker("http-x", "team-1", "r2")]

askers = st.sampled_from(KNOWN)
principals = st.sampled_from(PRINCIPALS)
consumers = st.sampled_from("abc")
deployments = st.sampled_from("xy")
amounts = st.sampled_from([100_000, 50_000, 100_000, 300_000, 0, 450_000, LIMIT])
costs = st.sampled_from([0, 50_000, 100_000, 300_000, 500_000, 1_200_000])
blocked = st.sampled_from([0, 0, 0, 20])
ends = st.builds(End, st.sampled_from(["done", "failed", "cancelled"]), costs, st.booleans(), blocked)
failures = st.builds(End, st.just("failed"), st.just(0), st.booleans(), blocked)


class LedgerMachine(RuleBasedStateMachine):
    """Steps in any order. After each one the model and Redis agree, and what changes nothing changes no byte."""

    redis_url: str
    tally: Counter[str]
    live: Bundle[Delivery] = Bundle("live")
    every: Bundle[Delivery] = Bundle("every")
    ended: Bundle[Delivery] = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig(connect(self.redis_url))
        self.run(self.rig.start())
        self.ledger = Ledger(EVENING)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.newest: dict[tuple[str, str], str] = {}
        self.askers: dict[str, Asker] = {}
        self.tokens = 0
        self.known = list(KNOWN)
        self.seen = self.run(self.rig.look(self.known))
        self.tally["examples"] += 1

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(step)

    # steps that move entries

    @rule(asker=askers, signed=st.booleans(), left=st.booleans())
    def publish(self, asker: Asker, signed: bool, left: bool) -> None:
        """By the client or by a plain XADD; an id may come again, and its client may leave at once."""
        if signed:
            self.submit(asker)
        else:
            self.ledger.published(asker, self.run(self.rig.publish()))
            self.compare("publish")
        if left:
            self.call("cancel", asker)

    def submit(self, asker: Asker) -> None:
        answer, entry = self.run(self.rig.submit(asker))
        assert answer == self.ledger.submit(asker, entry)
        self.compare("submit", answer)

    @rule(targets=(live, every), consumer=consumers, deployment=deployments)
    def take(self, consumer: str, deployment: str) -> Any:
        taken = self.ledger.taken(consumer)
        if taken is None:
            return multiple()
        entry, asker = taken
        self.askers[entry] = asker
        assert self.run(self.rig.take(consumer)) == entry
        self.compare("take")
        return self.delivered(entry, consumer, deployment)

    @rule(
        targets=(live, every),
        principal=principals,
        consumer=consumers,
        deployment=deployments,
        amount=amounts,
        failed=st.lists(failures, max_size=2),
    )
    def begin(self, principal: tuple[str, str], consumer: str, deployment: str, amount: int, failed: list[End]) -> Any:
        """A new request on its usual way, so that there is always something to disturb."""
        self.known.append(Asker(*principal, f"n{len(self.known)}"))
        self.submit(self.known[-1])
        taken = self.take(consumer, deployment)
        if isinstance(taken, Delivery):
            self.admit(taken, amount)
            for end in failed:
                self.advance(taken, end, deployment, 50_000, heard=True)
        return taken

    @rule(targets=(live, every), delivery=every, consumer=consumers, deployment=deployments, amount=amounts)
    def take_over(self, delivery: Delivery, consumer: str, deployment: str, amount: int) -> Any:
        if delivery.claim.entry not in self.ledger.pending:
            return multiple()
        heir = self.claim(delivery.claim.entry, consumer, deployment)
        self.admit(heir, amount)
        return heir

    @rule(targets=(live, every), delivery=every, consumer=consumers, deployment=deployments)
    def claim_only(self, delivery: Delivery, consumer: str, deployment: str) -> Any:
        if delivery.claim.entry not in self.ledger.pending:
            return multiple()
        return self.claim(delivery.claim.entry, consumer, deployment)

    def claim(self, entry: str, consumer: str, deployment: str) -> Delivery:
        self.run(self.rig.claim(entry, consumer))
        self.ledger.pending[entry] = consumer
        self.compare("claim")
        return self.delivered(entry, consumer, deployment)

    def delivered(self, entry: str, consumer: str, deployment: str) -> Delivery:
        self.tokens += 1
        token = self.newest[entry, consumer] = f"t{self.tokens}"
        return Delivery(Claim(self.askers[entry], entry, consumer, token, deployment))

    # steps of one request; a consumer that lost it goes on all the same

    @rule(delivery=live, amount=amounts)
    def admit(self, delivery: Delivery, amount: int) -> None:
        if delivery.kind in ("", "gated") and not self.superseded(delivery.claim):
            delivery.hear(self.call("admit", delivery.claim, amount))

    @rule(delivery=live, deployment=deployments)
    def ask_another_deployment(self, delivery: Delivery, deployment: str) -> None:
        if delivery.kind == "gated":
            delivery.claim = replace(delivery.claim, deployment=deployment)

    @rule(delivery=live, end=failures, deployment=deployments, amount=amounts, heard=st.booleans())
    def advance(self, delivery: Delivery, end: End, deployment: str, amount: int, heard: bool) -> None:
        if delivery.kind != "admitted" or delivery.chunks:
            return
        admission = self.call("advance", delivery.claim, delivery.attempt, end, deployment, amount)
        if heard and admission.kind == "admitted":
            delivery.hear(admission)
            delivery.claim = replace(delivery.claim, deployment=deployment)

    @rule(delivery=live, end=failures)
    def note(self, delivery: Delivery, end: End) -> None:
        if delivery.kind == "admitted":
            self.call("note", delivery.claim, delivery.attempt, end)

    @rule(delivery=live, number=st.integers(1, 3))
    def emit(self, delivery: Delivery, number: int) -> None:
        if delivery.kind == "admitted" and self.call("emit", delivery.claim, delivery.chunks, number) != "stale":
            delivery.chunks += number

    @rule(target=ended, delivery=consumes(live), end=ends)
    def settle(self, delivery: Delivery, end: End) -> Delivery:
        if delivery.kind in RUNNABLE:
            self.call("settle", delivery.claim, delivery.attempt, replace(end, index=delivery.chunks))
        return delivery

    @rule(target=ended, delivery=consumes(live), called=st.booleans())
    def refuse(self, delivery: Delivery, called: bool) -> Delivery:
        # Nobody chains a refusal to chunks that went out before.
        if not self.ledger.chunks_of(delivery.claim.asker) and not self.superseded(delivery.claim):
            self.call("refuse", delivery.claim, called=called)
        return delivery

    @rule(delivery=ended, end=ends, deployment=deployments, number=st.integers(1, 2))
    def go_on_after_the_end(self, delivery: Delivery, end: End, deployment: str, number: int) -> None:
        """A consumer that does not know that it is over does everything once more, and otherwise."""
        self.emit(delivery, number)
        self.note(delivery, end)
        self.advance(delivery, end, deployment, 100_000, heard=False)
        self.settle(delivery, end)

    @rule(delivery=every)
    def renew(self, delivery: Delivery) -> None:
        self.call("renew", delivery.claim, admitted=delivery.kind in RUNNABLE)

    # steps from outside

    @rule(delivery=every)
    def cancel(self, delivery: Delivery) -> None:
        self.call("cancel", delivery.claim.asker)

    @precondition(lambda self: self.ledger.settled[self.ledger.window])
    @rule()
    def reset(self) -> None:
        self.call("reset", f"reset-{len(self.calls)}")

    @rule(ms=st.sampled_from([10_000, HOUR, 5 * HOUR]))
    def pass_time(self, ms: int) -> None:
        self.rig.clock.advance(ms)
        self.ledger.now_ms += ms

    @rule(back=st.integers(0, 40))
    def resend(self, back: int) -> None:
        """The very same call once more: its answer was lost, or it was long on its way."""
        if self.calls:
            name, args, named = self.calls[-1 - back % len(self.calls)]
            if not self.forgotten(name, args):
                self.call(name, *args, **named)
                self.tally["resent"] += 1

    def forgotten(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether nothing tells a call that comes so late from a new one."""
        if name == "reset":
            return self.ledger.resets.get(self.ledger.window, ("", 0))[0] != args[0]
        return name in ("admit", "refuse", "renew") and self.superseded(args[0])

    def superseded(self, claim: Claim) -> bool:
        """Whether the consumer has lost the entry and got it back: then it goes by the newer token."""
        return self.newest[claim.entry, claim.consumer] != claim.token

    # what holds after each of them

    def call(self, name: str, *args: Any, **named: Any) -> Any:
        """One step, by the scripts and by the model."""
        self.calls.append((name, args, named))
        answer = self.run(getattr(self.rig, name)(*args, **named))
        expected = getattr(self.ledger, name)(*args, **named)
        assert answer == expected, f"{name} answered {answer}, expected {expected}"
        self.compare(name, getattr(answer, "kind", answer))
        return answer

    def compare(self, name: str, answer: object = "") -> None:
        """Both have come to the same, within the budget; and where the model stands still, so does all of Redis."""
        self.tally["steps"] += 1
        self.tally[f"{name} {answer}".strip()] += 1
        before, self.seen = self.seen, self.run(self.rig.look(self.known))
        view = self.ledger.view()
        assert self.seen.view == view, f"{name}: Redis has {self.seen.view}, the model {view}"
        if before.view == view:
            assert self.seen.all == before.all, f"{name} changed {before.all} to {self.seen.all}"
        self.run(check_budget(self.rig.redis, LIMIT))

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.run(self.rig.close())
            self.loop.close()

    def finish(self) -> None:
        """Take over whatever is open and bring it to its end; then everything must add up."""
        self.pass_time(HOUR)
        while isinstance(taken := self.take("a", "x"), Delivery):
            self.admit(taken, 0)
        for entry in list(self.ledger.pending):
            heir = self.claim(entry, "b", "x")
            self.admit(heir, 0)
            self.settle(heir, End("failed"))
        assert not self.ledger.pending
        self.run(self.check_end())

    async def check_end(self) -> None:
        events = await events_of(self.rig.redis)
        told = [(event["event_type"], owner_of(event)) for event in events]
        assert told == self.ledger.events
        assert await self.rig.replies() == self.ledger.replies
        self.ledger.check_ends()
        await check_money(self.rig.redis, events)
        await check_rest(self.rig.redis)


def owner_of(event: dict[str, Any]) -> str:
    return f"{event['principal']}:{event['request_id']}" if event.get("request_id") else ""


@pytest.mark.timeout(scaled(600, 120))
def test_whatever_the_order_of_steps_the_ledger_and_the_requests_are_as_the_model_has_them(redis_url, record_property):
    tally: Counter[str] = Counter()
    machine = type("Machine", (LedgerMachine,), {"redis_url": redis_url, "tally": tally})
    run_state_machine_as_test(
        seed(SEED)(machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    record_property("fault", "any order of steps, resends, takeovers and stale tokens")
    for name in ("examples", "steps", "resent"):
        record_property(name, tally[name])
