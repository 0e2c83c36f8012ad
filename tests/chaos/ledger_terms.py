"""What the reference ledger and the real scripts are both told, and what a consumer remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gateway_worker.records import Admission

LIMIT: Final = 1_000_000
WARNING: Final = 500_000
MAX_ATTEMPTS: Final = 2
RUNNABLE: Final = ("admitted", "exhausted", "cancelled")
FINAL: Final = {
    "done": "model.request.complete",
    "failed": "model.request.failed",
    "cancelled": "model.request.cancelled",
}


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is, and where its replies go."""

    sender: str
    principal: str
    request_id: str

    @property
    def owner(self) -> str:
        """The request's name in the ledger."""
        return f"{self.principal}:{self.request_id}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery of an entry to a consumer, with the fence token that it goes by."""

    asker: Asker
    entry: str
    consumer: str
    token: str
    deployment: str


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; ``blocked``: seconds for which its deployment wants to be left alone."""

    state: str
    cost: int = 0
    unknown: bool = False
    blocked: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Money that is set aside for a running attempt."""

    token: str
    window: str
    amount: int
    attempt: int


@dataclass(slots=True)
class Request:
    """One request, as the gateway remembers it."""

    state: str = ""
    entry: str = ""
    token: str = ""
    attempt: int = 0
    lost: int = 0
    chunks: int = 0
    cancel: bool = False
    noted: int = -1
    held: Held | None = None
    replies: list[tuple[str, int, bool]] = field(default_factory=list)

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.state in FINAL


@dataclass(slots=True, eq=False)
class Delivery:
    """What a consumer knows of a delivery of its own; it is not told when it loses it."""

    claim: Claim
    kind: str = ""
    attempt: int = 0
    chunks: int = 0

    def hear(self, admission: Admission) -> None:
        """What an admission answered."""
        self.kind = admission.kind
        self.attempt, self.chunks = admission.attempt or self.attempt, admission.chunks or self.chunks
