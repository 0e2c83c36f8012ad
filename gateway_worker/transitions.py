"""The typed face of the scripts that move one request along; one method a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson

from gateway_worker.reconciliation import Witnesses
from gateway_worker.records import Admission, Ended, Entry, Gate, LeaseLostError, Note, Outcome, Subject
from gateway_worker.script_values import admission_of, bounded, breaker, scope, text
from model_gateway.counters import bucket_of
from model_gateway.ledger import GATEWAY_SCOPE
from model_gateway.scripts import Script, Scripts, load_script
from model_gateway.settings import DEDUPE_MARGIN_SECONDS, GatewayConfig
from model_gateway.streams import GROUP, Keys

RUNNING_TTL_MS: Final = 7 * 86_400_000
"""How long a record lives whose request nobody finishes; each renewal starts it anew."""

_SETTLE_SECONDS: Final = 600.0
_ADMIT_SECONDS: Final = 10.0
_NOTE_SECONDS: Final = 1.0


def _load(name: str, *more: str, allow_oom: bool = False) -> Script:
    preludes = ("model_gateway:prelude", "gateway_worker:request", *(f"gateway_worker:{prelude}" for prelude in more))
    return load_script("gateway_worker", name, *preludes, allow_oom=allow_oom)


_ADMIT: Final = _load("admit", "budget", "deployment")
_ADVANCE: Final = _load("advance", "budget", "deployment")
_NOTE: Final = _load("note", "budget", "deployment")
_EMIT: Final = _load("emit", allow_oom=True)
_SETTLE: Final = _load("settle", "budget", "deployment", allow_oom=True)
_REFUSE: Final = _load("refuse", "budget", allow_oom=True)
_DEAD: Final = load_script("gateway_worker", "dead_letter", "model_gateway:prelude", allow_oom=True)


class Transitions:
    """Admit, advance, note, emit, settle, refuse, dead-letter: each one script, one round trip, idempotent."""

    def __init__(
        self, scripts: Scripts, keys: Keys, config: GatewayConfig, consumer: str, witnesses: Witnesses | None = None
    ) -> None:
        """``witnesses`` are told of all that Redis acknowledges."""
        self._scripts = scripts
        self._witnesses = witnesses or Witnesses(time.monotonic, GATEWAY_SCOPE)
        self._keys = keys
        self._config = config
        self._consumer = consumer
        self._dead_keep_ms = str(config.retention.requests.seconds * 1000)
        self._reply_ttl_ms = str(config.retention.replies.seconds * 1000)
        self._final_ttl_ms = str((config.retention.dedupe_seconds + DEDUPE_MARGIN_SECONDS) * 1000)
        self._scopes = [scope(GATEWAY_SCOPE, config.budget)]
        self._breaker = breaker(config.routing.breaker)

    async def admit(
        self,
        subject: Subject,
        amount: int,
        refusal: Entry,
        *,
        old: bool,
        gate: Gate = Gate(),  # noqa: B008 - frozen
    ) -> Admission:
        """Reserve ``amount`` nano-dollars in every scope and start an attempt.

        Args:
            subject: the request.
            amount: the most that the call can cost.
            refusal: the reply that goes out if a hard scope is full.
            old: signed longer ago than ids are remembered; then only a submitted request is taken.
            gate: what the deployment is held against.
        """
        failed = Outcome("failed", [refusal], error_code="budget_exceeded")
        answer = await self._call(
            _ADMIT,
            subject,
            [refusal],
            amount=str(amount),
            scopes=self._scopes,
            old="1" if old else "0",
            gate=self._gate(gate),
            max_attempts=str(self._config.redelivery.max_attempts),
            running_ttl_ms=str(RUNNING_TTL_MS),
            error_fields=["usd_nano", "0", "usd", "0", *failed.fields()],
            within=_ADMIT_SECONDS,
        )
        admission = admission_of(answer)
        self._witnesses.add(subject, admission, admission.event)
        return admission

    async def advance(self, ended: Ended, subject: Subject, amount: int, gate: Gate) -> Admission:
        """Close an attempt that failed and start the next one.

        Args:
            ended: the attempt that failed.
            subject: the request as the next attempt has it.
            amount: nano-dollars to reserve for it.
            gate: what its deployment is held against.

        Returns:
            ``admitted``; or ``gated``, ``refused``, ``cancelled``, ``missing`` (no money moved: settle the failed one)
            or ``stale`` (another worker has it).
        """
        failed, outcome = ended.subject, ended.outcome
        answer = await self._call(
            _ADVANCE,
            failed,
            [],
            more_keys=(self._keys.deployment(subject.deployment),),
            base=orjson.dumps(subject.base).decode(),
            model=subject.model,
            failed_base=orjson.dumps(failed.base).decode(),
            failed_model=failed.model,
            failed_fields=outcome.failure_fields(),
            attempt=str(ended.admission.attempt),
            unknown="1" if outcome.unknown else "0",
            unknown_reason=outcome.error_code,
            note=self._note(outcome.note),
            amount=str(amount),
            scopes=self._scopes,
            gate=self._gate(gate),
            running_ttl_ms=str(RUNNING_TTL_MS),
            within=_ADMIT_SECONDS,
        )
        admission = admission_of(answer)
        self._witnesses.add(failed, ended.admission, admission.event, str(ended.amount) if outcome.unknown else "")
        return admission

    async def note(self, ended: Ended) -> None:
        """Say at once what a failed attempt says of its deployment: its request waits, and others must not run into it.

        Raises:
            GatewayError: it could not be said; ``advance`` or ``settle`` will.
        """
        attempt, note = str(ended.admission.attempt), self._note(ended.outcome.note)
        await self._call(_NOTE, ended.subject, [], attempt=attempt, note=note, within=_NOTE_SECONDS)

    async def emit(self, subject: Subject, attempt: int, chunks: Sequence[Entry], signature: str) -> bool:
        """Write chunks. Returns whether somebody asked for the request to be cancelled.

        Raises:
            LeaseLostError: nothing was written.
        """
        answer = await self._call(
            _EMIT,
            subject,
            chunks,
            first_index=str(chunks[0].index),
            signature=signature,
            attempt=str(attempt),
            within=_SETTLE_SECONDS,
        )
        if answer[0] != b"written":
            raise LeaseLostError(subject.owner)
        return bool(answer[1])

    async def settle(self, subject: Subject, admission: Admission, amount: int, outcome: Outcome) -> str:
        """The one settle point. Returns ``settled``, ``already``, ``stale`` or ``missing``."""
        answer = await self._call(
            _SETTLE,
            subject,
            outcome.replies,
            state=outcome.state,
            attempt=str(admission.attempt),
            window=admission.window,
            amount=str(amount),
            cost=str(outcome.cost),
            unknown="1" if outcome.unknown else "0",
            unknown_reason=outcome.error_code,
            scope_names=GATEWAY_SCOPE,
            note=self._note(outcome.note),
            input_tokens=str(outcome.usage.input),
            output_tokens=str(outcome.usage.output),
            bucket=bucket_of(outcome.latency_ms),
            latency_ms=str(outcome.latency_ms),
            fields=outcome.fields(),
            within=_SETTLE_SECONDS,
        )
        result = str(answer[0].decode())
        if result == "stale":
            self._witnesses.drop(subject, admission, amount if outcome.unknown else outcome.cost)
        self._witnesses.add(subject, admission, text(answer, 1), text(answer, 2))
        return result

    @contextmanager
    def held(self, subject: Subject, admission: Admission, amount: int) -> Iterator[None]:
        """While an attempt is open here. Where it is dropped, its call may have been paid."""
        try:
            yield
        except asyncio.CancelledError:
            self._witnesses.drop(subject, admission, amount)
            raise

    async def refuse(
        self,
        subject: Subject,
        error: Entry,
        code: str,
        *,
        called: bool,
        dead: tuple[str, Mapping[bytes, bytes]] = ("", {}),
        accepted_only: bool = False,
    ) -> str:
        """End a delivery that is not called. Returns ``refused``, ``duplicate``, ``lost`` or ``stranger``.

        Args:
            subject: the request.
            error: the reply.
            code: the error's code, for the event.
            called: whether this delivery may have called the provider; then its reservation is charged.
            dead: the reason and the fields of a dead letter to be written as well.
            accepted_only: leave alone what was never submitted, and answer ``stranger``.
        """
        reason, entry = dead
        fields = ["usd_nano", "0", "usd", "0", *Outcome("failed", [], error_code=code).fields()]
        answer = await self._call(
            _REFUSE,
            subject,
            [error],
            *bounded(entry),
            fields=fields,
            called="1" if called else "0",
            reason=reason,
            accepted_only="1" if accepted_only else "0",
            keep_ms=self._dead_keep_ms,
            within=_SETTLE_SECONDS,
        )
        return str(answer[0].decode())

    async def dead_letter(
        self, entry: str, fields: Mapping[bytes, bytes], reason: str, reply: tuple[str, str, Entry] | None
    ) -> str:
        """Put an entry aside. ``reply`` is sender, request id and error, where there is one to reach."""
        sender, request_id, error = reply or ("nobody", "", None)
        kept = bounded(fields)
        args = {
            "group": GROUP,
            "consumer": self._consumer,
            "entry": entry,
            "reason": reason,
            "keep_ms": self._dead_keep_ms,
            "reply_ttl_ms": self._reply_ttl_ms,
            "replies": [error.fields(request_id)] if error else [],
        }
        keys = [self._keys.requests, self._keys.dead, self._keys.replies(sender)]
        payload = [*kept, error.data] if error else kept
        answer = await self._scripts.call(_DEAD, keys, args, *payload, within=_SETTLE_SECONDS)
        return str(answer[0].decode())

    def _gate(self, gate: Gate) -> dict[str, str]:
        return {**gate.args(), "breaker": self._breaker["window_ms"]}

    def _note(self, note: Note) -> dict[str, str]:
        return {"result": note.result, "blocked_ms": str(round(note.blocked_seconds * 1000)), **self._breaker}

    async def _call(
        self,
        script: Script,
        subject: Subject,
        replies: Sequence[Entry],
        *more: bytes,
        within: float,
        more_keys: tuple[str, ...] = (),
        **own: Any,
    ) -> list[Any]:
        """Call one of the request's scripts: the same keys and common arguments for all."""
        envelope = subject.envelope
        args = {
            "group": GROUP,
            "consumer": self._consumer,
            "entry": subject.entry,
            "owner": subject.owner,
            "id": envelope.request_id,
            "token": subject.token,
            "base": orjson.dumps(subject.base).decode(),
            "model": subject.model,
            "final_ttl_ms": self._final_ttl_ms,
            "reply_ttl_ms": self._reply_ttl_ms,
            "replies": [reply.fields(envelope.request_id) for reply in replies],
            **own,
        }
        data = [*(reply.data for reply in replies), *more]
        return await self._scripts.call(script, [*self._request_keys(subject), *more_keys], args, *data, within=within)

    def _request_keys(self, subject: Subject) -> list[str]:
        keys, envelope = self._keys, subject.envelope
        return [
            keys.requests,
            keys.record(envelope.principal, envelope.request_id),
            keys.open,
            keys.ledger,
            keys.spend,
            keys.counters,
            keys.events,
            keys.replies(envelope.sender),
            keys.epoch,
            keys.dead,
            keys.deployment(subject.deployment),
        ]
