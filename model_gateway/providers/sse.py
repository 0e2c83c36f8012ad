"""Server-sent events, parsed as they arrive."""

from __future__ import annotations

from typing import Final

MAX_EVENT_BYTES: Final = 8 * 2**20
"""Bytes of one event at most, so that a server that never ends a line can't fill the memory."""


class EventTooLargeError(ValueError):
    """One event passed the bound."""


class SSEParser:
    """Turns a body's bytes, cut anywhere, into the ``data`` of each event.

    Lines end in LF, CRLF or CR; comments and other fields are passed over; an event that no blank line ended
    is none. Works on bytes, so that a cut inside a UTF-8 character does no harm.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, part: bytes) -> list[bytes]:
        """The events that ``part`` completes.

        Raises:
            EventTooLargeError: an event passed the bound.
        """
        if self._after_cr and part.startswith(b"\n"):  # the second half of a CRLF
            part = part[1:]
            self._after_cr = False
        end = max(part.rfind(b"\n"), part.rfind(b"\r")) + 1
        if not end:
            self._keep(part)
            return []
        self._after_cr = part.endswith(b"\r")
        text = bytes(self._partial) + part[:end] if self._partial else part[:end]
        self._partial.clear()
        events = self._events(text.splitlines())
        self._keep(part[end:])
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._after_cr = False
            self._partial += rest
            self._check(len(self._partial))

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
                self._size = 0
        return [event for event in events if event]

    def _append(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value)
        self._check(0)

    def _check(self, partial: int) -> None:
        if self._size + partial > self._max:
            raise EventTooLargeError(f"an event of more than {self._max} bytes")
