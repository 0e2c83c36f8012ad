"""One entry in a worker's hands, and the slots that bound how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Slots:
    """How many requests are in hand; those that wait for a busy deployment are parked beside it."""

    def __init__(self, limit: int, max_parked: int) -> None:
        self.limit = limit
        self.in_use = 0
        self.parked = 0
        self._max_parked = max_parked
        self._free = asyncio.Event()
        self._free.set()

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return max(0, self.limit - self.in_use)

    async def wait_free(self) -> None:
        """Wait for a free slot, or for ``wake``."""
        await self._free.wait()

    def wake(self) -> None:
        """End the wait for a free slot: there is something else to look at."""
        self._free.set()

    def take(self) -> None:
        """One slot, for a delivery."""
        self.in_use += 1
        self._signal()

    def give_back(self) -> None:
        """One slot less in use."""
        self.in_use -= 1
        self._signal()

    @contextmanager
    def park(self) -> Iterator[bool]:
        """Wait without a slot; false where too many do. Coming back may put ``in_use`` over the limit for a moment."""
        if self.parked >= self._max_parked:
            yield False
            return
        self.parked += 1
        self.give_back()
        try:
            yield True
        finally:
            self.parked -= 1
            self.take()

    def _signal(self) -> None:
        if self.free:
            self._free.set()
        else:
            self._free.clear()


class Delivery:
    """One entry in this worker's hands.

    Attributes:
        entry: its id on the request stream.
        fields: as read.
        count: how often it was delivered, this time included.
        slots: to park in.
        cancelled: somebody asked for it to stop.
    """

    def __init__(self, entry: str, fields: Mapping[bytes, bytes], count: int, slots: Slots) -> None:
        self.entry = entry
        self.fields = fields
        self.count = count
        self.slots = slots
        self.cancelled = False
        self.owner = ""
        self.record = ""
        self.token = ""
        self.task: asyncio.Task[None] | None = None
        self._on_cancel: Callable[[], object] = lambda: None

    def identify(self, owner: str, record: str) -> None:
        """Say whose request this is, so that a cancellation finds it."""
        self.owner, self.record = owner, record

    def admitted(self, token: str) -> None:
        """From now on the lease goes by the fence token."""
        self.token = token

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call this when the request is cancelled; at once if it is already."""
        self._on_cancel = callback
        if self.cancelled:
            callback()

    def cancel(self) -> None:
        """Stop the request's call, once; what was generated is settled."""
        if not self.cancelled:
            self.cancelled = True
            self._on_cancel()

    def lose(self) -> None:
        """The lease is another's: drop everything."""
        if self.task is not None:
            self.task.cancel()
