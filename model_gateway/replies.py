"""Entries of a reply stream, and the task that hands them to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_gateway.connection import AWAY
from model_gateway.tasks import end

_log = structlog.get_logger(__name__)

BLOCK_MS = 2_000
DUPLICATE = b"duplicate"
"""The kind of an entry that is no reply: its id was sent before, and ``first`` says where the replies to it begin."""

_COUNT = 512
_IN_ONE_TURN = 16
"""Replies that are handed out before whoever else waits for the event loop has a turn."""

_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """One entry of a reply stream.

    Attributes:
        request_id: which request it answers.
        kind: ``reply`` (whole), ``chunk`` or ``error``.
        index: the chunk's number, from 0.
        status: the HTTP status of a whole reply or an error.
        end: whether it is the request's last entry.
        retry_after: seconds, where trying again can help.
        usd_nano: what the request cost, on the last entry.
        event: the event's name, where the dialect names its events.
        code: an error's code.
        served_by: who answered, on the first entry: ``<provider>:<deployment>``, see ``deployment_name``.
        data: signed JSON, passed on as it is.
        entry: the stream entry's id.
    """

    request_id: str
    kind: str
    index: int
    status: int
    end: bool
    retry_after: int | None
    usd_nano: int | None
    data: bytes
    entry: str
    event: str = ""
    code: str = ""
    served_by: str = ""


def decode_reply(entry: bytes, fields: Mapping[bytes, bytes]) -> Reply:
    """A reply out of its stream entry."""
    return Reply(
        request_id=fields[b"id"].decode(),
        kind=fields[b"kind"].decode(),
        index=int(fields.get(b"index", b"0")),
        status=int(fields.get(b"status", b"200")),
        end=fields.get(b"end") == b"1",
        retry_after=_int(fields.get(b"retry_after")),
        usd_nano=_int(fields.get(b"usd_nano")),
        data=fields[b"data"],
        entry=entry.decode(),
        event=fields.get(b"event", b"").decode(),
        code=fields.get(b"code", b"").decode(),
        served_by=fields.get(b"served_by", b"").decode(),
    )


def _answers(fields: Mapping[bytes, bytes], request_id: str) -> bool:
    return fields.get(b"id") == request_id.encode() and fields.get(b"kind") != DUPLICATE


def _int(value: bytes | None) -> int | None:
    return int(value) if value else None


class _Queue(asyncio.Queue[Reply]):
    """Where one request's replies appear; ``begun``: some have."""

    begun = False


class ReplyReader:
    """Reads one reply stream from now on, and hands each entry to the request that waits for it."""

    def __init__(
        self, redis: Redis, stream: str, *, on_return: Callable[[], object], from_the_start: bool = False
    ) -> None:
        """``redis`` must allow answers to take longer than ``BLOCK_MS``; ``on_return``: it answers again.

        ``from_the_start``: hand out no stream from its middle. The stream itself will say where it began.
        """
        self._from_the_start = from_the_start
        self._on_return = on_return
        self._redis = redis
        self._stream = stream
        self._after = b"0-0"
        self._waiting: dict[str, list[_Queue]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin behind the newest entry; replies to what is submitted later are not missed."""
        newest: Any = await self._redis.xrevrange(self._stream, count=1)
        self._after = newest[0][0] if newest else b"0-0"
        self._task = asyncio.create_task(self._read(), name="replies")

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end(self._task)

    def expect(self, request_id: str) -> asyncio.Queue[Reply]:
        """Where the replies to a request will appear; call before submitting it."""
        queue = _Queue()
        self._waiting.setdefault(request_id, []).append(queue)
        return queue

    def forget(self, request_id: str, queue: asyncio.Queue[Reply]) -> None:
        """Nobody waits at this queue any more."""
        queues = [each for each in self._waiting.pop(request_id, []) if each is not queue]
        if queues:
            self._waiting[request_id] = queues

    async def since(self, request_id: str, entry: str) -> list[Reply]:
        """The replies to a request that are in the stream already, from the time of ``entry`` on."""
        found: list[Reply] = []
        start = entry.partition("-")[0]
        while True:
            page: Any = await self._redis.xrange(self._stream, min=start, count=_COUNT)
            found += [decode_reply(*item) for item in page if _answers(item[1], request_id)]
            if len(page) < _COUNT or (found and found[-1].end):
                return found
            start = f"({page[-1][0].decode()}"

    async def _read(self) -> None:
        away = False
        while True:
            try:
                found: Any = await self._read_on(now=away)
                if away:
                    self._on_return()
                away = False
            except AWAY as error:
                if not away:
                    _log.warning("replies.redis_away", stream=self._stream, error=type(error).__name__)
                away = True
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except RedisError as error:  # such as a key of another type in the stream's place
                _log.exception("replies.unreadable", stream=self._stream, error=str(error)[:200])
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for _, entries in found or ():
                for number, (entry, fields) in enumerate(entries, 1):
                    self._after = entry
                    if fields.get(b"kind") == DUPLICATE:
                        await self._deliver_past(fields)
                    else:
                        self._deliver(entry, fields)
                    if number % _IN_ONE_TURN == 0:
                        await asyncio.sleep(0)

    async def _read_on(self, *, now: bool) -> Any:
        """What comes next; ``now``: without waiting for it, to see whether Redis answers."""
        return await self._redis.xread({self._stream: self._after}, count=_COUNT, block=None if now else BLOCK_MS)

    def _deliver(self, entry: bytes, fields: Mapping[bytes, bytes]) -> None:
        waiting = self._waiting.get(fields.get(b"id", b"").decode("ascii", "replace"))
        if waiting:
            try:
                reply = decode_reply(entry, fields)
            except (KeyError, ValueError):
                _log.warning("replies.malformed", stream=self._stream, entry=entry.decode())
                return
            for queue in waiting:
                if queue.begun or not (self._from_the_start and reply.index):
                    queue.begun = True
                    queue.put_nowait(reply)

    async def _deliver_past(self, fields: Mapping[bytes, bytes]) -> None:
        """Hand out what was answered before to an id that was sent again."""
        request_id, first = fields.get(b"id", b"").decode("ascii", "replace"), fields.get(b"first", b"").decode()
        if not first or request_id not in self._waiting:
            return
        try:
            past = await self.since(request_id, first)
        except (RedisError, OSError) as error:  # it is sent again, and answered again, when Redis is back
            _log.warning("replies.past_unreadable", stream=self._stream, error=str(error)[:200])
            return
        for queue in self._waiting.get(request_id, ()):
            queue.begun = True
            for reply in past:
                queue.put_nowait(reply)
