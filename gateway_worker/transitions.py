"""The typed face of the scripts that move one request along; one method a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from model_gateway.counters import bucket_of
from model_gateway.envelope import Envelope
from model_gateway.ledger import GATEWAY_SCOPE
from model_gateway.money import Usage
from model_gateway.scripts import Script, Scripts, load_script
from model_gateway.settings import DEDUPE_MARGIN_SECONDS, Budget, GatewayConfig
from model_gateway.streams import GROUP, Keys

RUNNING_TTL_MS: Final = 7 * 86_400_000
"""How long a record lives whose request nobody finishes; each renewal starts it anew."""

_SETTLE_SECONDS: Final = 600.0
_ADMIT_SECONDS: Final = 10.0
_ALWAYS: Final = ("input", "output", "cached", "reasoning")
"""Kinds of tokens that stand in each terminal event; the others only where there are some."""

_MAX_DEAD_FIELDS: Final = 32
_MAX_DEAD_BYTES: Final = 65_536


def _load(name: str, *, allow_oom: bool = False) -> Script:
    preludes = ("model_gateway:prelude", "gateway_worker:request")
    return load_script("gateway_worker", name, *preludes, allow_oom=allow_oom)


_ADMIT: Final = _load("admit")
_EMIT: Final = _load("emit", allow_oom=True)
_SETTLE: Final = _load("settle", allow_oom=True)
_REFUSE: Final = _load("refuse", allow_oom=True)
_DEAD: Final = load_script("gateway_worker", "dead_letter", "model_gateway:prelude", allow_oom=True)


class LeaseLostError(Exception):
    """The fence token is stale: another worker has the request, and nothing more may be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a reply, before it is written."""

    kind: Literal["reply", "chunk", "error"]
    data: bytes
    index: int = 0
    status: int = 200
    end: bool = True
    retry_after: int | None = None
    usd_nano: int | None = None
    event: str = ""
    code: str = ""

    def fields(self, request_id: str) -> list[str]:
        """Its fields in order, but for ``data``; the id comes first."""
        found = ["id", request_id, "kind", self.kind, "index", str(self.index), "status", str(self.status)]
        found += ["end", "1" if self.end else "0"]
        if self.retry_after is not None:
            found += ["retry_after", str(self.retry_after)]
        if self.usd_nano is not None:
            found += ["usd_nano", str(self.usd_nano)]
        if self.event:
            found += ["event", self.event]
        if self.code:
            found += ["code", self.code]
        return found


@dataclass(frozen=True, slots=True)
class Subject:
    """The request that a transition is about.

    Attributes:
        entry: its place on the request stream.
        envelope: what was asked, by whom.
        model: the model's name, for metrics; ``unknown`` where there is none.
        token: this delivery's fence token.
        base: fields that stand in each of its events, flat.
    """

    entry: str
    envelope: Envelope
    model: str
    token: str
    base: list[str]

    @property
    def owner(self) -> str:
        """Principal and id: the request's name in the ledger."""
        return f"{self.envelope.principal}:{self.envelope.request_id}"


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of an admission.

    Attributes:
        kind: ``admitted``; ``exhausted`` or ``cancelled`` (to be settled, nothing reserved); ``ledger_lost`` (to be
            refused); ``stale`` (to be dead-lettered); ``refused``, ``duplicate`` or ``lost`` (nothing left to do).
        attempt: which attempt this is.
        window: the budget window that it reserved in.
        chunks: chunks the client has seen, and the signature of the last one.
    """

    kind: str
    attempt: int = 0
    window: str = ""
    chunks: int = 0
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        state: ``done``, ``failed`` or ``cancelled``.
        replies: what is left of the reply; the last one ends it.
        cost: nano-dollars.
        unknown: the provider may have been paid and nobody knows how much: charge the reservation.
        usage: tokens by kind.
        estimated: whether the gateway counted them, rather than the provider.
        retry_after: seconds after which the provider wants to be asked again.
        chunks: how many the client may have seen of it.
    """

    state: Literal["done", "failed", "cancelled"]
    replies: list[Entry]
    cost: int = 0
    unknown: bool = False
    usage: Usage = field(default_factory=Usage)
    estimated: bool = False
    finish_reason: str = ""
    error_code: str = ""
    ttft_ms: int | None = None
    latency_ms: int = 0
    retry_after: int | None = None
    chunks: int = 0

    def fields(self) -> list[str]:
        """The terminal event's own fields, flat."""
        return [
            *("status", self.state),
            *self._tokens(),
            *("estimated", "1" if self.estimated else "0", "latency_ms", str(self.latency_ms)),
            *("ttft_ms", "" if self.ttft_ms is None else str(self.ttft_ms)),
            *("finish_reason", self.finish_reason, "error_code", self.error_code),
        ]

    def _tokens(self) -> Iterator[str]:
        for kind, count in self.usage.counts().items():
            if count or kind in _ALWAYS:
                yield from (f"{kind}_tokens", str(count))
        if self.usage.tier:
            yield from ("service_tier", self.usage.tier)


