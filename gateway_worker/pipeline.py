"""One request, top to bottom: open it, understand it, choose its route, attempt it, or refuse it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from gateway_worker.attempts import Attempts, PoisonError, StaleError, Work
from gateway_worker.call import Binding, dead_letter_entry, error_entry
from gateway_worker.delivery import Delivery
from gateway_worker.deployments import Deployment, Deployments
from gateway_worker.metrics import WorkerMetrics
from gateway_worker.records import Entry, Subject
from gateway_worker.routing import Router
from gateway_worker.transitions import Transitions
from model_gateway.clock import Clock
from model_gateway.dialects import DIALECTS, Request, check_for, unpriced
from model_gateway.envelope import BadEnvelopeError, Envelope, open_envelope
from model_gateway.errors import GatewayError
from model_gateway.settings import GatewayConfig
from model_gateway.signing import Keyring, sha256_hex
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)


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
        self._router = Router(config.routing, time.monotonic)
        self._attempts = Attempts(transitions, metrics)
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
            subject = work.subject_of(work.route.first)
            await self._attempts.run(delivery, work)
        except StaleError:
            await self._give_up(delivery, subject, binding, "stale_request", "stale: waited too long")
        except PoisonError:
            reason = f"its worker died in each of {self._config.redelivery.max_attempts} attempts"
            await self._give_up(delivery, subject, binding, "outcome_unknown", reason)
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
        envelope, arrived_ms = subject.envelope, int(delivery.entry.partition("-")[0])
        if delivery.count > self._config.redelivery.max_deliveries:
            reason, code = f"delivered {delivery.count - 1} times and never finished", "outcome_unknown"
        elif not envelope.is_current(arrived_ms, self._config.retention.dedupe_seconds * 1000):
            age_seconds = (arrived_ms - envelope.ts_ms) / 1000
            reason, code = f"stale: signed {age_seconds:.0f} s before it arrived", "stale_request"
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
        envelope, config = subject.envelope, self._config
        request = DIALECTS[envelope.operation].parse(envelope.body, max_choices=config.limits.choices)
        asked = envelope.model or request.model
        model, groups = self._deployments.find(asked)
        check_for(request, config.models[model])
        groups, size = _askable(request, groups), len(envelope.body)
        if not groups:
            raise GatewayError("unsupported_parameter", f"no deployment of '{model}' that is served can do all of this")
        route = self._router.route(groups, lambda each: each.reservation(request, size), config.longest_request(model))

        def subject_of(deployment: Deployment) -> Subject:
            base = _base(subject, deployment, (asked, model), self._keys)
            return replace(subject, model=deployment.model, base=base, deployment=deployment.name)

        old, over = self._is_old(envelope), self._over_budget(binding)
        return Work(subject_of, binding, request, route, over, old, time.monotonic())

    def _is_old(self, envelope: Envelope) -> bool:
        return self._clock.now_ms() - envelope.ts_ms > self._config.retention.dedupe_seconds * 1000

    def _over_budget(self, binding: Binding) -> Entry:
        budget = self._config.budget
        error = GatewayError(
            "budget_exceeded",
            f"this call could cost more than what is left of the daily budget of {budget.daily_limit_usd} USD; "
            "it is refilled at 00:00 UTC",
        )
        return error_entry(error, binding)


def _subject(delivery: Delivery, envelope: Envelope) -> Subject:
    """What is known before the body is read."""
    base = ["request_id", envelope.request_id, "principal", envelope.principal, "model", "unknown"]
    base += ["provider", "", "deployment", "", "task", "", "price", "", "request_entry", delivery.entry]
    return Subject(delivery.entry, envelope, "unknown", secrets.token_hex(16), base)


def _base(subject: Subject, deployment: Deployment, named: tuple[str, str], keys: Keys) -> list[str]:
    """The fields that stand in each of an attempt's events.

    Args:
        subject: what is known before the body is read.
        deployment: who is asked.
        named: what the client asked for, and the model that it stands for.
        keys: names of streams.
    """
    asked, model = named
    envelope = subject.envelope
    found = [
        *("request_id", envelope.request_id, "principal", envelope.principal, "model", deployment.model),
        *("provider", deployment.row.provider, "deployment", deployment.name),
        *("task", asked if asked != model else "", "price", str(deployment.price)),
        *("request_entry", subject.entry, "reply_stream", keys.replies(envelope.sender)),
    ]
    if envelope.operation != "chat":
        found += ["operation", envelope.operation]
    if deployment.model != model:
        found += ["fallback_for", model]
    return found


Groups = list[tuple[str, list[Deployment]]]


def _askable(request: Request, groups: Groups) -> Groups:
    """The deployments that have a price for all that is asked, and room for the output bound."""
    return [
        (routing, able)
        for routing, deployments in groups
        if (able := [each for each in deployments if _can_be_asked(request, each)])
    ]


def _can_be_asked(request: Request, deployment: Deployment) -> bool:
    fits = request.output_bound is None or request.output_bound <= deployment.max_tokens
    return fits and unpriced(request, deployment.row) is None
