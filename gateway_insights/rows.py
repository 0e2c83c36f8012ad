"""One request as a row, out of an event that charges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from model_gateway.events import LEDGER_GAP, RESTORED

_STATUS: Final[Mapping[str, str]] = {
    "model.request.complete": "done",
    "model.request.failed": "failed",
    "model.request.cancelled": "cancelled",
    "model.request.unknown": "unknown",
    RESTORED: "unknown",
}
_MOST_TOKENS: Final = 2**40
_MOST_MS: Final = 2**31 - 1
_MOST_NANO: Final = 2**62
"""What no honest event passes, and what no column and no sum over a batch fails at."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS: Final = 253_402_300_799_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where the texts of a request lie in Redis; empty where there is none.

    Attributes:
        request_entry: of the request stream.
        reply_stream, reply_first, reply_last: the reply, with replies to others in between.
    """

    request_entry: str = ""
    reply_stream: str = ""
    reply_first: str = ""
    reply_last: str = ""


@dataclass(slots=True)
class Row:
    """One request, as ``model_insights`` has it: the sum of its charges, and how it ended.

    Attributes:
        time, event_id: of its first charge; they name the row.
        status: ``done``, ``failed``, ``cancelled``; ``unknown`` while only an attempt was charged, and for a charge
            that Redis had lost.
        cost_nano: nano-dollars, of all its attempts.
        window_day: the UTC day whose budget was charged, or None.
    """

    time: datetime
    event_id: str
    request_id: str
    principal: str
    model: str
    provider: str
    deployment: str
    operation: str
    task: str | None
    fallback_for: str | None
    attempt: int
    status: str
    finish_reason: str | None
    error_code: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int
    cost_nano: int
    estimated: bool
    service_tier: str | None
    latency_ms: int | None
    ttft_ms: int | None
    window_day: date | None
    request_text: str | None = None
    reply_text: str | None = None
    text_hash: bytes | None = None
    source: Source = Source()

    @property
    def key(self) -> tuple[str, str]:
        """Principal and request id: the request's name."""
        return self.principal, self.request_id

    @property
    def is_open(self) -> bool:
        """Whether its terminal event is still to come."""
        return self.status == "unknown" and not self.is_restored

    @property
    def is_restored(self) -> bool:
        """Whether it is a charge that Redis had lost; the rest of what it knew of that request is gone."""
        return self.error_code == LEDGER_GAP

    def values(self) -> tuple[Any, ...]:
        """Its columns, in the order of ``COLUMNS``."""
        found: tuple[Any, ...] = _VALUES(self)
        return found

    def continue_with(self, later: Row) -> None:
        """Take a later charge of the same request in: what it says holds, what both cost adds up."""
        later.cost_nano += self.cost_nano
        later.estimated |= self.estimated
        for name in (*COLUMNS, "source"):
            if name not in ("time", "event_id"):
                setattr(self, name, getattr(later, name))


COLUMNS: Final = tuple(name for name in Row.__slots__ if name != "source")
"""The columns of ``model_insights`` that an event fills; its vector comes later."""

_VALUES: Final = attrgetter(*COLUMNS)


def row_of(event: Mapping[str, Any]) -> Row:
    """The row that a charging event makes.

    Raises:
        KeyError, ValueError, TypeError: it is no such event.
    """
    window = event.get("window")
    return Row(
        time=time_of(event),
        event_id=event["id"],
        request_id=clean(event["request_id"]),
        principal=clean(event["principal"]),
        model=clean(event["model"]) or "unknown",
        provider=clean(event.get("provider")),
        deployment=clean(event.get("deployment")),
        operation=clean(event.get("operation")) or "chat",
        task=clean(event.get("task")) or None,
        fallback_for=clean(event.get("fallback_for")) or None,
        attempt=_whole(event.get("attempt"), _MOST_MS),
        status=_STATUS[event["event_type"]],
        finish_reason=clean(event.get("finish_reason")) or None,
        error_code=clean(event.get("error_code")) or None,
        input_tokens=_tokens(event, "input"),
        output_tokens=_tokens(event, "output"),
        cached_tokens=_tokens(event, "cached"),
        cache_write_tokens=_tokens(event, "cache_write"),
        reasoning_tokens=_tokens(event, "reasoning"),
        audio_tokens=_tokens(event, "audio_input", "audio_output"),
        image_tokens=_tokens(event, "image_input", "image_output"),
        cost_nano=_nano(event.get("usd_nano")),
        estimated=bool(event.get("estimated")),
        service_tier=clean(event.get("service_tier")) or None,
        latency_ms=_milliseconds(event, "latency_ms"),
        ttft_ms=_milliseconds(event, "ttft_ms"),
        window_day=date.fromisoformat(window) if window else None,
        source=Source(*(event.get(name) or "" for name in Source.__slots__)),
    )


def _tokens(event: Mapping[str, Any], *kinds: str) -> int:
    return _whole(sum(event.get(f"{kind}_tokens") or 0 for kind in kinds), _MOST_TOKENS)


def time_of(event: Mapping[str, Any]) -> datetime:
    """When it happened: its ``ts``, or the time in its id."""
    ts = event.get("ts")
    milliseconds = int(event["id"].partition("-")[0]) if ts is None else ts
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST_MS))


def _nano(value: int | None) -> int:
    """An amount is never cut: one that can't be is refused."""
    if abs(value or 0) > _MOST_NANO:
        raise ValueError("an amount that no budget allows")
    return value or 0


def _whole(value: int | None, most: int) -> int:
    return min(max(value or 0, 0), most)


def _milliseconds(event: Mapping[str, Any], name: str) -> int | None:
    value = event.get(name)
    return None if value is None else _whole(value, _MOST_MS)


def clean(value: str | None) -> str:
    """Text as PostgreSQL takes it: it knows no NUL character."""
    return (value or "").replace("\0", "\ufffd")
