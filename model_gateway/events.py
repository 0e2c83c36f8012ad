"""Events as JSON objects: text in the stream, typed for whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.money import TOKEN_KINDS, Usage

TERMINAL: Final = frozenset({"model.request.complete", "model.request.failed", "model.request.cancelled"})
"""Events that end a request; each accepted one has exactly one."""

RESTORED: Final = "model.request.restored"
"""A charge that Redis had lost, charged again by the worker that remembers it."""

LEDGER_GAP: Final = "ledger_gap"
"""The ``error_code`` of such a charge; ``lost_event`` is the id of the event that was lost."""

CHARGING: Final = TERMINAL | {"model.request.unknown", RESTORED}
"""Events whose ``usd_nano`` adds up to what the ledger settled."""

_NUMBERS: Final = frozenset(
    {
        "ts",
        "attempt",
        *(f"{kind}_tokens" for kind in TOKEN_KINDS),
        "usd_nano",
        "reserved_nano",
        "settled_nano",
        "limit_nano",
        "requested_nano",
        "latency_ms",
        "ttft_ms",
        "used_nano",
        "missing",
        "restored",
    }
)


def decode(fields: Mapping[bytes, bytes], entry: str) -> dict[str, Any]:
    """An event out of its stream entry: whole numbers as numbers, nothing as null, its id as ``id``."""
    event: dict[str, Any] = {"id": entry}
    for raw_name, raw in fields.items():
        name = raw_name.decode()
        event[name] = _value(name, raw.decode("utf-8", "replace"))
    return event


def usage_of(event: Mapping[str, Any]) -> Usage:
    """The tokens that a charge names."""
    counts = {kind: event.get(f"{kind}_tokens") or 0 for kind in TOKEN_KINDS}
    return Usage(**counts, tier=event.get("service_tier") or "")


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    if name == "estimated":
        return text == "1"
    return int(text) if name in _NUMBERS else text
