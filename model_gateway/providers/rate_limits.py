"""What a provider's headers say about the rate that is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

_PAIRS: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)
"""What is left, and when it is whole again: OpenAI's names (Azure, Groq and others have them too), Anthropic's."""

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MAX_WAIT_SECONDS: Final = 300.0
"""A header that claims more than this is not believed further."""


class LearnedLimits:
    """The wait that the newest reply asks for: nothing is left until then.

    Args:
        now: seconds since the epoch, for headers that give a date.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._until_whole = 0.0

    def learn(self, headers: Mapping[str, str]) -> None:
        """Note what a reply's headers say; names in any case."""
        waits = [self._until(headers.get(reset, "")) for left, reset in _PAIRS if _is_none(headers.get(left))]
        self._until_whole = self._now() + min(max(waits, default=0.0), MAX_WAIT_SECONDS)

    def take(self) -> float:
        """Seconds to leave the provider alone, told once; 0 where it has said nothing of the kind."""
        until, self._until_whole = self._until_whole, 0.0
        return max(0.0, until - self._now())

    def _until(self, text: str) -> float:
        """Seconds until a reset: ``6m0s``, ``20ms``, plain seconds, or a date (RFC 3339)."""
        spans = _SPAN.findall(text)
        if spans and _SPAN.sub("", text) == "":
            return sum(float(number) * _UNITS[unit] for number, unit in spans)
        try:
            return max(0.0, float(text))
        except ValueError:
            pass
        try:
            return max(0.0, datetime.fromisoformat(text).timestamp() - self._now())
        except (ValueError, OverflowError):
            return 0.0


def _is_none(left: str | None) -> bool:
    return left is not None and left.strip() == "0"
