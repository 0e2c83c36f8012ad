"""``model-gateway up``: secrets, embedded servers, workers, front door and insights, with one command."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import aiohttp

from gateway_cli.acl import acl_lines
from gateway_cli.check_config import checked_config
from gateway_cli.data_directory import create_data_directory, locked, write_private
from gateway_cli.database import EmbeddedDatabase, prepare_database
from gateway_cli.embedded import (
    HOST,
    MIN_BULK_BYTES,
    URL_FILE,
    AppendFsync,
    EmbeddedServer,
    wait_until_answering,
)
from gateway_cli.errors import StartupError
from gateway_cli.ledger_marker import EMBEDDED, location, prepare_ledger
from gateway_cli.ports import ReservedPort
from gateway_cli.secret_store import EMBEDDED_REDIS_PASSWORD, SecretStore, secret_names
from gateway_cli.services import (
    api_service,
    insights_service,
    postgres_service,
    redis_service,
    worker_names,
    worker_services,
)
from gateway_cli.supervisor import Supervisor
from model_gateway.environment import Environment, sender_secrets
from model_gateway.settings import ConfigError, GatewayConfig
from model_gateway.streams import Keys

_READY_SECONDS: Final = 30.0
_REDIS_SECONDS: Final = 30.0
_LOAD_SECONDS: Final = 120.0
"""For the embedded server to read a long append-only file."""
_LOCK_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on here


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedded server, and the lock on its directory."""

    server: EmbeddedServer
    lock: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """All that is decided before the first process starts.

    Attributes:
        variables: what the processes find in their environment.
        environment: the same, read.
        config: the config file.
        data: the data directory.
        embedded: None where ``REDIS_URL`` names a server.
        database: None where ``DATABASE_URL`` names a server, and where there is none.
    """

    variables: Mapping[str, str] = field(repr=False)
    environment: Environment
    config: GatewayConfig
    data: Path
    embedded: Embedded | None
    database: EmbeddedDatabase | None


def add_parser(commands: Any) -> None:
    """Add ``up``."""
    parser = commands.add_parser("up", help="start everything, with an embedded Redis unless REDIS_URL is set")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Start everything, keep it running, and stop it when asked to."""
    with ExitStack() as held:
        asyncio.run(_serve(_prepare(held)))
    return 0


def _prepare(held: ExitStack) -> Gateway:
    """Check everything that can be checked, and take the locks and the ports.

    Raises:
        ConfigError: what is wrong.
    """
    asked = Environment.read()
    config = checked_config(asked.config_path)
    data = create_data_directory(asked.data_dir)
    held.enter_context(locked(data / "lock", "another `model-gateway up` runs with this directory"))
    variables = SecretStore(data).complete(secret_names(config), os.environ)
    users = _check_secrets(variables, config)
    variables |= _take_ports(held, asked)
    embedded = None if asked.redis_url else _prepare_embedded(held, data, variables, users, config)
    if embedded is not None:
        variables["REDIS_URL"] = embedded.server.url
    database = prepare_database(held, data, variables, config)
    if database is not None:
        variables["DATABASE_URL"] = database.server.url
    return Gateway(variables, Environment.read(variables), config, data, embedded, database)


def _take_ports(held: ExitStack, asked: Environment) -> dict[str, str]:
    """Both ports of the front door, chosen where 0 was asked for, and kept until the end."""
    names = {"GATEWAY_PORT": asked.port, "GATEWAY_EVENTS_PORT": asked.events_port}
    if asked.port and asked.port == asked.events_port:
        raise ConfigError("environment", [f"GATEWAY_EVENTS_PORT: {asked.events_port} is GATEWAY_PORT already"])
    return {name: str(held.enter_context(ReservedPort(asked.host, port, name)).number) for name, port in names.items()}


def _check_secrets(variables: Mapping[str, str], config: GatewayConfig) -> list[str]:
    """Refuse weak secrets; the agents' Redis users."""
    environment = Environment.read(variables)
    environment.require("ADMIN_TOKEN", "HMAC_SECRET")
    sender_secrets(config, environment.keyring, variables)
    return acl_lines(config, variables)


