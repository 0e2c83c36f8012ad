"""Refusals that cost next to nothing: under overload the bytes of a request are answered before they are parsed.

A parsed request costs several times as much to turn away, and at some multiple of the peak a front door would do
nothing else. So each connection follows where its requests begin and end, as long as that is plain to see, and never
guesses: after anything unusual its requests are parsed, and turned away by ``load_shedding.shedding``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway_api.load_shedding import Gate, overloaded
from gateway_api.operations import ROUTES
from gateway_api.state import Traffic
from model_gateway.clock import Clock
from model_gateway.dialects import DIALECTS
from model_gateway.envelope import new_request_id
from model_gateway.errors import GatewayError

_NAMED_IN_PATH: Final = "/proxy/{model}"
_PROXY: Final = _NAMED_IN_PATH.partition("{")[0].encode()
_MOST_SKIPPED: Final = 65_536
"""Bytes of a refused request that may be yet to come; a longer one is parsed, and its connection closed."""

_UNUSUAL: Final = (b"transfer-encoding", b"expect:", b"upgrade:", b"\r\n ", b"\r\n\t")
_CONNECTION: Final = b"\r\nconnection:"
_KEEP_ALIVE: Final = b"\r\nconnection: keep-alive\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n")


def read_head(data: bytes) -> tuple[bytes, bytes, int] | None:
    """The method and path of the request that these bytes begin with, and its length, head and body.

    None where that is not plain: half a head, more than one length, a body in chunks, a connection that is to close.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    if head.count(b"\n") != head.count(b"\r\n") or any(word in head for word in _UNUSUAL):
        return None
    if head.count(_CONNECTION) != head.count(_KEEP_ALIVE):
        return None
    length = _LENGTH.search(head)
    if head.count(b"content-length") != (length is not None):
        return None
    line = data[: data.find(b"\r\n")].split(b" ")
    if len(line) != 3 or line[2] != b"HTTP/1.1":
        return None
    return line[0], line[1], end + 4 + (int(length[1]) if length else 0)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A refusal of the requests to one route, but for the request's id between head and body."""

    route: str
    head: bytes
    body: bytes


class Refusals:
    """What requests are answered while the gate is shut: made beforehand, but for their ids."""

    def __init__(self, gate: Gate, traffic: Traffic, clock: Clock) -> None:
        self.gate = gate
        self._traffic = traffic
        self._clock = clock
        error = overloaded()
        bodies = {path: DIALECTS[name].error_json(error) for path, name in ROUTES.items()}
        self._answers = {path.encode(): _Answer(path, refusal_head(body, error), body) for path, body in bodies.items()}

    def find(self, method: bytes, path: bytes) -> _Answer | None:
        """The refusal of an operation; None for what always comes in."""
        if method != b"POST":
            return None
        if path.startswith(_PROXY):
            return self._answers[_NAMED_IN_PATH.encode()]
        return self._answers.get(path)

    def refuse(self, answer: _Answer) -> bytes:
        """An answer's bytes; counted."""
        self.gate.refuse()
        self._traffic.requests[answer.route, 503] += 1
        request_id = new_request_id(self._clock.now_ms()).encode()
        return b"%bx-request-id: %b\r\nrequest-id: %b\r\n\r\n%b" % (answer.head, request_id, request_id, answer.body)


def refusal_head(body: bytes, error: GatewayError) -> bytes:
    """The head of a 503 that no framework writes, open for further headers."""
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {error.retry_after}\r\n"
    )
    return head.encode()


class Entrance:
    """One connection's bytes as they come in."""

    __slots__ = ("_coming", "_connection", "_lost", "_refusals", "_skip")

    def __init__(self, refusals: Refusals, connection: object) -> None:
        self._refusals = refusals
        self._connection = connection
        self._coming = 0
        self._skip = 0
        self._lost = False

    def look(self, data: bytes, *, idle: bool) -> tuple[bytes, bytes]:
        """What to answer at once, and what is to be parsed.

        Args:
            data: what has just come.
            idle: whether every request before it has been answered: answers go out in order.
        """
        if self._lost:
            return b"", data
        if self._coming:
            return b"", self._pass_on(data, self._coming)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return self._requests(data[skipped:], idle=idle)

    def _requests(self, data: bytes, *, idle: bool) -> tuple[bytes, bytes]:
        """Each request that begins in these bytes, until one may come in."""
        answers = b""
        while data:
            found = read_head(data)
            if found is None:
                self._lost = True
                return answers, data
            method, path, length = found
            refusal = self._refusals.find(method, path) if idle else None
            if refusal is None or length - len(data) > _MOST_SKIPPED:
                return answers, self._pass_on(data, length)
            if not self._refusals.gate.shut:
                self._refusals.gate.let_in(self._connection)
                return answers, self._pass_on(data, length)
            answers += self._refusals.refuse(refusal)
            self._skip = max(0, length - len(data))
            data = data[length:]
        return answers, b""

    def _pass_on(self, data: bytes, length: int) -> bytes:
        """Bytes of a request that is parsed; what follows it in the same piece was not looked at."""
        self._coming = length - len(data)
        self._lost = self._coming < 0
        return data

    def close(self) -> None:
        """The connection is gone."""
        self._refusals.gate.arrived(self._connection)
