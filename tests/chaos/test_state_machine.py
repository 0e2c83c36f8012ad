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
from tests.chaos.ledger_rig import EVENING, KNOWN, PRINCIPALS, Rig
from tests.chaos.ledger_terms import LIMIT, RUNNABLE, Asker, Claim, Delivery, End
from tests.chaos.reference_ledger import Ledger
from tests.chaos.scale import SEED, scaled
from tests.invariants import check_budget

EXAMPLES, STEPS = scaled(750, 80), scaled(60, 40)
HOUR = 3_600_000
SENT = ("admit", "advance", "note", "emit", "settle", "refuse", "renew", "cancel", "reset")

deployments = st.sampled_from("xy")
routes = st.tuples(st.sampled_from("abc"), deployments)
amounts = st.sampled_from([100_000, 50_000, 100_000, 300_000, 0, 450_000, LIMIT])
next_amounts = st.sampled_from([100_000, LIMIT, LIMIT + 50_000])
costs = st.sampled_from([0, 50_000, 100_000, 300_000, 500_000, 1_200_000])
blocked = st.sampled_from([0, 0, 0, 20])
ends = st.builds(End, st.sampled_from(["done", "failed", "cancelled"]), costs, st.booleans(), blocked)
failures = st.builds(End, st.just("failed"), st.just(0), st.booleans(), blocked)
several = st.lists(failures, max_size=3)

Route = tuple[str, str]
"""The consumer that takes an entry, and the deployment that it would call."""


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

    @rule(asker=st.sampled_from(KNOWN), signed=st.booleans(), left=st.booleans())
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

    @rule(targets=(live, every), route=routes)
    def take(self, route: Route) -> Any:
        taken = self.ledger.taken(route[0])
        if taken is None:
            return multiple()
        entry, self.askers[entry] = taken
        assert self.run(self.rig.take(route[0])) == entry
        self.compare("take")
        return self.delivered(entry, route)

    @rule(targets=(live, every), principal=st.sampled_from(PRINCIPALS), route=routes, amount=amounts, failed=several)
    def begin(self, principal: tuple[str, str], route: Route, amount: int, failed: list[End]) -> Any:
        """A new request on its usual way, so that there is always something to disturb."""
        self.known.append(Asker(*principal, f"n{len(self.known)}"))
        self.submit(self.known[-1])
        taken = self.take(route)
        if isinstance(taken, Delivery):
            self.admit(taken, amount)
            for end in failed:
                self.advance(taken, end, route[1], 50_000, heard=True)
        return taken

    @rule(targets=(live, every), delivery=every, route=routes, amount=st.none() | amounts, woken=st.none() | ends)
    def take_over(self, delivery: Delivery, route: Route, amount: int | None, woken: End | None) -> Any:
        """Another consumer takes an entry over; the one that lost it may wake and go on."""
        if delivery.claim.entry not in self.ledger.pending:
            return multiple()
        heir = self.claim(delivery.claim.entry, route)
        if amount is not None:
            self.admit(heir, amount)
        if woken:
            self.go_on(delivery, woken, route[1], 1)
        return heir

    def claim(self, entry: str, route: Route) -> Delivery:
        self.run(self.rig.claim(entry, route[0]))
        self.ledger.pending[entry] = route[0]
        self.compare("claim")
        return self.delivered(entry, route)

    def delivered(self, entry: str, route: Route) -> Delivery:
        self.tokens += 1
        token = self.newest[entry, route[0]] = f"t{self.tokens}"
        return Delivery(Claim(self.askers[entry], entry, route[0], token, route[1]))

    # steps of one request; a consumer that lost it goes on all the same

    @rule(delivery=live, amount=amounts)
    def admit(self, delivery: Delivery, amount: int) -> None:
        if delivery.kind in ("", "gated") and not self.superseded(delivery.claim):
            delivery.hear(self.call("admit", delivery.claim, amount))

    @rule(delivery=live, deployment=deployments)
    def ask_another_deployment(self, delivery: Delivery, deployment: str) -> None:
        if delivery.kind == "gated":
            delivery.claim = replace(delivery.claim, deployment=deployment)

    @rule(
        delivery=live,
        end=failures,
        deployment=deployments,
        amount=next_amounts,
        heard=st.booleans(),
        took=st.sampled_from([0, 24 * HOUR]),
    )
    def fail(self, delivery: Delivery, end: End, deployment: str, amount: int, heard: bool, took: int) -> None:
        """An attempt fails, perhaps on another day than it began, and the next one is asked for."""
        self.pass_time(took)
        self.advance(delivery, end, deployment, amount, heard=heard)

    def advance(self, delivery: Delivery, end: End, deployment: str, amount: int, *, heard: bool) -> None:
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
        if not self.ledger.request_of(delivery.claim.asker).chunks and not self.superseded(delivery.claim):
            self.call("refuse", delivery.claim, called=called)
        return delivery

    @rule(delivery=ended, end=ends, deployment=deployments, number=st.integers(1, 2))
    def go_on(self, delivery: Delivery, end: End, deployment: str, number: int) -> None:
        """A consumer that does not know that it is over, or lost, does everything that it could."""
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

    @rule(back=st.integers(0, 4))
    def resend(self, back: int) -> None:
        """The very same call of each kind once more: its answer was lost, or it was long on its way."""
        for kind in SENT:
            sent = [call for call in self.calls if call[0] == kind]
            for name, args, named in sent[-1 - back :][:1]:
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
        while isinstance(taken := self.take(("a", "x")), Delivery):
            self.admit(taken, 0)
        for entry in list(self.ledger.pending):
            heir = self.claim(entry, ("b", "x"))
            self.admit(heir, 0)
            self.settle(heir, End("failed"))
        assert not self.ledger.pending
        self.run(self.rig.check_end(self.ledger))


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
