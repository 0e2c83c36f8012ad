"""The front door, put together."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiohttp import web

from gateway_api import budget, health, insights, metrics, models
from gateway_api.auth import BearerToken, guard
from gateway_api.body import put_off_continue
from gateway_api.cancellations import Cancellations
from gateway_api.fleet_watch import FleetWatch
from gateway_api.load_shedding import Gate, shedding
from gateway_api.middleware import answer
from gateway_api.operations import OPERATIONS, ROUTES, operation
from gateway_api.state import FRONT_DOOR, FrontDoor, Traffic
from model_gateway.client import ClientSettings, StreamClient
from model_gateway.clock import Clock
from model_gateway.envelope import front_door_secret
from model_gateway.environment import Environment, weak
from model_gateway.settings import ConfigError, GatewayConfig
from model_gateway.tasks import background

SILENCE_SECONDS: Final = 15.0
"""Of a stream, after which a comment is sent to keep it alive."""


def create_door(
    environment: Environment,
    config: GatewayConfig,
    *,
    clock: Clock | None = None,
    silence_seconds: float = SILENCE_SECONDS,
    variables: Mapping[str, str] = os.environ,
) -> FrontDoor:
    """Everything that the handlers share; nothing is connected yet.

    Raises:
        ConfigError: the metrics' token is missing or weak.
    """
    clock = clock or Clock()
    gate = Gate(config.overload.max_waiting)
    client = StreamClient(
        environment.redis_url,
        sender=f"http-{secrets.token_hex(8)}",
        secret=front_door_secret(environment.hmac_secret),
        config=ClientSettings(max_depth=config.queue.max_depth),
        clock=clock,
        on_waiting=gate.told,
    )
    return FrontDoor(
        environment=environment,
        config=config,
        client=client,
        clock=clock,
        fleet=FleetWatch(client),
        cancellations=Cancellations(),
        gate=gate,
        traffic=Traffic(),
        admin=BearerToken(environment.admin_token),
        metrics_token=_metrics_token(config, variables),
        silence_seconds=silence_seconds,
    )


def _metrics_token(config: GatewayConfig, variables: Mapping[str, str]) -> BearerToken | None:
    name = config.metrics.token
    if name is None:
        return None
    problems = weak(name, variables.get(name, ""))
    if problems:
        raise ConfigError("environment", problems)
    return BearerToken(variables[name])


def create_app(door: FrontDoor) -> web.Application:
    """The HTTP application."""
    middlewares = [answer, shedding(door.gate, ROUTES), guard(door.admin)]
    app = web.Application(middlewares=middlewares, client_max_size=door.config.limits.body_bytes)
    app[FRONT_DOOR] = door
    app.cleanup_ctx.append(_connected)
    app.cleanup_ctx.append(insights.connected)
    _add_routes(app.router)
    return app


def _add_routes(router: web.UrlDispatcher) -> None:
    for path, name in OPERATIONS.items():
        router.add_post(path, operation(name), expect_handler=put_off_continue)
    router.add_get("/models", models.published_models)
    router.add_get("/v1/models", models.openai_models)
    router.add_get("/v1/models/{id:.+}", models.openai_model)
    router.add_get("/budget/stats", budget.stats)
    router.add_post("/budget/reset", budget.reset)
    for path in ("/insights/stats", "/insights/trends", "/insights/similar"):
        router.add_get(path, insights.ask)
    router.add_delete("/insights/data", insights.ask)
    router.add_get("/metrics", metrics.metrics)
    router.add_get("/health", health.live)
    router.add_get("/health/live", health.live)
    router.add_get("/health/ready", health.ready)


async def _connected(app: web.Application) -> AsyncIterator[None]:
    """Listen for replies and watch the fleet; start even while Redis is away."""
    door = app[FRONT_DOOR]
    await door.fleet.refresh()
    async with background(door.fleet.watch(), "fleet"):
        yield
    await door.cancellations.close()
    await door.client.close()
