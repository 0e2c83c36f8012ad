"""What goes into a request's transitions and what comes out of them, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from model_gateway.envelope import Envelope
from model_gateway.money import Usage

_ALWAYS: Final = ("input", "output", "cached", "reasoning")
"""Kinds of tokens that stand in each terminal event; the others only where there are some."""


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
    served_by: str = ""

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
        if self.served_by:
            found += ["served_by", self.served_by]
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
        deployment: the deployment's name; empty where there is none yet.
    """

    entry: str
    envelope: Envelope
    model: str
    token: str
    base: list[str]
    deployment: str = ""

    @property
    def owner(self) -> str:
        """Principal and id: the request's name in the ledger."""
        return f"{self.envelope.principal}:{self.envelope.request_id}"


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of an admission.

    Attributes:
        kind: ``admitted``; ``gated`` (the deployment may not be called now); ``exhausted`` or ``cancelled`` (to be
            settled, nothing reserved); ``ledger_lost`` (to be refused); ``stale`` (to be dead-lettered);
            ``refused``, ``duplicate`` or ``lost`` (nothing left to do).
        attempt: which attempt this is.
        window: the budget window that it reserved in.
        chunks: chunks the client has seen, and the signature of the last one.
        event: the id of the event that tells of it; empty where the answer was lost on the way.
        reason: why it is gated: ``rate_limited`` or ``circuit_open``.
        wait: seconds until it may be otherwise.
    """

    kind: str
    attempt: int = 0
    window: str = ""
    chunks: int = 0
    signature: str = ""
    event: str = field(default="", compare=False)
    reason: str = ""
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Gate:
    """What a call of a deployment is held against before it is made.

    Attributes:
        rpm, tpm: its rates, or None.
        tokens: what the call counts as in ``tpm``.
        probe_seconds: how long the call may take, should it be the one that tries a broken deployment out.
        asks: whether anybody is called at all; else nothing is held against it.
    """

    rpm: int | None = None
    tpm: int | None = None
    tokens: int = 0
    probe_seconds: float = 60.0
    asks: bool = True

    def args(self) -> dict[str, str]:
        """As the scripts take it."""
        return {
            "rpm": str(self.rpm or ""),
            "tpm": str(self.tpm or ""),
            "tokens": str(self.tokens),
            "probe_ms": str(round(self.probe_seconds * 1000)),
            "asks": "1" if self.asks else "",
        }


@dataclass(frozen=True, slots=True)
class Note:
    """What a call says of its deployment.

    Attributes:
        result: ``none`` where it says nothing, such as a call that was cancelled.
        blocked_seconds: how long the deployment wants to be left alone.
    """

    result: Literal["ok", "error", "timeout", "none"] = "none"
    blocked_seconds: float = 0.0


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
        note: what the call says of its deployment.
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
    note: Note = Note()

    def fields(self) -> list[str]:
        """The terminal event's own fields, flat."""
        return [
            *("status", self.state),
            *self._tokens(),
            *("estimated", "1" if self.estimated else "0", "latency_ms", str(self.latency_ms)),
            *("ttft_ms", "" if self.ttft_ms is None else str(self.ttft_ms)),
            *("finish_reason", self.finish_reason, "error_code", self.error_code),
        ]

    def failure_fields(self) -> list[str]:
        """The retry event's own fields, flat."""
        return ["status", "retry", "latency_ms", str(self.latency_ms), "error_code", self.error_code]

    def _tokens(self) -> Iterator[str]:
        for kind, count in self.usage.counts().items():
            if count or kind in _ALWAYS:
                yield from (f"{kind}_tokens", str(count))
        if self.usage.tier:
            yield from ("service_tier", self.usage.tier)


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that has ended and is not closed yet: its reservation is open, its terminal event unwritten.

    Attributes:
        amount: nano-dollars that it reserved.
    """

    subject: Subject
    admission: Admission
    amount: int
    outcome: Outcome
