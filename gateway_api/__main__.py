"""``python -m gateway_api``: one front-door process."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
import uvloop

from gateway_api.app import create_door
from gateway_api.serve import serving
from gateway_api.state import FrontDoor
from model_gateway.environment import Environment
from model_gateway.process import allow_connections, collect_garbage_seldom, log_to_stderr
from model_gateway.settings import ConfigError, load_config

_log = structlog.get_logger(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    log_to_stderr()
    try:
        environment = Environment.read()
        environment.require("REDIS_URL", "ADMIN_TOKEN", "HMAC_SECRET")
        config = load_config(environment.config_path)
        door = create_door(environment, config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    allow_connections(config.limits.connections)
    collect_garbage_seldom()
    try:
        uvloop.run(_serve(door))
    except OSError as error:
        sys.stderr.write(f"can't listen: {error}\n")
        return 1
    return 0


async def _serve(door: FrontDoor) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(door) as ports:
        _log.info("api.listening", host=door.environment.host, port=ports.http, events_port=ports.events)
        await stop.wait()
        _log.info("api.stopping")


if __name__ == "__main__":
    sys.exit(main())
