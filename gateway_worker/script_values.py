"""Settings, entries and answers in the form in which the scripts take and give them: all text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway_worker.records import Admission
from model_gateway.settings import Breaker, Budget

_MAX_DEAD_FIELDS: Final = 32
_MAX_DEAD_BYTES: Final = 65_536


def admission_of(answer: list[Any]) -> Admission:
    """What admit and advance answered."""
    kind = answer[0].decode()
    match kind:
        case "admitted":
            return Admission(kind, int(answer[1]), answer[2].decode(), event=text(answer, 3))
        case "gated":
            return Admission(kind, reason=answer[1].decode(), wait=int(answer[2]) / 1000)
        case "exhausted" | "cancelled" if len(answer) > 1:
            return Admission(kind, int(answer[1]), chunks=int(answer[2]), signature=answer[3].decode())
    return Admission(kind)


def text(answer: list[Any], place: int) -> str:
    """A further part of an answer as text; empty where it was carried out before, and its answer lost."""
    return answer[place].decode() if len(answer) > place else ""


def breaker(settings: Breaker) -> dict[str, str]:
    """The breaker's settings as the scripts take them; an empty ``window_ms`` where there is none."""
    return {
        "window_ms": str(round(settings.window_seconds * 1000)) if settings.enabled else "",
        "min_calls": str(settings.min_calls),
        "error_rate": str(settings.error_rate),
        "timeouts": str(settings.timeouts),
        "open_ms": str(round(settings.open_seconds * 1000)),
        "max_open_ms": str(round(settings.max_open_seconds * 1000)),
    }


def bounded(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """An entry's fields, flat, as a dead letter keeps them."""
    return [part[:_MAX_DEAD_BYTES] for pair in list(fields.items())[:_MAX_DEAD_FIELDS] for part in pair]


def scope(name: str, budget: Budget) -> dict[str, str]:
    """A budget's scope."""
    return {
        "name": name,
        "limit": str(budget.limit_nano),
        "hard": "1" if budget.hard_stop else "0",
        "warn": str(budget.warning_nano),
    }