def _prepare_embedded(
    held: ExitStack, data: Path, variables: Mapping[str, str], users: list[str], config: GatewayConfig
) -> Embedded:
    """Take a port and the server's directory, and write its files."""
    port = held.enter_context(ReservedPort(HOST, 0, "REDIS_URL")).number
    password = variables[EMBEDDED_REDIS_PASSWORD]
    largest = max(MIN_BULK_BYTES, config.limits.body_bytes + MIN_BULK_BYTES // 2)
    server = EmbeddedServer(data / "redis", port, password, _appendfsync(variables), tuple(users), largest)
    server.directory.mkdir(mode=0o700, exist_ok=True)
    busy = "an embedded Redis of an earlier `model-gateway up` is still stopping"
    lock = held.enter_context(locked(server.directory / "lock", busy, _LOCK_SECONDS))
    server.prepare()
    write_private(data / URL_FILE, f"{server.url}\n")
    held.callback((data / URL_FILE).unlink, missing_ok=True)
    return Embedded(server, lock)


def _appendfsync(variables: Mapping[str, str]) -> AppendFsync:
    value = variables.get("GATEWAY_APPENDFSYNC") or "everysec"
    if value not in {"always", "everysec"}:
        raise ConfigError("environment", [f"GATEWAY_APPENDFSYNC: expected always or everysec, got {value!r}"])
    return cast("AppendFsync", value)


async def _serve(gateway: Gateway) -> None:
    supervisor = Supervisor()
    supervisor.stop_on_signals()
    await supervisor.run(_start(supervisor, gateway))


async def _start(supervisor: Supervisor, gateway: Gateway) -> None:
    """Start the parts in order, and say when they are ready."""
    if gateway.database is not None:
        supervisor.start(postgres_service(gateway.database.server, gateway.database.lock))
    await _start_redis(supervisor, gateway)
    environment, drain_seconds = gateway.environment, gateway.config.drain_seconds
    names = worker_names(environment.workers, gateway.data, shared=gateway.embedded is None)
    supervisor.start(*worker_services(names, gateway.variables, drain_seconds))
    supervisor.start(api_service(gateway.variables, drain_seconds))
    if gateway.config.insights.enabled:
        supervisor.start(insights_service(gateway.variables))
    await _wait_until_ready(f"http://{_address(environment, environment.port)}/health/ready")
    print(_ready_line(environment), flush=True)


async def _start_redis(supervisor: Supervisor, gateway: Gateway) -> None:
    """Start the embedded server, if any; wait for Redis, and see to the ledger."""
    url, where = gateway.environment.redis_url, EMBEDDED
    if gateway.embedded is not None:
        supervisor.start(redis_service(gateway.embedded.server, gateway.embedded.lock))
    try:
        await wait_until_answering(url, _REDIS_SECONDS if gateway.embedded is None else _LOAD_SECONDS)
        where = EMBEDDED if gateway.embedded else location(url)
    except ValueError:  # its text may hold a part of the password
        raise ConfigError("environment", ["REDIS_URL: expected redis://user:password@host:6379/0"]) from None
    except TimeoutError as error:
        raise StartupError(f"Redis: {error}") from None
    await prepare_ledger(url, where, gateway.data, Keys())


async def _wait_until_ready(url: str) -> None:
    """Wait for the front door, with Redis and a worker behind it.

    Raises:
        StartupError: it was not ready in time.
    """
    last = "no answer"
    timeout = aiohttp.ClientTimeout(total=2.0)
    try:
        async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession(timeout=timeout) as http:
            while last := await _not_ready(http, url):  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise StartupError(f"not ready in {_READY_SECONDS:g} s; {url} says: {last}") from None


async def _not_ready(http: aiohttp.ClientSession, url: str) -> str:
    """What stands in the way; empty when ready."""
    try:
        async with http.get(url) as response:
            return "" if response.status == 200 else (await response.text())[:500]
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"no answer ({type(error).__name__})"


def _address(environment: Environment, port: int) -> str:
    """Where this machine reaches a port of the gateway."""
    host = _EVERYWHERE.get(environment.host, environment.host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ready_line(environment: Environment) -> str:
    token = "in the environment" if os.environ.get("ADMIN_TOKEN") else f"in {SecretStore(environment.data_dir).path}"
    return (
        f"Model Gateway is ready: http://{_address(environment, environment.port)}"
        f"  events: ws://{_address(environment, environment.events_port)}/events"
        f"  ADMIN_TOKEN: {token}"
    )
