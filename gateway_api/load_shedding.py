"""The gate: turns requests away, cheaply and at once, while too many wait that no worker has taken.

Only waiting counts. A request that a worker has taken, however long its provider thinks, is no reason to turn another
away, so a provider that hangs does not shut the gate for those who ask another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from model_gateway.errors import GatewayError

_BELIEVED_SECONDS: Final = 0.02
"""For which the gate stays shut after it was last told how many wait; then a request goes and sees."""

_STRICT_SECONDS: Final = 1.0
"""After a refusal, for which only a part of ``most`` may wait: a burst may fill the queue, overload may not."""

_SLOW_SECONDS: Final = 1.0
"""From a request's coming in to its place in the queue: past that the front door itself is what is overloaded."""

_STRICT_PART: Final = 8
_SCOUTS: Final = 32
"""Requests that may be on their way to their handlers to go and see; those without a token come back with nothing."""


class Gate:
    """Bounds the requests between the sockets of this front door and the workers.

    Each request that is put on the stream brings back how many wait there, so nobody has to ask.

    Attributes:
        refused: requests turned away.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused = 0
        self._most = most
        self._clock = clock
        self._waiting = 0
        self._arriving: set[object] = set()
        self._entering = 0
        self._believed_until = float("-inf")
        self._strict_until = float("-inf")

    def told(self, waiting: int) -> None:
        """So many requests waited in the queue a moment ago."""
        self._waiting = waiting
        self._believed_until = self._clock() + _BELIEVED_SECONDS

    @property
    def shut(self) -> bool:
        """Whether a request that comes now is to be turned away."""
        return self._full and (self._clock() < self._believed_until or len(self._arriving) >= _SCOUTS)

    @property
    def _full(self) -> bool:
        most = self._most if self._clock() >= self._strict_until else self._most // _STRICT_PART
        return self._waiting + self._entering + len(self._arriving) >= most

    def let_in(self, connection: object) -> None:
        """A request on this connection has come in, and will be in its handler's hands."""
        self._arriving.add(connection)

    def arrived(self, connection: object) -> None:
        """It is in its handler's hands; or its connection is gone."""
        self._arriving.discard(connection)

    @contextmanager
    def entering(self) -> Iterator[None]:
        """A request on its way into the queue.

        Raises:
            GatewayError: ``overloaded``.
        """
        if self.shut:
            self.refuse()
            raise overloaded()
        if self._full:  # the one that goes and sees
            self._believed_until = self._clock() + _BELIEVED_SECONDS
        self._entering += 1
        began = self._clock()
        try:
            yield
        finally:
            self._entering -= 1
            if self._clock() - began > _SLOW_SECONDS:
                self._be_strict()

    def refuse(self) -> None:
        """Count a request that is turned away."""
        self.refused += 1
        self._be_strict()

    def _be_strict(self) -> None:
        self._strict_until = self._clock() + _STRICT_SECONDS


def overloaded() -> GatewayError:
    """What a request that is turned away is told."""
    return GatewayError("overloaded", "too many requests wait for a worker; try again in a second", retry_after=1)


def shedding(gate: Gate, routes: Collection[str]) -> Middleware:
    """The middleware that turns requests to some routes away while the gate is shut, before anything else is done."""

    @web.middleware
    async def shed(request: web.Request, handler: Handler) -> web.StreamResponse:
        gate.arrived(request.protocol)
        if gate.shut:
            resource = request.match_info.route.resource
            if resource is not None and resource.canonical in routes:
                gate.refuse()
                raise overloaded()
        return await handler(request)

    return shed
