"""Which deployment a request is put to, and after a failure: again, elsewhere, or not at all. Decides, calls nobody."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway_worker.deployments import Deployment
from gateway_worker.records import Admission, Note, Outcome
from gateway_worker.standing import Clock, Latency, RetryBudget, Standing
from model_gateway.errors import GatewayError
from model_gateway.settings import Routing

AGAIN: Final = frozenset({"rate_limit_exceeded", "upstream_error", "upstream_unavailable"})
"""Failures after which the same deployment may be asked again, where it was not paid."""

ELSEWHERE: Final = AGAIN | {
    "model_overloaded",
    "upstream_timeout",
    "upstream_truncated",
    "upstream_invalid_response",
    "upstream_unauthorized",
    "unsupported_parameter",
    "unsupported_operation",
}
"""Failures after which another deployment may do better. What the client got wrong is wrong everywhere."""

_BROKEN: Final = frozenset(
    {"upstream_error", "upstream_unavailable", "upstream_truncated", "upstream_invalid_response"}
)
_TELLS_NOTHING: Final = frozenset(
    {"unsupported_parameter", "unsupported_operation", "rate_limit_exceeded", "model_overloaded", "cancelled"}
)


_HINT_SECONDS: Final = 1.0
_MOMENT_SECONDS: Final = 0.05
"""A rate that opens this soon is waited for, whoever else there is: two clocks may differ about a wait that is over."""

_MAX_BLOCK_SECONDS: Final = 300.0
"""A Retry-After that claims more than this is not believed further."""


def note_of(outcome: Outcome, learned_wait: float) -> Note:
    """What a call says of its deployment.

    Args:
        outcome: how the call ended.
        learned_wait: seconds that the reply's headers ask for.
    """
    code = outcome.error_code
    asked = outcome.retry_after or 0 if code in AGAIN else 0
    blocked = max(learned_wait, min(float(asked), _MAX_BLOCK_SECONDS))
    if outcome.state == "done":
        return Note("ok", blocked)
    if code == "upstream_timeout":
        return Note("timeout", blocked)
    if code in _BROKEN:
        return Note("error", blocked)
    return Note("none" if code in _TELLS_NOTHING else "ok", blocked)


@dataclass(slots=True)
class Candidate:
    """A deployment on one request's route.

    Attributes:
        amount: what a call reserves, in nano-dollars.
        calls: how often this request called it.
        not_before: when it may be asked.
        patience: until when a full rate is waited for; 0 before there was one.
        out: it is not asked any more.
    """

    deployment: Deployment
    standing: Standing
    amount: int
    calls: int = 0
    not_before: float = 0.0
    patience: float = 0.0
    out: bool = False


@dataclass(slots=True)
class Route:
    """One request's way: groups of candidates in order, the model's own first, then each fallback's.

    Attributes:
        refusal: why the last candidate could not be asked, for when none can.
    """

    groups: list[list[Candidate]]
    settings: Routing
    clock: Clock
    deadline: float
    jitter: Callable[[], float] = random.random
    refusal: GatewayError | None = None

    @property
    def first(self) -> Deployment:
        """Who would be asked if all were well."""
        return self.groups[0][0].deployment

    def next(self, *, believe: bool = True) -> tuple[Candidate, float] | None:
        """Whom to ask next, and the seconds to wait before; None where nobody is left or no time is.

        Args:
            believe: pass over who was found shut a moment ago, without asking again.
        """
        while (chosen := self._least_reluctant()) is not None:
            now = self.clock()
            wait = max(0.0, chosen.not_before - now)
            if believe and chosen.standing.shut is not None and chosen.standing.shut_until > now:
                self._shut(chosen, chosen.standing.shut)
            elif now + wait >= self.deadline:
                return None
            elif chosen.calls and not chosen.standing.retries.take():
                chosen.out = True
            else:
                return chosen, wait
        return None

    def _least_reluctant(self) -> Candidate | None:
        """Of the first group that has any left: least waiting, then fewest calls, then who has room; else in order."""
        now = self.clock()
        for group in self.groups:
            left = [candidate for candidate in group if not candidate.out]
            if left:
                return min(left, key=lambda each: (max(0.0, each.not_before - now), each.calls, each.deployment.full))
        return None

    def entered(self, candidate: Candidate) -> None:
        """The candidate is being called."""
        if candidate.calls == 0:
            candidate.standing.retries.first_call()
        candidate.calls += 1

    def gated(self, candidate: Candidate, admission: Admission) -> None:
        """The candidate may not be called now, by anybody; this process believes it for a second at most."""
        candidate.standing.shut = admission
        candidate.standing.shut_until = self.clock() + min(admission.wait, _HINT_SECONDS)
        self._not_called(candidate)
        self._shut(candidate, admission)

    def _shut(self, candidate: Candidate, admission: Admission) -> None:
        """Wait for a rate, if nobody else can be asked and it is not for long; never for what is broken."""
        now = self.clock()
        candidate.patience = candidate.patience or now + candidate.deployment.row.queue_timeout
        self._out(candidate, _refusal(candidate.deployment.name, admission))
        if (
            admission.reason == "rate_limited"
            and (candidate in self.groups[-1] or admission.wait <= _MOMENT_SECONDS)
            and now + admission.wait <= candidate.patience
        ):
            candidate.out = False
            candidate.not_before = now + admission.wait
            candidate.standing.shut_until = min(candidate.standing.shut_until, now)

    def refused(self, candidate: Candidate, error: GatewayError) -> None:
        """The candidate was not asked, and will not be."""
        self._not_called(candidate)
        self._out(candidate, error)

    def _out(self, candidate: Candidate, error: GatewayError) -> None:
        candidate.out = True
        self.refusal = error

    def _not_called(self, candidate: Candidate) -> None:
        """Where that was to be a retry, it was none."""
        if candidate.calls:
            candidate.standing.retries.give_back()

    def ended(self, candidate: Candidate, outcome: Outcome, seconds: float) -> bool:
        """Take a call's outcome into account. Returns whether the request may be put to somebody once more."""
        if outcome.state == "done":
            candidate.standing.latency.add(seconds)
            return False
        code = outcome.error_code
        if outcome.state == "cancelled" or code not in ELSEWHERE:
            return False
        if code not in _TELLS_NOTHING:
            candidate.standing.latency.failed()
        if outcome.chunks:
            return False
        candidate.out = outcome.unknown or code not in AGAIN or not self._may_retry(candidate, outcome)
        return True

    def _may_retry(self, candidate: Candidate, outcome: Outcome) -> bool:
        """Whether the same deployment may be asked again; it then says from when on."""
        wait = self._backoff(candidate) if outcome.retry_after is None else float(outcome.retry_after)
        candidate.not_before = self.clock() + wait
        return candidate.calls <= self.settings.retries and wait <= self.settings.max_backoff_seconds

    def _backoff(self, candidate: Candidate) -> float:
        """Exponential, with jitter (M. Brooker, "Exponential Backoff And Jitter"), but never less than a tenth."""
        longest = self.settings.backoff_seconds * 2.0 ** (candidate.calls - 1)
        return min(longest, self.settings.max_backoff_seconds) * (0.1 + 0.9 * self.jitter())


