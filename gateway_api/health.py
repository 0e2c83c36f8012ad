"""Whether the process lives, and whether requests would be answered."""

from __future__ import annotations

from aiohttp import web

from gateway_api.responses import json_response
from gateway_api.state import FRONT_DOOR


async def live(_: web.Request) -> web.Response:
    """``GET /health/live``: the process answers."""
    return json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    """``GET /health/ready``: Redis answers and keeps what it is told, and a worker lives.

    What is known is at most a few seconds old, so this answers at once, whatever hangs.
    """
    door = request.app[FRONT_DOOR]
    problems = door.fleet.problems(durable=not door.environment.unverified_durability)
    if problems:
        return json_response({"status": "unavailable", "problems": problems}, status=503)
    warnings = door.fleet.warnings()
    return json_response({"status": "ready", "workers": len(door.fleet.workers), "warnings": warnings})
