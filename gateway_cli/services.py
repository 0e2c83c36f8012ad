"""What the gateway consists of: the commands and variables of its processes."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway_cli.embedded import EmbeddedServer
from gateway_cli.postgres import EmbeddedPostgres
from gateway_cli.supervisor import Service

_SAVE_SECONDS: Final = 60.0
"""For the embedded server to write what it holds; never cut short by a hurry."""
_DRAIN_MARGIN_SECONDS: Final = 5.0
_BATCH_SECONDS: Final = 5.0
"""For the insights process to finish the batch in hand; what it does not finish is taken in again."""


def redis_service(server: EmbeddedServer, lock: int) -> Service:
    """The embedded server. It inherits its directory's lock: no second one starts before it is gone."""
    # It needs no variables, and so gets no secrets.
    return Service("redis", server.command, {}, _SAVE_SECONDS, may_hasten=False, pass_fds=(lock,))


def postgres_service(server: EmbeddedPostgres, lock: int) -> Service:
    """The embedded PostgreSQL; it inherits its directory's lock, and no variables."""
    stop = signal.SIGINT  # SIGTERM would wait for everyone to hang up
    return Service("postgres", server.command, {}, _SAVE_SECONDS, may_hasten=False, pass_fds=(lock,), stop_signal=stop)


def insights_service(variables: Mapping[str, str]) -> Service:
    """The insights process; the gateway works without it."""
    return replace(_python_service("insights", "gateway_insights", variables, _BATCH_SECONDS), essential=False)


def worker_services(names: list[str], variables: Mapping[str, str], drain_seconds: float) -> list[Service]:
    """The workers; each has its name for its own and chooses a port for its metrics."""
    return [
        _python_service(
            name,
            "gateway_worker",
            {**variables, "GATEWAY_WORKER_NAME": name, "GATEWAY_METRICS_PORT": "0"},
            drain_seconds,
        )
        for name in names
    ]


def api_service(variables: Mapping[str, str], drain_seconds: float) -> Service:
    """The front door."""
    return _python_service("api", "gateway_api", variables, drain_seconds)


def _python_service(name: str, module: str, variables: Mapping[str, str], drain_seconds: float) -> Service:
    command = (sys.executable, "-m", module)
    return Service(name, command, variables, drain_seconds + _DRAIN_MARGIN_SECONDS)


def worker_names(count: int, data_directory: Path, *, shared: bool) -> list[str]:
    """``worker-1`` and on: the same ones after a restart, and others on each machine that shares a Redis."""
    place = sha256(f"{socket.gethostname()}:{data_directory}".encode()).hexdigest()[:8]
    prefix = f"worker-{place}" if shared else "worker"
    return [f"{prefix}-{number}" for number in range(1, count + 1)]
