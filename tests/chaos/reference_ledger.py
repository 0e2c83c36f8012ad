"""What each step of a request must do to money, state, replies and events: a small model, in plain Python.

It says nothing of how the scripts do it: no keys, no fields, no text. Each method is one step; it gives the answer that
the step must have, and moves the model on. A step that leaves ``Ledger.view`` as it was must leave Redis as it was.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from gateway_worker.records import Admission
from tests.chaos.ledger_terms import FINAL, LIMIT, MAX_ATTEMPTS, WARNING, Asker, Claim, End, Held, Request


class Ledger:
    """Requests, deliveries and balances as they must be."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.untaken: list[tuple[str, Asker]] = []
        self.pending: dict[str, str] = {}
        self.published_count = 0
        self.requests: dict[str, Request] = {}
        self.settled: Counter[str] = Counter()
        self.overrun: Counter[str] = Counter()
        self.resets: dict[str, tuple[str, int]] = {}
        self.warned: set[str] = set()
        self.blocked: Counter[str] = Counter()
        self.replies: dict[str, list[tuple[str, int, bool]]] = {}
        self.events: list[tuple[str, str]] = []

    @property
    def window(self) -> str:
        """The UTC day that a reservation made now belongs to."""
        return datetime.fromtimestamp(self.now_ms / 1000, UTC).strftime("%Y-%m-%d")

    @property
    def reserved(self) -> Counter[str]:
        """What is set aside, by window."""
        found: Counter[str] = Counter()
        for request in self.requests.values():
            if request.held:
                found[request.held.window] += request.held.amount
        return found

    def balances(self) -> dict[str, int]:
        """Every balance that is not zero, named as in the ledger."""
        parts = {"settled": self.settled, "reserved": self.reserved, "overrun": self.overrun}
        named = {f"gateway|{day}|{part}": n for part, amounts in parts.items() for day, n in amounts.items()}
        return {name: amount for name, amount in named.items() if amount}

    def view(self) -> tuple[object, ...]:
        """All that there is to see, for a comparison."""
        states = {
            owner: (r.state, r.entry, r.token, r.attempt, r.lost, r.chunks, r.cancel, r.noted, r.held)
            for owner, r in self.requests.items()
            if r.state
        }
        lengths = {sender: len(entries) for sender, entries in self.replies.items()}
        return states, self.balances(), dict(self.pending), lengths, self.published_count, len(self.events)

    # onto the stream and off it

    def submit(self, asker: Asker, entry: str) -> str:
        """A request is put on the stream, once."""
        request = self.request_of(asker)
        if request.entry:
            return "duplicate"
        request.state, request.entry = "queued", entry
        self.published(asker, entry)
        return "queued"

    def published(self, asker: Asker, entry: str) -> None:
        """An entry stands on the stream."""
        self.untaken.append((entry, asker))
        self.published_count += 1

    def taken(self, consumer: str) -> tuple[str, Asker] | None:
        """The oldest entry that nobody has goes to a consumer."""
        if not self.untaken:
            return None
        entry, asker = self.untaken.pop(0)
        self.pending[entry] = consumer
        return entry, asker

    def renew(self, claim: Claim, *, admitted: bool) -> bool:
        """A lease: by the token once admitted, by the consumer before."""
        mine = (
            self.request_of(claim.asker).token == claim.token
            if admitted
            else self.pending.get(claim.entry) == claim.consumer
        )
        if mine and claim.entry in self.pending:
            self.pending[claim.entry] = claim.consumer
        return mine

    # one request's life

    def admit(self, claim: Claim, amount: int) -> Admission:
        """Take over from a dead attempt, and set money aside."""
        request = self.request_of(claim.asker)
        if request.held and request.held.token == claim.token:
            return Admission("admitted", request.held.attempt, request.held.window)
        if request.state == "running" and request.token == claim.token:
            return self._unrunnable(request, cancelled=request.cancel)  # asked again, a cancellation comes first
        if unwanted := self._unwanted(claim, request):
            return Admission(unwanted)
        if request.held or request.state == "running":
            self._lose(claim, request)
            request.state, request.token, request.entry = "queued", claim.token, claim.entry
        spent_up = request.lost >= MAX_ATTEMPTS or request.chunks > 0
        if spent_up or request.cancel:
            request.state, request.token, request.entry = "running", claim.token, claim.entry
            return self._unrunnable(request, cancelled=not spent_up)
        if wait := self._blocked_ms(claim.deployment):
            return Admission("gated", reason="rate_limited", wait=wait / 1000)
        if not self._fits(claim, amount, 0):
            self._finish(claim, request, "failed", 0)
            return Admission("refused")
        return self._reserve(claim, request, amount, request.attempt + 1)

    def advance(self, claim: Claim, attempt: int, end: End, deployment: str, amount: int) -> Admission:
        """Close an attempt that failed, and set money aside for the next one."""
        request = self.request_of(claim.asker)
        held = request.held
        if held and held.token != claim.token:
            return Admission("stale")
        if not held:
            return Admission("missing")
        if held.attempt == attempt + 1:
            return Admission("admitted", held.attempt, held.window)
        if held.attempt != attempt:
            return Admission("stale")
        if request.cancel:
            return Admission("cancelled")
        self._note(claim, request, attempt, end.blocked)
        if wait := self._blocked_ms(deployment):
            return Admission("gated", reason="rate_limited", wait=wait / 1000)
        if not self._fits(claim, amount, held.amount if not end.unknown and held.window == self.window else 0):
            return Admission("refused")
        self._close(claim, request, end)
        self._tell("model.request.retry", claim)
        return self._reserve(claim, request, amount, attempt + 1)

    def note(self, claim: Claim, attempt: int, end: End) -> None:
        """Say what a failed attempt says of its deployment."""
        request = self.request_of(claim.asker)
        if request.held and request.held.token == claim.token and request.held.attempt == attempt:
            self._note(claim, request, attempt, end.blocked)

    def emit(self, claim: Claim, first: int, count: int) -> str:
        """Chunks of the reply: each goes out once, and none under a stale token."""
        request = self.request_of(claim.asker)
        if request.state != "running" or request.token != claim.token:
            return "stale"
        if request.chunks == first:
            if first == 0:
                self._tell("model.streaming.start", claim)
            for index in range(first, first + count):
                self._reply(claim, request, index, end=False)
            request.chunks += count
        return "cancel" if request.cancel else "written"

    def settle(self, claim: Claim, attempt: int, end: End) -> str:
        """The end of a request: money, reply, event, acknowledgement."""
        request = self.request_of(claim.asker)
        if (request.held.token if request.held else request.token) != claim.token:
            return "stale"
        if not request.held and request.final:
            return "already"
        if request.held:  # a further attempt that nobody heard of called nobody
            self._close(claim, request, end if request.held.attempt == attempt else End("failed"))
        if request.noted != attempt:
            self._block(claim.deployment, end.blocked)
        self._finish(claim, request, end.state, end.index)
        return "settled"

    def refuse(self, claim: Claim, *, called: bool) -> str:
        """The end of a request that is not called, or not again."""
        request = self.request_of(claim.asker)
        if unwanted := self._unwanted(claim, request):
            return unwanted
        if request.held and request.held.token == claim.token and not called:
            self._close(claim, request, End("failed"))
        elif request.held:
            self._lose(claim, request)
        self._finish(claim, request, "failed", request.chunks)
        return "refused"

    def cancel(self, asker: Asker) -> str:
        """Somebody no longer wants the answer."""
        request = self.request_of(asker)
        if request.state not in ("queued", "running"):
            return "over"
        request.cancel = True
        return "asked"

    def reset(self, reset_id: str) -> int:
        """The operator starts the day's budget anew; what is set aside stays. Returns what was settled."""
        last, amount = self.resets.get(self.window, ("", 0))
        if last == reset_id:
            return amount
        amount = self.settled.pop(self.window, 0)
        self.resets[self.window] = (reset_id, amount)
        self.overrun.pop(self.window, None)
        self.warned.discard(self.window)
        self.events.append(("model.budget.reset", ""))
        return amount

    def check_ends(self) -> None:
        """Each request that was taken up ended once, in event and reply, and its reply has no gap."""
        ends = Counter(owner for kind, owner in self.events if kind in FINAL.values())
        assert set(ends.values()) <= {1}
        for owner, request in self.requests.items():
            assert request.final == (owner in ends), f"{owner} is {request.state}"
            assert [index for _, index, _ in request.replies] == list(range(len(request.replies))), f"{owner} has a gap"
            assert [end for _, _, end in request.replies].count(True) == request.final

    # the parts

    def request_of(self, asker: Asker) -> Request:
        """What is remembered of a request."""
        return self.requests.setdefault(asker.owner, Request())

    def _unwanted(self, claim: Claim, request: Request) -> str:
        if self.pending.get(claim.entry) != claim.consumer:
            return "lost"
        if not request.state or (not request.final and request.entry == claim.entry):
            return ""
        if request.final and request.entry != claim.entry:
            self.replies[claim.asker.sender].extend(request.replies)
        del self.pending[claim.entry]
        return "duplicate"

    def _unrunnable(self, request: Request, *, cancelled: bool) -> Admission:
        kind = "cancelled" if cancelled else "exhausted"
        signature = f"sig-{request.chunks}" if request.chunks else ""
        return Admission(kind, request.attempt, chunks=request.chunks, signature=signature)

    def _fits(self, claim: Claim, amount: int, released: int) -> bool:
        used = self.settled[self.window] + self.reserved[self.window] - released + amount
        if used > LIMIT and amount:
            self._tell("model.budget.exceeded", claim)
            return False
        return True

    def _reserve(self, claim: Claim, request: Request, amount: int, attempt: int) -> Admission:
        request.state, request.token, request.entry, request.attempt = "running", claim.token, claim.entry, attempt
        request.held = Held(claim.token, self.window, amount, attempt)
        used = self.settled[self.window] + self.reserved[self.window]
        if used >= WARNING and self.window not in self.warned:
            self.warned.add(self.window)
            self._tell("model.budget.warning", claim)
        self._tell("model.request.start", claim)
        return Admission("admitted", attempt, self.window)

    def _lose(self, claim: Claim, request: Request) -> None:
        """A dead attempt may have been paid: what it had set aside is its cost."""
        if request.held:
            self._close(claim, request, End("failed", unknown=True))
            request.lost += 1

    def _close(self, claim: Claim, request: Request, end: End) -> None:
        held, request.held = request.held, None
        assert held is not None
        cost = held.amount if end.unknown else end.cost
        self.settled[held.window] += cost
        self.overrun[held.window] += max(0, cost - held.amount)
        if cost > held.amount:
            self._tell("model.budget.overrun", claim)
        if end.unknown:
            self._tell("model.request.unknown", claim)

    def _finish(self, claim: Claim, request: Request, state: str, index: int) -> None:
        self._reply(claim, request, index, end=True)
        self._tell(FINAL[state], claim)
        self.pending.pop(claim.entry, None)
        request.state, request.token, request.entry = state, claim.token, claim.entry

    def _reply(self, claim: Claim, request: Request, index: int, *, end: bool) -> None:
        entry = (claim.asker.request_id, index, end)
        request.replies.append(entry)
        self.replies.setdefault(claim.asker.sender, []).append(entry)

    def _note(self, claim: Claim, request: Request, attempt: int, seconds: int) -> None:
        if request.noted != attempt:
            self._block(claim.deployment, seconds)
            request.noted = attempt

    def _block(self, deployment: str, seconds: int) -> None:
        if seconds:
            self.blocked[deployment] = max(self.blocked[deployment], self.now_ms + seconds * 1000)

    def _blocked_ms(self, deployment: str) -> int:
        return max(0, self.blocked[deployment] - self.now_ms)

    def _tell(self, kind: str, claim: Claim) -> None:
        self.events.append((kind, claim.asker.owner))
