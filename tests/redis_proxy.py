"""A TCP proxy between one process and Redis that understands commands: it records them, and breaks what a test says.

In a test::

    async with RedisProxy(redis_url) as proxy:             # the process gets proxy.url
        fault = proxy.arm(Fault("settle", Moment.EXECUTED, cut))
        ...
        await fault.struck.wait()                          # Redis has settled, and the process does not know

A command is known by its name, with the subcommand where there is one (``XGROUP CREATE``); a script by its own name,
``settle``, and the loading of one by ``SCRIPT LOAD``.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import pkgutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from urllib.parse import urlsplit

from model_gateway.scripts import Script

CONTAINERS = frozenset({"CLIENT", "CONFIG", "MEMORY", "SCRIPT", "XGROUP", "XINFO"})
EMPTY = (b"*-1\r\n", b"*0\r\n", b"$-1\r\n")
SCRIPT_PACKAGES = ("gateway_worker", "gateway_api", "model_gateway")


class Moment(Enum):
    """When a fault strikes a command."""

    BEFORE = "before Redis has it"
    EXECUTED = "executed, not answered"
    ANSWERED = "answered"


class CutError(Exception):
    """The connection is to be closed on both sides, now."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command as a process sent it. ``answer`` is empty until Redis has answered."""

    name: str
    words: tuple[bytes, ...]
    answer: bytes = b""


Deed = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]
"""What a fault does, given the process's side of the connection and the answer, which is empty before there is one."""


async def cut(_: asyncio.StreamWriter, answer: bytes) -> None:
    """Close the connection; an answer is lost."""
    raise CutError


async def tear(process: asyncio.StreamWriter, answer: bytes) -> None:
    """Close the connection in the middle of an answer."""
    process.write(answer[: len(answer) // 2])
    await process.drain()
    raise CutError


async def withhold(_: asyncio.StreamWriter, answer: bytes) -> None:
    """Keep an answer back until the process gives up waiting."""
    await asyncio.get_running_loop().create_future()


def cut_after(hook: Callable[[], Awaitable[object]]) -> Deed:
    """Call a hook, such as one that kills the process, and close the connection."""

    async def deed(_: asyncio.StreamWriter, answer: bytes) -> None:
        await hook()
        raise CutError

    return deed


@dataclass(slots=True)
class Fault:
    """What happens to the ``nth`` command of a name, once.

    Attributes:
        filled: count only answers that bring something; of a blocking read most are empty.
        struck: set when it happens.
        over: set when it has happened: an answer that was withheld, when the process has given it up.
    """

    name: str
    moment: Moment
    deed: Deed
    nth: int = 1
    filled: bool = False
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, command: Command, moment: Moment) -> bool:
        """Whether it happens here; counts what it lets pass."""
        if self.struck.is_set() or moment is not self.moment or command.name != self.name:
            return False
        if self.filled and command.answer in EMPTY:
            return False
        self.nth -= 1
        if self.nth == 0:
            self.struck.set()
        return self.nth == 0


class RedisProxy:
    """The proxy; it listens within its ``async with``.

    Attributes:
        answered: what Redis has carried out, in the order of its answers.
    """

    def __init__(self, redis_url: str) -> None:
        self._target = urlsplit(redis_url)
        self._faults: list[Fault] = []
        self._links: set[asyncio.Task[None]] = set()
        self.answered: list[Command] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where the process is to connect to."""
        credentials, at, _ = self._target.netloc.rpartition("@")
        return self._target._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()

    def names(self) -> list[str]:
        """The names of what Redis has carried out."""
        return [command.name for command in self.answered]

    def arm(self, *faults: Fault) -> Fault:
        """Have faults happen; the last of them."""
        self._faults.extend(faults)
        return faults[-1]

    def disarm(self) -> None:
        """Nothing happens any more."""
        self._faults.clear()

    async def cut_all(self) -> None:
        """Close every connection."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut_all()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            to_redis = await asyncio.open_connection(self._target.hostname, self._target.port)
            await _Link(self, (reader, writer), to_redis).run()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            writer.close()

    async def strike(self, command: Command, moment: Moment, process: asyncio.StreamWriter) -> None:
        """Let the fault happen that is due, if any.

        Raises:
            CutError: the connection is to be closed.
        """
        for fault in self._faults:
            if fault.strikes(command, moment):
                try:
                    await fault.deed(process, command.answer)
                finally:
                    fault.over.set()


Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection of the process, and the one to Redis that it stands for."""

    def __init__(self, proxy: RedisProxy, process: Side, redis: Side) -> None:
        self._proxy = proxy
        self._process, self._to_process = process
        self._redis, self._to_redis = redis
        self._flying: deque[Command] = deque()

    async def run(self) -> None:
        """Carry commands and answers until either side leaves or a fault cuts."""
        ways = [asyncio.create_task(self._forward()), asyncio.create_task(self._back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._to_redis.close()
            self._to_process.close()
            for ended in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(ended, Exception) and not isinstance(ended, CutError | EOFError | OSError):
                    raise ended

    async def _forward(self) -> None:
        while True:
            raw, command = await _read_command(self._process)
            await self._proxy.strike(command, Moment.BEFORE, self._to_process)
            self._flying.append(command)
            self._to_redis.write(raw)
            await self._to_redis.drain()

    async def _back(self) -> None:
        while True:
            answer = await _read_frame(self._redis)
            sent = self._flying.popleft()
            command = Command(sent.name, sent.words, answer)
            done = not answer.startswith(b"-NOSCRIPT")
            if done:
                self._proxy.answered.append(command)
                await self._proxy.strike(command, Moment.EXECUTED, self._to_process)
            self._to_process.write(answer)
            await self._to_process.drain()
            if done:
                await self._proxy.strike(command, Moment.ANSWERED, self._to_process)


async def _read_command(reader: asyncio.StreamReader) -> tuple[bytes, Command]:
    """A command's bytes, and what it is."""
    head = await reader.readuntil(b"\r\n")
    frames = [await _read_frame(reader) for _ in range(int(head[1:]))]
    words = tuple(frame.partition(b"\r\n")[2][:-2] for frame in frames)
    return head + b"".join(frames), Command(_name(words), words)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """One value of the protocol, whole, as bytes."""
    line = await reader.readuntil(b"\r\n")
    kind, size = line[:1], line[1:-2]
    if kind == b"$" and int(size) >= 0:
        return line + await reader.readexactly(int(size) + 2)
    if kind == b"*":
        return line + b"".join([await _read_frame(reader) for _ in range(int(size))])
    return line


def _name(words: tuple[bytes, ...]) -> str:
    name = words[0].decode().upper()
    if name == "EVALSHA":
        return known_scripts()[words[1].decode()]
    return f"{name} {words[1].decode().upper()}" if name in CONTAINERS else name


def loaded_script(command: Command) -> str:
    """Which script a ``SCRIPT LOAD`` loads."""
    return known_scripts()[hashlib.sha1(command.words[2], usedforsecurity=False).hexdigest()]


@cache
def known_scripts() -> Mapping[str, str]:
    """The product's scripts, by the digests that Redis knows them by: a new one is found wherever it is loaded."""
    found: dict[str, str] = {}
    for package in map(importlib.import_module, SCRIPT_PACKAGES):
        for info in pkgutil.iter_modules(package.__path__):
            if not info.ispkg and info.name != "__main__":
                module = importlib.import_module(f"{package.__name__}.{info.name}")
                found |= {value.sha: value.name for value in vars(module).values() if isinstance(value, Script)}
    return found
