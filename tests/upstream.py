"""A provider's server over real TCP whose behaviour, faults included, follows a script; OpenAI-compatible by default.

In a test::

    async with Upstream() as upstream:
        upstream.next(Behaviour(cut_at=2))          # for the next request; else script[model], NAMED[model]
        ...                                         # a good reply where nothing is said
        assert upstream.calls == 1

In a process of its own: ``python -m tests.upstream --port 0`` prints its port; there the model's name picks
the behaviour, ``POST /release`` lets held requests go on, ``GET /ledger`` tells what was called and charged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.upstream_openai import OPENAI_OPERATIONS
from tests.upstream_replies import ERROR, NAMED, Behaviour, parts, text_of, whole

MAX_BODY = 64 * 2**20
MAX_REQUESTS = 200_000


@dataclass(slots=True)
class Recorded:
    """One request as it came. ``abandoned`` is set when the client left before the reply's end."""

    path: str
    headers: dict[str, str]
    body: bytes
    json: Any
    at: float
    connection: int
    charged: int = 0
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the server's own ledger."""

    digest: str
    model: str
    text: str
    at: float
    charged: int


Parts = Callable[[Behaviour, Any], Iterator[tuple[bytes, int]]]
"""A reply's bytes as they go over the wire, out of a behaviour and the request's JSON; each part with its tokens."""


def openai_speech(path: str) -> Parts | None:
    """What an OpenAI-compatible server says on a path, whatever its base; None where it has nothing."""
    operation = path.rpartition("/")[2]
    if operation == "completions":
        return parts if path.endswith("/chat/completions") else None
    return OPENAI_OPERATIONS.get(operation)


def model_of(request: Recorded) -> str:
    """The model that a request names: in its body, else in a path such as ``/v1/models/<model>:generate``."""
    named = request.json.get("model")
    return named if isinstance(named, str) else request.path.rpartition("/models/")[2].partition(":")[0]


class Upstream:
    """The server; it starts and ends with its ``async with``.

    ``speech`` says what a path is answered with: another vendor's server is this one with another speech.
    """

    def __init__(self, port: int = 0, speech: Callable[[str], Parts | None] = openai_speech) -> None:
        self.port = port
        self.speech = speech
        self.script: dict[str, Behaviour] = {}
        self.requests: deque[Recorded] = deque(maxlen=MAX_REQUESTS)
        self.calls = 0
        self.charged_tokens = 0
        self.connections = 0
        self._next: deque[Behaviour] = deque()
        self._released = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def next(self, *behaviours: Behaviour) -> None:
        """What to do with the next requests, in order."""
        self._next.extend(behaviours)

    def release(self) -> None:
        """Let every request go on that is held or will be, until ``hold``."""
        self._released.set()

    def hold(self) -> None:
        """Hold requests again."""
        self._released.clear()

    async def arrived(self, calls: int = 1) -> None:
        """Wait until so many chat requests have come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.calls >= calls)

    def ledger(self) -> dict[str, Any]:
        """What was called, and what it was charged at."""
        calls = [asdict(_call(request)) for request in self.requests]
        return {"calls": self.calls, "charged_tokens": self.charged_tokens, "requests": calls}

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while await self._answer(await _read(reader, number), reader, writer):
                pass
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Recorded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        parts_of = self.speech(request.path.partition("?")[0])
        if parts_of is not None and isinstance(request.json, dict):
            behaviour = await self._record(request)
            return await self._speak(request, parts_of(behaviour, request.json), behaviour, reader, writer)
        if request.path == "/release":
            self.release()
        found = request.path in ("/release", "/ledger")
        body = json.dumps(self.ledger()).encode() if found else ERROR
        for part, _ in whole(200 if found else 404, {}, body):
            await _send(writer, part)
        return True

    async def _record(self, request: Recorded) -> Behaviour:
        self.requests.append(request)
        async with self._arrived:
            self.calls += 1
            self._arrived.notify_all()
        if self._next:
            return self._next.popleft()
        model = model_of(request)
        return self.script.get(model) or NAMED.get(model) or Behaviour()

    async def _speak(
        self,
        request: Recorded,
        said: Iterator[tuple[bytes, int]],
        behaviour: Behaviour,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        await asyncio.sleep(behaviour.delay)
        for index, (part, tokens) in enumerate(said):
            self._charge(request, tokens)
            if index == behaviour.hold_at and not await self._let_go(reader):
                request.abandoned.set()
                return False
            if index == behaviour.cut_at:
                return False
            try:
                await _send(writer, part)
            except ConnectionError:
                request.abandoned.set()
                raise
        return True

    async def _let_go(self, reader: asyncio.StreamReader) -> bool:
        """Wait for release; False when the client went away."""
        release = asyncio.ensure_future(self._released.wait())
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({release, left}, return_when=asyncio.FIRST_COMPLETED)
            return not left.done()
        finally:
            release.cancel()
            left.cancel()
            await asyncio.gather(release, left, return_exceptions=True)

    def _charge(self, request: Recorded, tokens: int) -> None:
        request.charged += tokens
        self.charged_tokens += tokens


def _call(request: Recorded) -> Call:
    texts = [text_of(message) for message in request.json.get("messages") or [{}]]
    digest = hashlib.sha256(request.body).hexdigest()
    return Call(digest, model_of(request), texts[-1], request.at, request.charged)


async def _read(reader: asyncio.StreamReader, connection: int) -> Recorded:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    size = int(headers.get("content-length", "0"))
    if size > MAX_BODY:
        raise ConnectionAbortedError
    body = await reader.readexactly(size)
    parsed = None
    with contextlib.suppress(ValueError):
        parsed = json.loads(body)
    return Recorded(head[0].split(" ")[1], headers, body, parsed, time.time(), connection)


async def _send(writer: asyncio.StreamWriter, part: bytes) -> None:
    writer.write(part)
    await writer.drain()


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A scripted upstream")
    parser.add_argument("--speech", default="tests.upstream:openai_speech", help="what it speaks: module:function")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=900.0, help="stops by itself after this long")
    arguments = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    module, _, name = arguments.speech.partition(":")
    async with Upstream(arguments.port, getattr(importlib.import_module(module), name)) as upstream:
        print(upstream.port, flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), arguments.seconds)


if __name__ == "__main__":
    asyncio.run(_main())
