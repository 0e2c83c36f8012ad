"""The parameters of the insight queries: checked once, then plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from multidict import MultiMapping

from model_gateway.errors import GatewayError

MAX_HOURS: Final = 8_760
MAX_DAYS: Final = 3_650
MAX_LIMIT: Final = 100
MAX_QUERY_BYTES: Final = 8_192
MAX_NAME_BYTES: Final = 512
STATUSES: Final = ("done", "failed", "cancelled", "unknown")

_DIGITS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which requests a search looks at; None is any."""

    model: str | None = None
    principal: str | None = None
    status: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: a text, among which requests, and how many answers at most."""

    query: str
    filters: Filters
    limit: int


def hours(given: MultiMapping[str]) -> int:
    """``hours``: 1 to 8,760, 24 where it is not said.

    Raises:
        GatewayError: 400, as by all functions here.
    """
    return _whole(_known(given, "hours"), "hours", 24, MAX_HOURS)


def days(given: MultiMapping[str]) -> int:
    """``days``: 1 to 3,650, 7 where it is not said."""
    return _whole(_known(given, "days"), "days", 7, MAX_DAYS)


def search(given: MultiMapping[str]) -> Search:
    """A search, with its filters."""
    values = _known(given, "query", "model", "principal", "status", "since", "limit")
    return Search(
        query=_text(values, "query", MAX_QUERY_BYTES),
        filters=Filters(_name(values, "model"), _name(values, "principal"), _status(values), _since(values)),
        limit=_whole(values, "limit", 10, MAX_LIMIT),
    )


def principal(given: MultiMapping[str]) -> str:
    """``principal``, which must be said."""
    return _text(_known(given, "principal"), "principal", MAX_NAME_BYTES)


def _known(given: MultiMapping[str], *names: str) -> dict[str, str]:
    """The parameters by name: a misspelt filter that was passed over would give a wrong answer."""
    values: dict[str, str] = {}
    for name in given:
        if name not in names:
            raise _invalid(None, f"unknown parameter {name[:64]!r}; there are: {', '.join(names)}")
        if len(given.getall(name)) > 1:
            raise _invalid(name, f"{name} stands more than once")
        if "\0" in given[name]:
            raise _invalid(name, f"{name} holds a NUL character")
        if not _is_unicode(given[name]):
            raise _invalid(name, f"{name} is not UTF-8")
        values[name] = given[name]
    return values


def _is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: bytes of a request line that are none come as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(values: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= most:
        raise _invalid(name, f"{name} must be a whole number from 1 to {most}")
    return int(text)


def _text(values: Mapping[str, str], name: str, most: int) -> str:
    text = values.get(name)
    if text is None:
        raise GatewayError("missing_required_parameter", f"{name} is required", param=name)
    text = text.strip()
    if not text:
        raise _invalid(name, f"{name} is empty")
    if len(text.encode()) > most:
        raise _invalid(name, f"{name} must have at most {most} bytes")
    return text


def _name(values: Mapping[str, str], name: str) -> str | None:
    return _text(values, name, MAX_NAME_BYTES) if name in values else None


def _status(values: Mapping[str, str]) -> str | None:
    status = values.get("status")
    if status is not None and status not in STATUSES:
        raise _invalid("status", f"status must be one of {', '.join(STATUSES)}")
    return status


def _since(values: Mapping[str, str]) -> datetime | None:
    """A day or a time, in UTC where it names no zone; a ``+`` that became a space on its way is one again."""
    text = values.get("since")
    if text is None:
        return None
    for form in (text, text.replace(" ", "+")):
        try:
            time = datetime.fromisoformat(form)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            continue
    raise _invalid("since", "since must be a day or a time as in 2026-01-31 or 2026-01-31T12:00:00Z")


def _invalid(name: str | None, message: str) -> GatewayError:
    return GatewayError("invalid_value", message, param=name)
