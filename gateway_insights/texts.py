"""The texts of requests and replies, read from the streams that their events point into."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway_insights.batch import Entry
from gateway_insights.redaction import Redaction
from gateway_insights.rows import Row, Source
from gateway_insights.wording import ReplyText, request_text
from model_gateway.settings import Insights
from model_gateway.streams import Keys

_AT_ONCE: Final = 32
"""Entries in one round trip: a request's body may have many megabytes."""

_PAGE: Final = 256
_MOST_PAGES: Final = 200
"""Of one stretch of a reply stream, replies to others included; what lies behind is left out of the texts."""

_MOST_DIGITS: Final = 41
_NO_STREAM: Final = ("WRONGTYPE", "Invalid stream ID")

Place = tuple[int, int]


@dataclass(slots=True)
class _Answer:
    """A row whose reply is looked for, and what was found of it."""

    row: Row
    first: Place
    last: Place
    found: ReplyText


class Texts:
    """Fills rows with their texts, secrets redacted, as far as the settings want them stored."""

    def __init__(self, redis: Redis, keys: Keys, settings: Insights, redact: Redaction, key: str) -> None:
        """``key`` makes hashes that nobody without it can compare with texts of his own."""
        self._redis = redis
        self._keys = keys
        self._store = settings.store_text
        self._redact = redact
        self._key = key.encode()

    async def fill(self, rows: Sequence[Row]) -> None:
        """Read the texts of rows; what has been trimmed, or can't be read, stays empty.

        Raises:
            AWAY: Redis is away.
        """
        if self._store == "off":
            return
        asked = await self._asked([(row.operation, row.source) for row in rows])
        for row, text in zip(rows, asked, strict=True):
            row.text_hash = self._hash(text) if text else None
            if self._store == "full":
                row.request_text = text or None
        if self._store == "full":
            await self._fill_replies(rows)

    async def of_events(self, event_ids: Sequence[str]) -> dict[str, str]:
        """What was asked in the requests that events tell of, by event: for vectors of texts that are not stored.

        Raises:
            AWAY: Redis is away.
        """
        events = await self._entries([(self._keys.events, event_id) for event_id in event_ids])
        sources = [(_text(event, b"operation") or "chat", Source(_text(event, b"request_entry"))) for event in events]
        asked = await self._asked(sources)
        return {event_id: text for event_id, text in zip(event_ids, asked, strict=True) if text}

    async def _asked(self, sources: Sequence[tuple[str, Source]]) -> list[str]:
        """What was asked, in the order given; empty where it is gone."""
        found = []
        for start in range(0, len(sources), _AT_ONCE):
            part = sources[start : start + _AT_ONCE]
            entries = await self._entries([(self._keys.requests, source.request_entry) for _, source in part])
            for (operation, _), fields in zip(part, entries, strict=True):
                found.append(self._clean(request_text(operation, fields.get(b"body", b""))))
        return found

    async def _entries(self, places: Sequence[tuple[str, str]]) -> list[Mapping[bytes, bytes]]:
        """The fields of single entries; none where the id is none, or the entry is gone."""
        pipeline = self._redis.pipeline(transaction=False)
        known = [place for place in places if _is_id(place[1])]
        for stream, entry in known:
            pipeline.xrange(stream, min=entry, max=entry)
        answers = dict(zip(known, await pipeline.execute(raise_on_error=False) if known else (), strict=True))
        return [_fields(answers.get(place)) for place in places]

    async def _fill_replies(self, rows: Sequence[Row]) -> None:
        by_stream: dict[str, list[_Answer]] = defaultdict(list)
        for row in rows:
            source = row.source
            if source.reply_stream and _is_id(source.reply_first) and _is_id(source.reply_last):
                answer = _Answer(row, _place(source.reply_first), _place(source.reply_last), ReplyText(row.operation))
                by_stream[source.reply_stream].append(answer)
        for stream, answers in by_stream.items():
            for stretch in _stretches(answers):
                await self._read(stream, stretch)
            for answer in answers:
                answer.row.reply_text = self._clean(answer.found.text) or None

    async def _read(self, stream: str, answers: Sequence[_Answer]) -> None:
        """Read a stretch of a reply stream once, for all rows whose replies lie in it."""
        wanted: dict[bytes, list[_Answer]] = defaultdict(list)
        for answer in answers:
            wanted[answer.row.request_id.encode()].append(answer)
        start, last = _id(answers[0].first), _id(max(answer.last for answer in answers))
        for _ in range(_MOST_PAGES):
            page = _entries_of(await self._range(stream, start, last))
            for entry, fields in page:
                _hand_out(_place(entry.decode()), fields, wanted.get(fields.get(b"id", b""), ()))
            if len(page) < _PAGE:
                return
            start = f"({page[-1][0].decode()}"

    async def _range(self, stream: str, start: str, last: str) -> Any:
        try:
            return await self._redis.xrange(stream, min=start, max=last, count=_PAGE)
        except ResponseError as error:
            return error

    def _clean(self, text: str) -> str:
        return self._redact(text).replace("\0", "\ufffd")

    def _hash(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _hand_out(place: Place, fields: Mapping[bytes, bytes], answers: Sequence[_Answer]) -> None:
    for answer in answers:
        if answer.first <= place <= answer.last:
            answer.found.add(fields.get(b"kind", b"").decode("ascii", "replace"), fields.get(b"data", b""))


def _stretches(answers: list[_Answer]) -> list[list[_Answer]]:
    """Answers in groups whose spans overlap, so that no entry is read twice."""
    found: list[list[_Answer]] = []
    end: Place = (-1, 0)
    for answer in sorted(answers, key=lambda answer: answer.first):
        if found and answer.first <= end:
            found[-1].append(answer)
        else:
            found.append([answer])
        end = max(end, answer.last)
    return found


def _fields(answer: Any) -> Mapping[bytes, bytes]:
    """The fields of the one entry of an answer; none where it is gone."""
    entries = _entries_of(answer)
    return entries[0][1] if entries else {}


def _entries_of(answer: Any) -> Sequence[Entry]:
    """The entries of an answer: none where the event points at nothing; any other error is raised."""
    if isinstance(answer, Exception) and not str(answer).startswith(_NO_STREAM):
        raise answer
    return answer if isinstance(answer, list) else ()


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")


def _is_id(text: str) -> bool:
    time, _, number = text.partition("-")
    return len(text) <= _MOST_DIGITS and time.isdecimal() and number.isdecimal() and text.isascii()


def _place(text: str) -> Place:
    time, _, number = text.partition("-")
    return int(time), int(number)


def _id(place: Place) -> str:
    return f"{place[0]}-{place[1]}"
