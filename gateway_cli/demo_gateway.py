"""The gateway that the demo talks to: the one that runs, else one started for it and stopped after it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from gateway_cli.errors import StartupError
from gateway_cli.exec_with_parent import bound_to_this_process
from gateway_cli.secret_store import SecretStore
from model_gateway.environment import Environment

_ASK_SECONDS: Final = 2.0
_START_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway, and the secrets to use and to verify it with."""

    url: str
    admin_token: str = field(repr=False)
    hmac_secrets: tuple[str, ...] = field(repr=False)
    note: str = ""


@asynccontextmanager
async def find_gateway() -> AsyncIterator[Target]:
    """The gateway at ``GATEWAY_URL`` or at the environment's host and port, else a temporary one.

    Raises:
        StartupError: there is none at ``GATEWAY_URL``, it is not ready, or its secrets are not known here.
    """
    environment = Environment.read()
    named = os.environ.get("GATEWAY_URL", "").rstrip("/")
    url = named or f"http://{environment.host}:{environment.port}"
    if await _is_running(url):
        yield _target(url, environment.data_dir)
    elif named:
        raise StartupError(f"no gateway answers at GATEWAY_URL {named}")
    else:
        async with _temporary_gateway() as target:
            yield target


async def _is_running(url: str) -> bool:
    """Whether a gateway answers there, rather than nothing or something else.

    Raises:
        StartupError: one does, and it is not ready.
    """
    timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{url}/health/ready") as response:
            found = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    if isinstance(found, dict) and found.get("problems"):
        raise StartupError(f"the gateway at {url} is not ready: {'; '.join(found['problems'])}")
    return isinstance(found, dict) and found.get("status") == "ready"


def _target(url: str, data_directory: Path, note: str = "") -> Target:
    """The gateway with the environment's secrets, else those of its data directory."""
    stored = SecretStore(data_directory).read()
    names = ("ADMIN_TOKEN", "HMAC_SECRET", "HMAC_SECRET_PREVIOUS")
    token, *secrets = (os.environ.get(name) or stored.get(name, "") for name in names)
    if not token or not secrets[0]:
        raise StartupError(f"set ADMIN_TOKEN and HMAC_SECRET: they are not in {data_directory} either")
    return Target(url, token, tuple(filter(None, secrets)), note)


@asynccontextmanager
async def _temporary_gateway() -> AsyncIterator[Target]:
    """A gateway on free ports, with an embedded Redis and data that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="model-gateway-demo-") as directory:
        data, log = Path(directory) / "data", Path(directory) / "log"
        process = await _start(data, log)
        try:
            yield _target(await _ready_url(process, log), data, "  (started for this demo)")
        finally:
            await _stop(process)


async def _start(data: Path, log: Path) -> asyncio.subprocess.Process:
    variables = {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "0",
        "GATEWAY_EVENTS_PORT": "0",
        "GATEWAY_WORKERS": "1",
        "GATEWAY_DATA_DIR": str(data),
    }
    with log.open("wb") as log_file:
        return await asyncio.create_subprocess_exec(
            *bound_to_this_process((sys.executable, "-m", "gateway_cli", "up")),
            env=variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
        )


async def _ready_url(process: asyncio.subprocess.Process, log: Path) -> str:
    """The URL out of the line that says that it is ready."""
    assert process.stdout is not None  # noqa: S101 - asked for above
    async with asyncio.timeout(_START_SECONDS):
        line = (await process.stdout.readline()).decode()
    found = re.search(r"http://\S+", line)
    if found is None:
        raise _not_started(log)
    return found[0]


def _not_started(log: Path) -> StartupError:
    return StartupError(f"the demo's gateway did not start:\n{log.read_text(errors='replace')}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
