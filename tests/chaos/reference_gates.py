"""A small reference model of one deployment's circuit breaker and of its calls a minute."""

from __future__ import annotations

from dataclasses import dataclass, field

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the model goes by; see ``routing.breaker``."""

    window_ms: int = 10_000
    min_calls: int = 3
    error_rate: float = 0.5
    timeouts: int = 2
    open_ms: int = 5_000
    max_open_ms: int = 12_000
    probe_ms: int = 30_000


@dataclass(slots=True)
class Counts:
    """Two counts of this span of time and of the one before."""

    span: int = -1
    now: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (0, 0)

    def at(self, span: int) -> Counts:
        """The same, seen from a span of time."""
        if span == self.span:
            return self
        return Counts(span, (0, 0), self.now if span == self.span + 1 else (0, 0))


@dataclass(slots=True)
class GateModel:
    """Whether a deployment may be called, and what each call's end says of it."""

    rpm: int | None = None
    rules: Rules = Rules()
    open_until: int | None = None
    opened: int = 0
    probe: tuple[str, int] = ("", 0)
    results: Counts = field(default_factory=Counts)
    timeouts: int = 0
    calls: Counts = field(default_factory=Counts)

    def shut(self, now: int, token: str) -> str:
        """Why a call may not be made now; empty where it may."""
        if self.open_until is not None:
            tried = self.probe[1] > now and self.probe[0] != token
            if self.open_until > now or tried:
                return "circuit_open"
        return "rate_limited" if self.rpm is not None and self._wait(now) > 0 else ""

    def _wait(self, now: int) -> float:
        """Until one more call fits, in minutes: those of the minute before count for less and less."""
        assert self.rpm is not None
        calls = self.calls.at(now // MINUTE_MS)
        weight, these, before = 1 - (now % MINUTE_MS) / MINUTE_MS, calls.now[0], calls.before[0]
        if these + before * weight + 1 <= self.rpm:
            return 0.0
        if these + 1 > self.rpm:
            return weight + 1 - (self.rpm - 1) / these
        return weight - (self.rpm - these - 1) / before

    def enter(self, now: int, token: str) -> None:
        """A call is made; where the circuit was open it is the one that tries it out."""
        if self.open_until is not None:
            self.probe = (token, now + self.rules.probe_ms)
        if self.rpm is not None:
            self.calls = self.calls.at(now // MINUTE_MS)
            self.calls.now = (self.calls.now[0] + 1, 0)

    def leave(self, now: int, token: str, result: str) -> str:
        """A call has ended; ``opened`` or ``closed`` where that moved the circuit."""
        failed = result in ("error", "timeout")
        if self.open_until is None:
            return "" if result == "none" else self._count(now, result, failed=failed)
        if self.probe[0] != token:
            return ""
        self.probe = ("", 0)
        if failed:
            return self._open(now, self.opened + 1)
        if result == "none":
            return ""
        self.open_until, self.opened = None, 0
        return "closed"

    def _count(self, now: int, result: str, *, failed: bool) -> str:
        self.results = self.results.at(now // self.rules.window_ms)
        self.results.now = (self.results.now[0] + 1, self.results.now[1] + failed)
        self.timeouts = self.timeouts + 1 if result == "timeout" else 0
        calls, bad = (sum(pair) for pair in zip(self.results.now, self.results.before, strict=True))
        too_many = calls >= self.rules.min_calls and bad / calls >= self.rules.error_rate
        return self._open(now, 1) if failed and (too_many or self.timeouts >= self.rules.timeouts) else ""

    def _open(self, now: int, times: int) -> str:
        wait = min(self.rules.max_open_ms, self.rules.open_ms * 2 ** (times - 1))
        self.open_until, self.opened, self.probe = now + wait, times, ("", 0)
        self.results, self.timeouts = Counts(), 0
        return "opened"
