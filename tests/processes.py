"""A gateway in real processes: workers and a front door that a test starts, kills, freezes and stops."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from model_gateway.agent_client import GatewayClient
from model_gateway.fleet import live_workers
from model_gateway.ledger import initialise
from model_gateway.streams import Keys

ADMIN_TOKEN = "test-admin-token-" + "a" * 32
HMAC_SECRET = "test-hmac-secret-" + "h" * 32
AGENT_SECRET = "test-agent-secret-" + "g" * 32
FEW_FILES = 256
_FIRST_PORT = 10_000
_HANDED_OUT_FROM = 32_768
ROOT = Path(__file__).parent.parent


async def wait_until(
    condition: Callable[[], Coroutine[Any, Any, Any]] | Callable[[], Any], *, within: float = 30.0, what: str = ""
) -> Any:
    """Wait for a condition to be true; its value. Fails after ``within`` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, f"not within {within} s: {what or condition}"
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on, below those that the system hands out: nobody gets it by chance meanwhile."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", secrets.randbelow(_HANDED_OUT_FROM - _FIRST_PORT) + _FIRST_PORT))
            except OSError:
                continue
            return int(probe.getsockname()[1])


class Part:
    """One process of the gateway, with what it wrote to stderr."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self.log = log

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 20.0) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), within)


class Gateway:
    """Processes of one gateway over one Redis."""

    def __init__(self, redis: Redis, redis_url: str, folder: Path, config: str, **variables: str) -> None:
        self.redis = redis
        self.redis_url = redis_url
        self.folder = folder
        self.port = 0
        self.parts: list[Part] = []
        path = folder / "models.yaml"
        path.write_text(config)
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": redis_url,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "HMAC_SECRET": HMAC_SECRET,
            "AGENT_TEST_SECRET": AGENT_SECRET,
            "GATEWAY_CONFIG": str(path),
            **variables,
        }

    async def start_worker(self, name: str = "w1") -> Part:
        """A worker that has said that it lives."""
        part = await self._start(name, "gateway_worker", GATEWAY_WORKER_NAME=name)

        async def alive() -> bool:
            assert part.process.returncode is None, part.log.read_text()
            return name in {state.name for state in await live_workers(self.redis, Keys())}

        await wait_until(alive, what=f"worker {name}")
        return part

    async def start_api(self) -> Part:
        """A front door that is ready."""
        self.port = free_port()
        part = await self._start("api", "gateway_api", GATEWAY_PORT=str(self.port), GATEWAY_EVENTS_PORT="0")
        async with aiohttp.ClientSession() as session:

            async def ready() -> bool:
                assert part.process.returncode is None, part.log.read_text()
                try:
                    async with session.get(f"{self.url}/health/ready") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await wait_until(ready, what="front door")
        return part

    async def start_insights(self, command: str = "gateway_insights", **variables: str) -> Part:
        """An insights process that may still be starting; ``command``: what ``python -m`` runs, with its arguments."""
        return await self._start("insights", command, **variables)

    @property
    def url(self) -> str:
        """Where the front door is."""
        return f"http://127.0.0.1:{self.port}"

    def agent(self) -> GatewayClient:
        """The client of the agent ``test``."""
        return GatewayClient(self.redis_url, agent="test", secret=AGENT_SECRET)

    async def _start(self, name: str, module: str, **variables: str) -> Part:
        """A process with few open files to begin with, as on many systems."""
        log = self.folder / f"{name}-{len(self.parts)}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", f'ulimit -Sn {FEW_FILES}; exec "$0" -m {module}', sys.executable),
                env={**self.variables, **variables},
                stderr=stderr,
                cwd=self.folder,
            )
        part = Part(process, name, log)
        self.parts.append(part)
        return part

    async def stop(self) -> None:
        """End every process that still runs."""
        for part in self.parts:
            if part.process.returncode is None:
                await part.stop(signal.SIGKILL)


@asynccontextmanager
async def gateway(redis: Redis, redis_url: str, folder: Path, config: str, **variables: str) -> AsyncIterator[Gateway]:
    """A gateway without processes yet, over a ledger that is whole."""
    await initialise(redis, Keys())
    found = Gateway(redis, redis_url, folder, config, **variables)
    try:
        yield found
    finally:
        await found.stop()
