"""A request's attempts: admit, call, and either settle or try once more. One settle point for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gateway_worker.call import Binding, Call, error_entry
from gateway_worker.delivery import Delivery
from gateway_worker.deployments import Deployment
from gateway_worker.endings import cancelled_between, ledger_lost, not_called
from gateway_worker.metrics import WorkerMetrics
from gateway_worker.records import Admission, Ended, Entry, Gate, LeaseLostError, Outcome, Subject
from gateway_worker.routing import Candidate, Route, note_of
from gateway_worker.transitions import Transitions
from model_gateway.dialects import Request
from model_gateway.errors import GatewayError

_log = structlog.get_logger(__name__)

_BYTES_A_TOKEN: Final = 4

Room = AbstractAsyncContextManager[None]
"""One of a deployment's calls, or nothing where it was taken before."""


@dataclass(frozen=True, slots=True)
class Work:
    """An understood request.

    Attributes:
        subject_of: what an attempt's transitions are about, by deployment.
        over_budget: the reply that goes out if a hard scope is full.
        old: signed longer ago than ids are remembered.
        started: when it was taken, by the monotonic clock.
    """

    subject_of: Callable[[Deployment], Subject]
    binding: Binding
    request: Request
    route: Route
    over_budget: Entry
    old: bool
    started: float


class StaleError(Exception):
    """The request waited too long: it is to be dead-lettered."""


class PoisonError(Exception):
    """Each attempt died with its worker, and there is no further one: the request is to be dead-lettered."""


class _NotAskedError(Exception):
    """The candidate was not called; nothing has changed."""


class _NoMoreError(Exception):
    """No further attempt can start: the one that failed is the request's end."""


class _OverError(Exception):
    """Nothing is left to do: a script has ended the request, or another worker has it."""


