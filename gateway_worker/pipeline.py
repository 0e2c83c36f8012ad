"""One request, top to bottom: open, understand, admit, call, settle. Slots and leases are the worker's business."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gateway_worker.call import (
    Binding,
    Call,
    chained_error,
    dead_letter_entry,
    error_entry,
)
from gateway_worker.delivery import Delivery
from gateway_worker.deployments import Deployment, Deployments
from gateway_worker.metrics import WorkerMetrics
from gateway_worker.transitions import Admission, Entry, LeaseLostError, Outcome, Subject, Transitions
from model_gateway.clock import Clock
from model_gateway.dialects import DIALECTS, Request, check_for
from model_gateway.envelope import BadEnvelopeError, Envelope, open_envelope
from model_gateway.errors import GatewayError
from model_gateway.settings import GatewayConfig
from model_gateway.signing import ChunkChain, Keyring, sha256_hex
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)
_CLOCK_SKEW_MS: Final = 300_000


Room = AbstractAsyncContextManager[None]


@dataclass(frozen=True, slots=True)
class Work:
    """An understood request: what to call, and what its transitions are about."""

    subject: Subject
    binding: Binding
    request: Request
    deployment: Deployment
    amount: int
    started: float


class Pipeline:
    """Runs one delivery to its end."""

    def __init__(
        self,
        *,
        config: GatewayConfig,
        keys: Keys,
        transitions: Transitions,
        deployments: Deployments,
        keyring: Keyring,
        sender_secrets: Mapping[str, tuple[str, ...]],
        metrics: WorkerMetrics,
        clock: Clock,
    ) -> None:
        self._config = config
        self._keys = keys
        self._transitions = transitions
        self._deployments = deployments
        self._keyring = keyring
        self._secrets = sender_secrets
        self._metrics = metrics
        self._clock = clock

    async def run(self, delivery: Delivery) -> None:
        """One request, from its entry to its terminal event."""
        try:
            envelope = open_envelope(delivery.fields, self._secrets)
        except BadEnvelopeError as error:
            await self._put_aside(delivery, error)
            return
        binding = Binding(self._keyring, envelope.request_id, sha256_hex(envelope.body), envelope.operation)
        subject = _subject(delivery, envelope)
        delivery.identify(subject.owner, self._keys.record(envelope.principal, envelope.request_id))
        try:
            if await self._gave_up(delivery, subject, binding):
                return
            work = self._understand(subject, binding)
            subject = work.subject
            room = work.deployment.capacity(delivery.slots.park())
            if delivery.count > 1:
                # It may have been started: however busy the deployment is, that must be settled first.
                await self._admit_and_call(delivery, work, room)
                return
            async with room:
                await self._admit_and_call(delivery, work, nullcontext())
        except GatewayError as error:
            reply = error_entry(error, binding)
            await self._transitions.refuse(subject, reply, error.code, called=bool(delivery.token))

    # -- open and understand

    async def _put_aside(self, delivery: Delivery, error: BadEnvelopeError) -> None:
        """To the dead letters, with an error reply where the sender is known for sure."""
        reply = None
        if error.sender and error.request_id:
            answer = GatewayError("invalid_value", f"the envelope can't be run: {error}")
            reply = (error.sender, error.request_id, dead_letter_entry(answer, self._keyring))
        await self._transitions.dead_letter(delivery.entry, delivery.fields, str(error), reply)
        self._metrics.dead_letters.inc()
        _log.warning("request.dead_letter", entry=delivery.entry, reason=str(error))

    async def _gave_up(self, delivery: Delivery, subject: Subject, binding: Binding) -> bool:
        """Whether the entry is not to be run: it keeps killing its workers, or it is stale. It then has its end."""
        age_ms = int(delivery.entry.partition("-")[0]) - subject.envelope.ts_ms
        if delivery.count > self._config.redelivery.max_deliveries:
            reason, code = f"delivered {delivery.count - 1} times and never finished", "outcome_unknown"
        elif not -_CLOCK_SKEW_MS <= age_ms <= self._config.retention.dedupe_seconds * 1000:
            reason, code = f"stale: signed {age_ms / 1000:.0f} s before it arrived", "stale_request"
        else:
            return False
        await self._give_up(delivery, subject, binding, code, reason)
        return True

    async def _give_up(self, delivery: Delivery, subject: Subject, binding: Binding, code: str, reason: str) -> None:
        """To the dead letters; what was accepted has its terminal event, a stale stranger's has none."""
        reply = error_entry(GatewayError(code, f"the request can't be run: {reason}"), binding)
        dead, stale = (reason, delivery.fields), code == "stale_request"
        result = await self._transitions.refuse(subject, reply, code, called=True, dead=dead, accepted_only=stale)
        if result == "stranger":
            reply_to = (subject.envelope.sender, subject.envelope.request_id, reply)
            await self._transitions.dead_letter(delivery.entry, delivery.fields, reason, reply_to)
        self._metrics.dead_letters.inc()
        _log.warning("request.dead_letter", entry=delivery.entry, reason=reason)

    def _understand(self, subject: Subject, binding: Binding) -> Work:
        """The request, checked, and what it runs on.

        Raises:
            GatewayError: the client's mistake.
        """
        envelope = subject.envelope
        request = DIALECTS[envelope.operation].parse(envelope.body, max_choices=self._config.limits.choices)
        asked = envelope.model or request.model
        _, row, [deployment, *_] = self._deployments.find(asked)
        check_for(request, row)
        subject = replace(
            subject,
            model=deployment.name,
            base=_base(envelope, subject.entry, deployment, asked, self._keys),
        )
        amount = deployment.reservation(request, len(envelope.body))
        return Work(subject, binding, request, deployment, amount, time.monotonic())

    # -- admit

    async def _admit_and_call(self, delivery: Delivery, work: Work, room: Room) -> None:
        """Admit, and do what the admission says.

        Args:
            delivery: the entry in hand.
            work: what it asks for.
            room: one of the deployment's calls, where it was not taken before.

        Raises:
            GatewayError: the request is to be refused.
        """
        with self._metrics.admit.time():
            admission = await self._transitions.admit(
                work.subject, work.amount, self._over_budget(work), old=self._is_old(work.subject.envelope)
            )
        match admission.kind:
            case "admitted":
                delivery.admitted(work.subject.token)
                await self._settle(work, admission, await self._outcome(delivery, work, admission, room))
            case "exhausted" | "cancelled":
                delivery.admitted(work.subject.token)
                await self._settle(work, admission, _not_called(work, admission))
            case "ledger_lost":
                raise GatewayError(
                    "ledger_lost",
                    "Redis came back without its ledger: nothing is admitted until the operator runs "
                    "`model-gateway ledger rebuild` or `model-gateway ledger init`",
                    retry_after=60,
                )
            case "stale":
                await self._give_up(delivery, work.subject, work.binding, "stale_request", "stale: waited too long")

    def _is_old(self, envelope: Envelope) -> bool:
        return self._clock.now_ms() - envelope.ts_ms > self._config.retention.dedupe_seconds * 1000

    def _over_budget(self, work: Work) -> Entry:
        budget = self._config.budget
        error = GatewayError(
            "budget_exceeded",
            f"this call could cost more than what is left of the daily budget of {budget.daily_limit_usd} USD; "
            "it is refilled at 00:00 UTC",
        )
        return error_entry(error, work.binding)

    # -- call

    async def _outcome(self, delivery: Delivery, work: Work, admission: Admission, room: Room) -> Outcome:
        """The call's outcome; where the fence turned a chunk away, settle judges whether anything is owed."""
        try:
            async with room:
                return await self._call(delivery, work, admission)
        except GatewayError as error:  # no room: nothing was called
            return Outcome("failed", [error_entry(error, work.binding)], error_code=error.code)
        except LeaseLostError:
            lost = GatewayError("outcome_unknown", "the request was lost while its chunks were written")
            return Outcome("failed", [error_entry(lost, work.binding)], unknown=True, error_code=lost.code)

    async def _call(self, delivery: Delivery, work: Work, admission: Admission) -> Outcome:
        """The provider's answer, or what is owed when the request is cancelled."""

        async def emit(chunks: list[Entry], signature: str) -> None:
            if await self._transitions.emit(work.subject, admission.attempt, chunks, signature):
                delivery.cancel()

        call = Call(work.deployment, work.request, work.binding, emit, time.monotonic)
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

    async def _settle(self, work: Work, admission: Admission, outcome: Outcome) -> None:
        """The one settle point: money, the end of the reply, the event and the acknowledgement."""
        latency_ms = round((time.monotonic() - work.started) * 1000)
        cost = work.amount if outcome.unknown else outcome.cost
        last = replace(outcome.replies[-1], usd_nano=cost)
        outcome = replace(outcome, latency_ms=latency_ms, replies=[*outcome.replies[:-1], last])
        if outcome.state == "failed":
            self._metrics.provider_errors.labels(work.deployment.name, outcome.error_code).inc()
        with self._metrics.settle.time():
            result = await self._transitions.settle(work.subject, admission, work.amount, outcome)
        if result not in ("settled", "already"):
            _log.warning("request.not_settled", request_id=work.binding.request_id, result=result)


