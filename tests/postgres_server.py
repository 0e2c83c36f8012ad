"""A real PostgreSQL with pgvector for tests: ``DATABASE_URL``, or the embedded one."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from gateway_cli.data_directory import locked
from gateway_cli.exec_with_parent import bound_to_this_process
from gateway_cli.ports import ReservedPort
from gateway_cli.postgres import HOST, EmbeddedPostgres

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02


class PostgresServer:
    """An embedded server of a test's own, to stop, kill and start again: same port, same data."""

    def __init__(self, directory: Path) -> None:
        self._port = ReservedPort(HOST, 0, "DATABASE_URL")
        self.server = EmbeddedPostgres(directory, self._port.number, secrets.token_hex(16))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, with the password."""
        return self.server.url

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.server.directory.mkdir(mode=0o700, exist_ok=True)
        with locked(self.server.directory / "lock", "its processes still end", STOP_SECONDS) as lock:
            await asyncio.to_thread(self.server.prepare)
            self._launch(lock)
        await wait_until_answering(self.url, START_SECONDS)

    def _launch(self, lock: int) -> None:
        """Start it, not in a thread: it is told to stop when the thread that started it ends."""
        command = bound_to_this_process(self.server.command)
        with (self.server.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={}, pass_fds=(lock,)
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal, and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Let it end as in a crash."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """Stop it, and let its port go."""
        self.stop()
        self._port.__exit__()


async def wait_until_answering(url: str, seconds: float) -> None:
    """Wait for a server that starts or recovers.

    Raises:
        TimeoutError: it did not answer in time.
    """
    async with asyncio.timeout(seconds):
        while not await _answers(url):
            await asyncio.sleep(POLL_SECONDS)


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5.0)
    except (OSError, asyncpg.CannotConnectNowError):
        return False
    await connection.close()
    return True


@contextmanager
def postgres_for_tests(directory: Path) -> Iterator[str]:
    """The URL of a server on which tests may make databases.

    ``DATABASE_URL`` names one whose user may do that; else it is an embedded one in ``directory``.
    """
    if os.environ.get("DATABASE_URL"):
        yield os.environ["DATABASE_URL"]
        return
    server = PostgresServer(directory)
    try:
        asyncio.run(server.start())
        yield server.url
    finally:
        server.close()


@asynccontextmanager
async def empty_database(url: str) -> AsyncIterator[str]:
    """The URL of a new, empty database on a server; it is dropped at the end."""
    name = f"test_{secrets.token_hex(8)}"
    await _administer(url, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        await _administer(url, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