def _refusal(name: str, admission: Admission) -> GatewayError:
    seconds = max(1, math.ceil(admission.wait))
    if admission.reason == "rate_limited":
        message = f"'{name}' is at its rate limit; try again in {seconds} s"
        return GatewayError("rate_limit_exceeded", message, retry_after=seconds, billed=False)
    message = f"'{name}' has failed too often and is left alone; try again in {seconds} s"
    return GatewayError("upstream_unavailable", message, retry_after=seconds, billed=False)


class Router:
    """Makes routes, and keeps what this process knows of each deployment."""

    def __init__(self, settings: Routing, clock: Clock, chance: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._standings: dict[str, Standing] = {}

    def route(
        self,
        groups: Sequence[tuple[str, Sequence[Deployment]]],
        amount_of: Callable[[Deployment], int],
        seconds: float,
    ) -> Route:
        """A request's route.

        Args:
            groups: a model's ``routing`` and its deployments, for each model that may answer, in order.
            amount_of: what a call of a deployment reserves, in nano-dollars.
            seconds: for all of it.
        """
        found = [self._ordered(routing, deployments, amount_of) for routing, deployments in groups]
        return Route(found, self._settings, self._clock, self._clock() + seconds, self._chance)

    def _ordered(
        self, routing: str, deployments: Sequence[Deployment], amount_of: Callable[[Deployment], int]
    ) -> list[Candidate]:
        candidates = [Candidate(each, self._standing(each.name), amount_of(each)) for each in deployments]
        match routing:
            case "weighted":
                # Weighted order without replacement (Efraimidis and Spirakis, 2006).
                candidates.sort(key=lambda candidate: -self._draw(candidate.deployment.row.weight))
            case "latency":
                candidates.sort(key=lambda candidate: candidate.standing.latency.expected)
            case "cost":
                candidates.sort(key=lambda candidate: candidate.amount)
        return candidates

    def _draw(self, weight: int) -> float:
        return self._chance() ** (1.0 / weight) if weight else -1.0

    def _standing(self, name: str) -> Standing:
        if name not in self._standings:
            ratio = float(self._settings.retry_budget)
            self._standings[name] = Standing(RetryBudget(ratio, self._clock), Latency(self._clock))
        return self._standings[name]