def _nothing() -> None:
    """Nobody listens for a cancellation any more."""


def _subject(delivery: Delivery, envelope: Envelope) -> Subject:
    """What is known before the body is read."""
    base = ["request_id", envelope.request_id, "principal", envelope.principal, "model", "unknown"]
    base += ["provider", "", "deployment", "", "task", "", "price", "", "request_entry", delivery.entry]
    return Subject(delivery.entry, envelope, "unknown", secrets.token_hex(16), base)


def _base(envelope: Envelope, entry: str, deployment: Deployment, asked: str, keys: Keys) -> list[str]:
    """The fields that stand in each of the request's events."""
    return [
        *("request_id", envelope.request_id, "principal", envelope.principal, "model", deployment.name),
        *("provider", deployment.row.provider, "deployment", deployment.name),
        *("task", asked if asked != deployment.name else "", "price", str(deployment.price)),
        *("request_entry", entry, "reply_stream", keys.replies(envelope.sender)),
    ]


def _not_called(work: Work, admission: Admission) -> Outcome:
    """The end of a request that is not called again: its attempts are used up, or it was cancelled in the queue."""
    if admission.kind == "cancelled":
        error, state = GatewayError("cancelled", "the request was cancelled"), "cancelled"
    else:
        error, state = (
            GatewayError(
                "outcome_unknown",
                f"attempt {admission.attempt} was lost with its worker; the provider may have answered",
            ),
            "failed",
        )
    binding = work.binding
    if admission.chunks:
        chain = ChunkChain(
            binding.keyring,
            binding.request_id,
            binding.request_sha256,
            index=admission.chunks,
            previous=admission.signature,
        )
        reply = chained_error(error, chain, binding.dialect)
    else:
        reply = error_entry(error, binding)
    if state == "cancelled":
        return Outcome("cancelled", [reply], error_code=error.code)
    return Outcome("failed", [reply], error_code=error.code)
