"""A real Redis-compatible server for tests: ``REDIS_URL``, a container, or the embedded one."""

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

import pytest
from redis import Redis

from gateway_cli.embedded import HOST, AppendFsync, EmbeddedServer, wait_until_answering
from gateway_cli.exec_with_parent import bound_to_this_process
from gateway_cli.ports import ReservedPort

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class RedisServer:
    """An embedded server of a test's own, to stop, kill and start again: same port, same data."""

    def __init__(self, directory: Path, appendfsync: AppendFsync = "everysec", users: tuple[str, ...] = ()) -> None:
        self._port = ReservedPort(HOST, 0, "REDIS_URL")
        self.server = EmbeddedServer(directory, self._port.number, secrets.token_hex(16), appendfsync, users)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, with the password."""
        return self.server.url

    @property
    def journal(self) -> Path:
        """The append-only file that it writes to; valid while nothing rewrites it."""
        (found,) = (self.server.directory / "appendonlydir").glob("*.incr.aof")
        return found

    def cut_journal(self, size: int) -> None:
        """Take from a stopped server all that it wrote past a size of its file: a power cut."""
        with self.journal.open("r+b") as file:
            file.truncate(size)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.server.prepare()
        with (self.server.directory / "log").open("ab") as log:
            command = bound_to_this_process(self.server.command)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        await wait_until_answering(self.url, START_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop it, and let its port go."""
        self.stop()
        self._port.__exit__()


@asynccontextmanager
async def own_redis(directory: Path, appendfsync: AppendFsync = "everysec") -> AsyncIterator[RedisServer]:
    """A server of a test's own, running."""
    server = RedisServer(directory, appendfsync)
    try:
        await server.start()
        yield server
    finally:
        server.close()


@contextmanager
def redis_for_tests(directory: Path) -> Iterator[str]:
    """The URL of a database that tests may flush.

    ``REDIS_URL`` names a server to use; ``TEST_REDIS=docker`` starts one in a container, for where the embedded
    server's wheel does not run; else it is an embedded one in ``directory``.
    """
    if os.environ.get("REDIS_URL"):
        with _database_of(os.environ["REDIS_URL"]) as url:
            yield url
    elif os.environ.get("TEST_REDIS") == "docker":
        with _container() as url:
            yield url
    else:
        server = RedisServer(directory)
        try:
            asyncio.run(server.start())
            yield server.url
        finally:
            server.close()


@contextmanager
def _database_of(redis_url: str) -> Iterator[str]:
    """An empty database of a server that others use too: ``TEST_REDIS_DB``, and the ones below it for xdist."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    number = int(os.environ.get("TEST_REDIS_DB", "15")) - worker
    url = urlsplit(redis_url)._replace(path=f"/{number}").geturl()
    with Redis.from_url(url) as client:
        if client.dbsize():
            pytest.exit(f"database {number} of REDIS_URL is not empty: tests would flush it", returncode=2)
        yield url
        client.flushdb()


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - needs Docker

    durable = "redis-server --appendonly yes --maxmemory-policy noeviction"
    with RedisContainer("redis:7").with_command(durable) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
