"""The budget: what was spent today, and a reset."""

from __future__ import annotations

from aiohttp import web

from gateway_api.auth import ADMIN
from gateway_api.responses import json_response
from gateway_api.state import FRONT_DOOR
from model_gateway.ledger import budget_stats, reset_budget


async def stats(request: web.Request) -> web.Response:
    """``GET /budget/stats``: read at one instant."""
    door = request.app[FRONT_DOOR]
    return json_response(await budget_stats(door.client.scripts, door.client.keys, door.config.budget))


async def reset(request: web.Request) -> web.Response:
    """``POST /budget/reset``: zero what was settled; open reservations stay."""
    door = request.app[FRONT_DOOR]
    return json_response(await reset_budget(door.client.scripts, door.client.keys, door.config.budget, ADMIN))