class Attempts:
    """Puts a request to its candidates, one after the other, until it has its end."""

    def __init__(self, transitions: Transitions, metrics: WorkerMetrics) -> None:
        self._transitions = transitions
        self._metrics = metrics

    async def run(self, delivery: Delivery, work: Work) -> None:
        """From admission to the terminal event.

        Raises:
            GatewayError: nobody can be asked; the request is to be refused.
            StaleError, PoisonError: it is to be dead-lettered.
        """
        try:
            last = await self._last(delivery, work)
        except _OverError:
            return
        if last is None:
            raise work.route.refusal or GatewayError("model_overloaded", "no deployment can be asked in time")
        await self._settle(work, last)

    async def _last(self, delivery: Delivery, work: Work) -> Ended | None:
        """Attempt after attempt; the last one's end, or None where nobody could be asked."""
        last: Ended | None = None
        while (chosen := work.route.next(believe=_believes(delivery, work, last))) is not None:
            candidate, wait = chosen
            if wait and last is not None:
                await self._note(last)
            await _pause(delivery, wait)
            try:
                last = await self._attempt(delivery, work, candidate, last)
            except _NotAskedError:
                continue
            except _NoMoreError:
                break
            if not work.route.ended(candidate, last.outcome, _seconds(last.outcome)):
                return last
            self._metrics.retries.labels(candidate.deployment.name, last.outcome.error_code).inc()
        return cancelled_between(last, work.binding) if last is not None and delivery.cancelled else last

    async def _note(self, last: Ended) -> None:
        """Tell all workers of a failure before this request waits; where that fails, its next step will tell."""
        with suppress(GatewayError):
            await self._transitions.note(last)

    # -- one attempt

    async def _attempt(self, delivery: Delivery, work: Work, candidate: Candidate, last: Ended | None) -> Ended:
        """Admit and call, with room for the call.

        Raises:
            _NotAskedError, _NoMoreError, _OverError, GatewayError, StaleError, PoisonError: there was no call.
        """
        room = _room(delivery, candidate)
        if delivery.count > 1 and last is None:
            # It may have been started: however busy the deployment is, that must be settled first.
            return await self._admit_and_call(delivery, work, candidate, last, room)
        try:
            async with room:
                return await self._admit_and_call(delivery, work, candidate, last, nullcontext())
        except GatewayError as error:
            if error.code != "model_overloaded":
                raise
            if delivery.cancelled:  # admission sees it too, and calls nobody
                return await self._admit_and_call(delivery, work, candidate, last, _room(delivery, candidate))
            work.route.refused(candidate, error)
            raise _NotAskedError from None

    async def _admit_and_call(
        self, delivery: Delivery, work: Work, candidate: Candidate, last: Ended | None, room: Room
    ) -> Ended:
        subject = work.subject_of(candidate.deployment)
        with self._metrics.admit.time():
            admission = await self._admit(work, candidate, subject, last)
        started = time.monotonic()
        if admission.kind == "admitted":
            delivery.admitted(subject.token)
            work.route.entered(candidate)
            with self._transitions.held(subject, admission, candidate.amount):
                outcome = await self._outcome(delivery, work, candidate.deployment, (subject, admission), room)
        elif last is None and admission.kind == "exhausted" and not admission.chunks:
            raise PoisonError
        elif last is None and admission.kind in ("exhausted", "cancelled"):
            delivery.admitted(subject.token)
            outcome = not_called(admission, work.binding)
        else:
            raise self._no_call(delivery, work, candidate, admission, last)
        latency_ms = round((time.monotonic() - started) * 1000)
        return Ended(subject, admission, candidate.amount, replace(outcome, latency_ms=latency_ms))

    async def _admit(self, work: Work, candidate: Candidate, subject: Subject, last: Ended | None) -> Admission:
        gate = _gate(work.request, candidate.deployment, len(subject.envelope.body))
        if last is None:
            return await self._transitions.admit(subject, candidate.amount, work.over_budget, old=work.old, gate=gate)
        try:
            return await self._transitions.advance(last, subject, candidate.amount, gate)
        except GatewayError as error:  # Redis is away or full: the failed attempt is settled as it ended
            raise _NoMoreError from error

    def _no_call(
        self, delivery: Delivery, work: Work, candidate: Candidate, admission: Admission, last: Ended | None
    ) -> Exception:
        """What an admission without a call means."""
        match admission.kind:
            case "gated":
                work.route.gated(candidate, admission)
                return _NotAskedError()
            case "ledger_lost":
                return ledger_lost()
            case "stale" if last is None:
                return StaleError()
            case "cancelled":
                delivery.cancel()
                return _NoMoreError()
            case "refused" | "missing" if last is not None:
                return _NoMoreError()
        return _OverError()

    # -- call

    async def _outcome(
        self,
        delivery: Delivery,
        work: Work,
        deployment: Deployment,
        admitted: tuple[Subject, Admission],
        room: Room,
    ) -> Outcome:
        """The call's outcome; where the fence turned a chunk away, settle judges whether anything is owed."""
        try:
            async with room:
                outcome = await self._call(delivery, work, deployment, *admitted)
        except GatewayError as error:  # no room: nothing was called
            outcome = Outcome("failed", [error_entry(error, work.binding)], error_code=error.code)
        except LeaseLostError:
            lost = GatewayError("outcome_unknown", "the request was lost while its chunks were written")
            outcome = Outcome("failed", [error_entry(lost, work.binding)], unknown=True, error_code=lost.code)
        if deployment.counts_here(work.request):
            return outcome
        return replace(outcome, note=note_of(outcome, deployment.provider.limits.take()))

    async def _call(
        self, delivery: Delivery, work: Work, deployment: Deployment, subject: Subject, admission: Admission
    ) -> Outcome:
        """The provider's answer, or what is owed when the request is cancelled."""

        async def emit(chunks: list[Entry], signature: str) -> None:
            if await self._transitions.emit(subject, admission.attempt, chunks, signature):
                delivery.cancel()

        call = Call(deployment, work.request, work.binding, emit, time.monotonic)
        task = asyncio.create_task(call.run(), name=f"call {work.binding.request_id}")
        delivery.on_cancel(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if not (delivery.cancelled and task.cancelled()):
                raise
            return call.cancelled()
        finally:
            delivery.on_cancel(_nothing)

    # -- settle

    async def _settle(self, work: Work, last: Ended) -> None:
        """The one settle point: money, the end of the reply, the event and the acknowledgement."""
        outcome = last.outcome
        cost = last.amount if outcome.unknown else outcome.cost
        end = replace(outcome.replies[-1], usd_nano=cost)
        latency_ms = round((time.monotonic() - work.started) * 1000)
        outcome = replace(outcome, latency_ms=latency_ms, replies=[*outcome.replies[:-1], end])
        if outcome.state == "failed":
            self._metrics.provider_errors.labels(last.subject.deployment, outcome.error_code).inc()
        with self._metrics.settle.time(), self._transitions.held(last.subject, last.admission, last.amount):
            result = await self._transitions.settle(last.subject, last.admission, last.amount, outcome)
        if result not in ("settled", "already"):
            _log.warning("request.not_settled", request_id=work.binding.request_id, result=result)


def _room(delivery: Delivery, candidate: Candidate) -> Room:
    return candidate.deployment.capacity(delivery.slots.park(), delivery.on_cancel)


async def _pause(delivery: Delivery, seconds: float) -> None:
    """Wait without a slot; a cancellation ends it, and the next admission sees it."""
    if not seconds:
        return
    cancelled = asyncio.Event()
    delivery.on_cancel(cancelled.set)
    try:
        with delivery.slots.park(), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await cancelled.wait()
    finally:
        delivery.on_cancel(_nothing)


def _believes(delivery: Delivery, work: Work, last: Ended | None) -> bool:
    """Whether to pass over who was found shut a moment ago, without asking Redis.

    Not before Redis has judged what may have been started already; nor where the answer may be a count made here.
    """
    return (delivery.count == 1 or last is not None) and work.request.operation != "count_tokens"


def _nothing() -> None:
    """Nobody listens for a cancellation any more."""


def _seconds(outcome: Outcome) -> float:
    """How long the client waited for something of it."""
    return (outcome.latency_ms if outcome.ttft_ms is None else outcome.ttft_ms) / 1000


def _gate(request: Request, deployment: Deployment, body_bytes: int) -> Gate:
    """What a call is held against; its tokens are what the provider may count for it before it answers."""
    row = deployment.row
    if deployment.counts_here(request):
        return Gate(asks=False)
    tokens = 0
    if row.tpm is not None:
        tokens = body_bytes // _BYTES_A_TOKEN + deployment.output_bound(request) * request.choices
    return Gate(row.rpm, row.tpm, tokens, row.timeout)
