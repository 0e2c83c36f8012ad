"""Both sites of the front door: HTTP, and live events on a port of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway_api.app import create_app
from gateway_api.early_refusal import Refusals
from gateway_api.events import create_events_app
from gateway_api.site import BoundedSite
from gateway_api.state import FRONT_DOOR, FrontDoor, Traffic

_EVENTS_SHUTDOWN_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the front door listens; useful where port 0 was asked for."""

    http: int
    events: int


@asynccontextmanager
async def serving(door: FrontDoor) -> AsyncIterator[Ports]:
    """Serve until the block is left; requests that run are then finished, within ``drain_seconds``."""
    async with AsyncExitStack() as stack:
        http = await _listen(
            stack,
            create_app(door),
            (door.environment.host, door.environment.port),
            door.traffic,
            door.config.drain_seconds,
            refusals=Refusals(door.gate, door.traffic, door.clock),
        )
        events = await _listen(
            stack,
            create_events_app(door),
            (door.environment.host, door.environment.events_port),
            Traffic(),
            _EVENTS_SHUTDOWN_SECONDS,
        )
        yield Ports(http, events)


async def _listen(
    stack: AsyncExitStack,
    app: web.Application,
    address: tuple[str, int],
    traffic: Traffic,
    shutdown_seconds: float,
    *,
    refusals: Refusals | None = None,
) -> int:
    """Start one application's site; the port it got."""
    limits = app[FRONT_DOOR].config.limits
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=shutdown_seconds)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await BoundedSite(runner, *address, limits=limits, traffic=traffic, refusals=refusals).start()
    port: int = runner.addresses[0][1]
    return port
