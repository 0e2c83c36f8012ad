"""What a worker knows of a delivery, and the calls that were made; beside the truth, which is in Redis."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.chaos.reference_shapes import Who


@dataclass
class Hand:
    """A delivery in a worker's hands, and what the worker knows of it.

    Attributes:
        heard: the answer to its admission; empty before it, or where it was lost.
        trying: it has asked for its next attempt and knows of none.
        over: it has said how it ended.
    """

    who: Who
    old: bool
    heard: str = ""
    attempt: int = 0
    amount: int = 0
    deployment: str = ""
    chunks: int = 0
    trying: bool = False
    over: bool = False

    def heard_admission(self, deployment: str, amount: int, answer: tuple[str, int]) -> None:
        """The answer to its admission has arrived."""
        kind, attempt = answer
        if not self.heard and kind in ("admitted", "exhausted", "cancelled"):
            self.heard, self.attempt, self.amount, self.deployment = kind, attempt, amount, deployment

    def heard_advance(self, attempt: int, deployment: str, amount: int, answer: tuple[str, int]) -> None:
        """The answer has arrived to its wish for an attempt after this one."""
        kind, following = answer
        if self.attempt == attempt:
            self.trying = False
            if kind == "admitted":
                self.attempt, self.amount, self.deployment = following, amount, deployment

    @property
    def waits(self) -> bool:
        return not (self.heard or self.over)

    @property
    def is_stale(self) -> bool:
        return self.waits and self.old

    @property
    def calls(self) -> bool:
        return self.heard == "admitted" and not (self.over or self.trying)

    @property
    def may_try_on(self) -> bool:
        return self.heard == "admitted" and not (self.over or self.chunks)

    @property
    def may_settle(self) -> bool:
        return bool(self.heard) and not self.over


@dataclass
class Made:
    """A call that was made, to be sent again; ``hear`` tells its worker the answer."""

    what: str
    call: Callable[[], Coroutine[Any, Any, Any]]
    hear: Callable[[Any], None] = lambda _: None
