"""The ledger's public face: what was spent, a reset, and the epoch that says the ledger is whole."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis.asyncio import Redis

from model_gateway.money import usd_number
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import Budget
from model_gateway.streams import Keys

GATEWAY_SCOPE: Final = "gateway"
"""The scope that every request belongs to."""

_READ_SECONDS: Final = 2.0

_STATS: Final = load_script("model_gateway", "budget_stats", "model_gateway:prelude")
_RESET: Final = load_script("model_gateway", "budget_reset", "model_gateway:prelude", allow_oom=True)


async def initialise(redis: Redis, keys: Keys) -> None:
    """Declare the ledger whole: on a new Redis, or when the operator accepts what was lost."""
    await redis.set(keys.epoch, secrets.token_hex(8), nx=True)


async def is_initialised(redis: Redis, keys: Keys) -> bool:
    """Whether requests can be admitted."""
    return bool(await redis.exists(keys.epoch))


async def budget_stats(scripts: Scripts, keys: Keys, budget: Budget) -> dict[str, Any]:
    """The answer of ``GET /budget/stats``, read at one instant.

    Dollars are numbers for people; ``*_nano`` beside them are exact.
    """
    args = {"scope": GATEWAY_SCOPE}
    answer = await scripts.call(_STATS, [keys.ledger, keys.spend, keys.epoch], args, within=_READ_SECONDS)
    window = answer[0].decode()
    settled, reserved, overrun, seconds_left, whole = (int(value) for value in answer[1:6])
    limit = budget.limit_nano
    used = settled + reserved
    return {
        "date": window,
        "limit_usd": usd_number(limit),
        "spent_usd": usd_number(settled),
        "reserved_usd": usd_number(reserved),
        "remaining_usd": usd_number(max(0, limit - used)),
        "percent_used": round(100 * used / limit, 4) if limit else 100.0,
        "hard_stop": budget.hard_stop,
        "warning_threshold": float(budget.warning_threshold),
        "status": _status(used, budget) if whole else "ledger_lost",
        "resets_at": _window_end(window),
        "resets_in_seconds": seconds_left,
        "limit_nano": limit,
        "spent_nano": settled,
        "reserved_nano": reserved,
        "overrun_nano": overrun,
        "by_model": _by_model(answer[6:]),
    }


async def reset_budget(scripts: Scripts, keys: Keys, budget: Budget, principal: str) -> dict[str, Any]:
    """Zero what was settled today; open reservations stay. Returns the stats after it and the amount."""
    args = {"scope": GATEWAY_SCOPE, "principal": principal, "reset_id": secrets.token_hex(8)}
    window, amount = await scripts.call(_RESET, [keys.ledger, keys.spend, keys.events], args)
    return {
        "message": "Budget reset",
        "date": window.decode(),
        "reset_usd": usd_number(int(amount)),
        "reset_nano": int(amount),
        "budget": await budget_stats(scripts, keys, budget),
    }


def _status(used: int, budget: Budget) -> str:
    if used >= budget.limit_nano:
        return "exceeded"
    return "warning" if used >= budget.warning_nano else "ok"


def _window_end(window: str) -> str:
    end = datetime.fromisoformat(window).replace(tzinfo=UTC) + timedelta(days=1)
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_model(flat: Sequence[bytes]) -> dict[str, dict[str, Any]]:
    """``what|model`` pairs as one object a model."""
    models: dict[str, dict[str, Any]] = {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        what, _, model = name.decode().partition("|")
        models.setdefault(model, {})[what] = int(value)
    for row in models.values():
        row["spent_usd"] = usd_number(row.get("spent_nano", 0))
    return models
