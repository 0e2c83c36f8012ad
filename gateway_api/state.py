"""What every handler of the front door shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from gateway_api.auth import BearerToken
from gateway_api.cancellations import Cancellations
from gateway_api.fleet_watch import FleetWatch
from gateway_api.load_shedding import Gate
from model_gateway.client import StreamClient
from model_gateway.clock import Clock
from model_gateway.dialects import Dialect
from model_gateway.environment import Environment
from model_gateway.settings import GatewayConfig


@dataclass(slots=True)
class Traffic:
    """What one process has to do.

    Attributes:
        connections: open HTTP connections.
        requests: answered requests by route and status.
    """

    connections: int = 0
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """One front-door process.

    Attributes:
        environment: what the process was started with.
        config: models, limits, budget.
        client: puts requests on the stream and hands out the replies.
        clock: wall-clock time.
        fleet: which workers live and what they serve.
        cancellations: those on their way to the workers.
        gate: turns requests away under overload.
        traffic: this process's own figures.
        admin: the token that opens everything.
        metrics_token: closes ``/metrics``; open without one.
        silence_seconds: of a stream, after which a comment is sent to keep it alive.
    """

    environment: Environment
    config: GatewayConfig
    client: StreamClient
    clock: Clock
    fleet: FleetWatch
    cancellations: Cancellations
    gate: Gate
    traffic: Traffic
    admin: BearerToken
    metrics_token: BearerToken | None
    silence_seconds: float


FRONT_DOOR: Final = web.AppKey("front_door", FrontDoor)
REQUEST_ID: Final = web.RequestKey("request_id", str)
DIALECT: Final = web.RequestKey("dialect", Dialect)
