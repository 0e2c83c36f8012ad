"""The ledger's epoch at start: made once for a Redis, never again behind the operator's back.

Without an epoch nothing is admitted. A Redis that this data directory never used gets one. A Redis that
had one and lost it has lost its budgets too: whether to start from zero is the operator's decision.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from gateway_cli.data_directory import write_private
from model_gateway.connection import connect
from model_gateway.ledger import initialise, is_initialised
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)

EMBEDDED: Final = "embedded"
"""Where the embedded server is: in the data directory, whatever port it has today."""


def location(redis_url: str) -> str:
    """Where a server is, without its user and password."""
    parts = urlsplit(redis_url)
    return f"{parts.hostname or ''}:{parts.port or ''}{parts.path}?{parts.query}".lower()


async def prepare_ledger(redis_url: str, where: str, data_directory: Path, keys: Keys) -> None:
    """Declare the ledger of a Redis whole if it is new; warn if it was lost."""
    digest = hashlib.sha256(where.encode()).hexdigest()[:16]
    marker = data_directory / f"ledger.{digest}"
    redis = connect(redis_url)
    try:
        if not await is_initialised(redis, keys):
            if marker.exists():
                _log.warning(
                    "ledger.lost",
                    consequence="every request is refused with ledger_lost",
                    remedy="model-gateway ledger rebuild, or model-gateway ledger init to start from zero",
                )
                return
            await initialise(redis, keys)
        if not marker.exists():
            write_private(marker, f"{where}\n")
    finally:
        await redis.aclose()
