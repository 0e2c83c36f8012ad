"""Events as JSON objects: text in the stream, typed for whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CHARGING: Final = frozenset(
    {"model.request.complete", "model.request.failed", "model.request.cancelled", "model.request.unknown"}
)
"""Events whose ``usd_nano`` adds up to what the ledger settled."""

TERMINAL: Final = CHARGING - {"model.request.unknown"}
"""Events that end a request; each accepted one has exactly one."""

_NUMBERS: Final = frozenset(
    {
        "ts",
        "attempt",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "usd_nano",
        "reserved_nano",
        "settled_nano",
        "limit_nano",
        "requested_nano",
        "latency_ms",
        "ttft_ms",
        "used_nano",
    }
)


def decode(fields: Mapping[bytes, bytes], entry: str) -> dict[str, Any]:
    """An event out of its stream entry: whole numbers as numbers, nothing as null, its id as ``id``."""
    event: dict[str, Any] = {"id": entry}
    for raw_name, raw in fields.items():
        name = raw_name.decode()
        event[name] = _value(name, raw.decode("utf-8", "replace"))
    return event


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    if name == "estimated":
        return text == "1"
    return int(text) if name in _NUMBERS else text
