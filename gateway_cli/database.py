"""Which PostgreSQL the insights go to when ``up`` starts everything: the one that is named, or an embedded one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway_cli.data_directory import locked
from gateway_cli.errors import StartupError
from gateway_cli.ports import ReservedPort
from gateway_cli.postgres import HOST, EmbeddedPostgres
from gateway_cli.secret_store import EMBEDDED_POSTGRES_PASSWORD
from model_gateway.settings import ConfigError, GatewayConfig

_log = structlog.get_logger(__name__)
_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class EmbeddedDatabase:
    """The embedded PostgreSQL, and the lock on its directory."""

    server: EmbeddedPostgres
    lock: int


def prepare_database(
    held: ExitStack, data: Path, variables: Mapping[str, str], config: GatewayConfig
) -> EmbeddedDatabase | None:
    """Take a port and a directory for the embedded PostgreSQL, and make what it needs; a second or two the first time.

    None where ``DATABASE_URL`` names a server, where insights are off, and where it can't be set up: the gateway works
    without, and says so where insights are asked for.
    """
    if variables.get("DATABASE_URL") or not config.insights.enabled:
        return None
    port = held.enter_context(ReservedPort(HOST, 0, "DATABASE_URL")).number
    server = EmbeddedPostgres(data / "postgres", port, variables[EMBEDDED_POSTGRES_PASSWORD])
    server.directory.mkdir(mode=0o700, exist_ok=True)
    busy = "an embedded PostgreSQL of an earlier `model-gateway up` is still stopping"
    lock = held.enter_context(locked(server.directory / "lock", busy, _LOCK_SECONDS))
    try:
        server.prepare()
    except (ConfigError, StartupError) as error:
        _log.warning("up.no_insights", reason=str(error))
        return None
    return EmbeddedDatabase(server, lock)
