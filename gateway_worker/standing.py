"""What one worker knows of a deployment: retries that are left, how fast it was of late, whether it is shut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway_worker.records import Admission

Clock = Callable[[], float]


class RetryBudget:
    """How many retries a deployment may still be given, so that an outage is not answered with more load.

    Each first call earns ``ratio`` of a retry. A few are there from the start and come back with time, for those who
    call seldom; not with success, as nine calls in ten may fail in an outage, and the tenth would pay for them.
    """

    MINIMUM: Final = 3.0
    SECONDS_EACH: Final = 60.0
    _MOST: Final = 100.0

    def __init__(self, ratio: float, clock: Clock) -> None:
        self._ratio = ratio
        self._clock = clock
        self._left = self.MINIMUM if ratio else 0.0
        self._at = clock()

    def first_call(self) -> None:
        """A request's first call of the deployment."""
        self._left = min(self._left + self._ratio, self._MOST)

    def take(self) -> bool:
        """Take one retry, if there is one."""
        self._refill()
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """One that was taken and not made."""
        self._left += 1.0

    def _refill(self) -> None:
        seconds, self._at = self._clock() - self._at, self._clock()
        if self._ratio and self._left < self.MINIMUM:
            self._left = min(self._left + seconds / self.SECONDS_EACH, self.MINIMUM)


class Latency:
    """A deployment's recent latency in seconds, an exponential mean; old news is forgotten."""

    _WEIGHT: Final = 0.2
    _FRESH_SECONDS: Final = 60.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mean = 0.0
        self._at = float("-inf")

    def add(self, seconds: float) -> None:
        """One call's: to its first chunk if it was streamed, else to its end."""
        fresh = self.unknown or math.isinf(self._mean)
        self._mean = seconds if fresh else self._mean + self._WEIGHT * (seconds - self._mean)
        self._at = self._clock()

    def failed(self) -> None:
        """A call that failed: who has nothing better to show of late comes last."""
        if self.unknown:
            self._mean, self._at = math.inf, self._clock()

    @property
    def unknown(self) -> bool:
        """Whether there is no recent call to go by."""
        return self._clock() - self._at > self._FRESH_SECONDS

    @property
    def expected(self) -> float:
        """Seconds; 0 where it is unknown, so that it is tried."""
        return 0.0 if self.unknown else self._mean


@dataclass(slots=True)
class Standing:
    """What this process knows of a deployment: hints that save a question; Redis decides.

    Attributes:
        shut: why it may not be called, and until when that is believed without asking.
    """

    retries: RetryBudget
    latency: Latency
    shut: Admission | None = None
    shut_until: float = 0.0
