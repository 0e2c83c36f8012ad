"""An answer on its way through: what a provider's reply tells (a reader), and how the client gets it (a writer)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from typing_extensions import override

from model_gateway.money import Usage
from model_gateway.signing import clean_object


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of a stream, before it is signed: an object's text, and the event's name (empty: it has none)."""

    data: bytes
    event: str = ""


class Reader(ABC):
    """Notes what a provider's answer tells, as it passes.

    Attributes:
        usage: tokens by kind, once the provider has said; None until then.
        finish_reason: why it ended, in the provider's words; the first choice's.
        finishing: from now on each piece may be the stream's last.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish_reason = ""
        self.finishing = False
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """Everything that was said so far, for our own count where the provider gives no usage."""
        return "".join(self._said)

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether a stream has come to its proper end, rather than being cut."""

    @abstractmethod
    def reply(self, parsed: dict[str, Any]) -> None:
        """Note a whole reply."""

    @abstractmethod
    def chunk(self, parsed: dict[str, Any]) -> None:
        """Note one event of a stream."""


class Writer(ABC):
    """Says an answer as the client's dialect has it. One for each call."""

    @abstractmethod
    def reply(self, parsed: dict[str, Any], text: bytes) -> bytes:
        """A whole reply's JSON text, without members that only the gateway may write.

        Raises:
            NotAnObjectError: the provider's answer is no object.
        """

    @abstractmethod
    def chunk(self, parsed: dict[str, Any], text: bytes) -> Iterator[Piece]:
        """What one event of the provider's stream becomes: none, one or several."""

    def end(self) -> Iterator[Piece]:
        """What is left to say once the provider's stream has ended as it should."""
        return iter(())


class PassOn(Writer):
    """Passes a provider's own objects on, text untouched; for events that name their type.

    Attributes:
        dropped: types of events that are not passed on.
    """

    def __init__(self, dropped: Collection[str] = ()) -> None:
        self._dropped = dropped

    @override
    def reply(self, parsed: dict[str, Any], text: bytes) -> bytes:
        return clean_object(text, parsed, one_line=False)

    @override
    def chunk(self, parsed: dict[str, Any], text: bytes) -> Iterator[Piece]:
        kind = parsed.get("type")
        if kind not in self._dropped:
            yield Piece(clean_object(text, parsed, one_line=True), kind if isinstance(kind, str) else "")


def named(event: dict[str, Any]) -> Piece:
    """An event of our own making, named by its ``type``."""
    return Piece(orjson.dumps(event), event["type"])
