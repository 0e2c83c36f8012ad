"""What the reference model of the ledger is made of: deliveries, ends, reservations and records."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_ATTEMPTS = 2
FINAL = {"done": "complete", "failed": "failed", "cancelled": "cancelled"}

Event = tuple[str, str, int, int]
"""Its kind, whose request it tells of, the attempt and the nano-dollars (0 where it names none)."""


@dataclass(frozen=True, slots=True)
class Who:
    """A delivery of a request: what each script is told of it."""

    owner: str
    sender: str
    entry: str
    consumer: str
    token: str


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended: what it cost, whether nobody knows, and what that says of its deployment."""

    state: str
    cost: int = 0
    unknown: bool = False
    result: str = "none"


@dataclass(slots=True)
class Held:
    """An open reservation."""

    token: str
    window: str
    amount: int
    attempt: int


@dataclass(slots=True)
class Record:
    """A request's record."""

    state: str = ""
    entry: str = ""
    token: str = ""
    attempt: int = 0
    lost: int = 0
    chunks: int = 0
    noted: int = 0
    cancelled: bool = False
    replies: list[tuple[str, int, bool]] = field(default_factory=list)
