"""The figures of one storm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.chaos.accounts import Accounts
from tests.chaos.load import Load
from tests.chaos.paid_provider import Invoice
from tests.chaos.trouble import Toll


def report(
    record: Callable[[str, object], None],
    load: Load,
    toll: Toll | None,
    accounts: Accounts,
    invoice: Invoice,
    **more: object,
) -> None:
    """Record them for the table at the end. ``toll``: where there was trouble in turns."""
    figures: dict[str, object] = {"requests": load.requests, "accepted": len(accounts.accepted)}
    if toll is not None:
        figures |= {
            "workers killed": toll.workers,
            "Redis killed": toll.redis,
            "in flight at the kills": len(toll.in_flight),
            "budget samples": toll.samples,
        }
    figures |= {
        "unknown attempts": len(accounts.of_kind("model.request.unknown")),
        "restored": len(accounts.of_kind("model.request.restored")),
        "ended": _counts(accounts.ended_as()),
        "told": _counts(Counter(told.code for told in load.told)),
        "provider charged (nano)": invoice.total,
        "settled (nano)": accounts.settled,
        **more,
    }
    for name, value in figures.items():
        record(name, value)


def _counts(found: Counter[str]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(found.items()))
