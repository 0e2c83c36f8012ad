"""``python -m tests.insights.dying KILL|STOP <point> <nth>``: the insights process, killed or frozen at a point.

Points: ``before`` the transaction, ``inside`` it with its rows written, ``committed`` with the group not yet told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_insights import consumer, writes
from gateway_insights.__main__ import main

POINTS: dict[str, tuple[Any, str]] = {
    "before": (consumer, "write"),
    "inside": (writes, "_write_days"),
    "committed": (consumer.Consumer, "_mark"),
}


def die_at(number: signal.Signals, point: str, nth: int) -> None:
    """Send this process a signal at the nth time that it comes there."""
    holder, name = POINTS[point]
    original: Callable[..., Awaitable[Any]] = getattr(holder, name)
    times = 0

    async def die(*args: Any) -> Any:
        nonlocal times
        times += 1
        if times == nth:
            os.kill(os.getpid(), number)
        return await original(*args)

    setattr(holder, name, die)


if __name__ == "__main__":
    consumer.LEASE_SECONDS = 1
    die_at(signal.Signals[f"SIG{sys.argv[1]}"], sys.argv[2], int(sys.argv[3]))
    sys.exit(main())
