"""The one source of wall-clock time, so that a test can set it.

Money and leases go by Redis TIME inside the scripts; a clock that is set overrides that too (``override_ms``).
"""

from __future__ import annotations

import time


class Clock:
    """Wall-clock time in milliseconds since the epoch."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def override_ms(self) -> str:
        """What the scripts use in place of Redis TIME; empty means Redis TIME."""
        return ""


class SetClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The time it was set to."""
        return self._now_ms

    def override_ms(self) -> str:
        """The time it was set to, for the scripts."""
        return str(self._now_ms)

    def advance(self, ms: int) -> None:
        """Move forward by ``ms`` milliseconds."""
        self._now_ms += ms
