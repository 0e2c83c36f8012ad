"""Where the insights process is, and what the front door and it know each other by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import orjson
from redis.asyncio import Redis

from model_gateway.signing import sign
from model_gateway.streams import Keys

GROUP: Final = "insights"
"""The consumer group of the insights process on the event stream."""

HEARTBEAT_SECONDS: Final = 1.0
FRESH_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class InsightsState:
    """The insights process, by its own word.

    Attributes:
        url: where it answers.
        at_ms: when it said so.
        problem: why it can't answer; empty when it can.
    """

    url: str
    at_ms: int = 0
    problem: str = ""


def insights_secret(hmac_secret: str) -> str:
    """The bearer token between front door and insights process, derived so that it can't sign replies."""
    return sign(b"model-gateway insights v1", hmac_secret)


async def beat(redis: Redis, keys: Keys, state: InsightsState) -> None:
    """Say where the insights process is, for a few seconds."""
    await redis.set(keys.insights, orjson.dumps(asdict(state)), px=FRESH_MS)


async def find(redis: Redis, keys: Keys) -> InsightsState | None:
    """The insights process that said last where it is; None where none lives."""
    raw = await redis.get(keys.insights)
    try:
        return InsightsState(**orjson.loads(raw)) if raw else None
    except (ValueError, TypeError):
        return None