class Transitions:
    """Admit, emit, settle, refuse, dead-letter: each one script, one round trip, idempotent."""

    def __init__(self, scripts: Scripts, keys: Keys, config: GatewayConfig, consumer: str) -> None:
        self._scripts = scripts
        self._keys = keys
        self._config = config
        self._consumer = consumer
        self._dead_keep_ms = str(config.retention.requests.seconds * 1000)
        self._reply_ttl_ms = str(config.retention.replies.seconds * 1000)
        self._final_ttl_ms = str((config.retention.dedupe_seconds + DEDUPE_MARGIN_SECONDS) * 1000)
        self._scopes = [_scope(GATEWAY_SCOPE, config.budget)]

    async def admit(self, subject: Subject, amount: int, refusal: Entry, *, old: bool) -> Admission:
        """Reserve ``amount`` nano-dollars in every scope and start an attempt.

        Args:
            subject: the request.
            amount: the most that the call can cost.
            refusal: the reply that goes out if a hard scope is full.
            old: signed longer ago than ids are remembered; then only a submitted request is taken.
        """
        failed = Outcome("failed", [refusal], error_code="budget_exceeded")
        answer = await self._call(
            _ADMIT,
            subject,
            [refusal],
            amount=str(amount),
            scopes=self._scopes,
            old="1" if old else "0",
            max_attempts=str(self._config.redelivery.max_attempts),
            running_ttl_ms=str(RUNNING_TTL_MS),
            error_fields=["usd_nano", "0", "usd", "0", *failed.fields()],
            within=_ADMIT_SECONDS,
        )
        kind = answer[0].decode()
        if kind == "admitted":
            return Admission(kind, int(answer[1]), answer[2].decode())
        if kind in ("exhausted", "cancelled"):
            return Admission(kind, int(answer[1]), chunks=int(answer[2]), signature=answer[3].decode())
        return Admission(kind)

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
            input_tokens=str(outcome.usage.input),
            output_tokens=str(outcome.usage.output),
            bucket=bucket_of(outcome.latency_ms),
            latency_ms=str(outcome.latency_ms),
            fields=outcome.fields(),
            within=_SETTLE_SECONDS,
        )
        return str(answer[0].decode())

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
            *_bounded(entry),
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
        kept = _bounded(fields)
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

    async def _call(
        self, script: Script, subject: Subject, replies: Sequence[Entry], *more: bytes, within: float, **own: Any
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
        return await self._scripts.call(script, self._request_keys(envelope), args, *data, within=within)

    def _request_keys(self, envelope: Envelope) -> list[str]:
        keys = self._keys
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
        ]


def _bounded(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """An entry's fields, flat, as a dead letter keeps them."""
    return [part[:_MAX_DEAD_BYTES] for pair in list(fields.items())[:_MAX_DEAD_FIELDS] for part in pair]


def _scope(name: str, budget: Budget) -> dict[str, str]:
    return {
        "name": name,
        "limit": str(budget.limit_nano),
        "hard": "1" if budget.hard_stop else "0",
        "warn": str(budget.warning_nano),
    }
