"""Which models there are: the published list, and OpenAI's."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from aiohttp import web

from gateway_api.responses import json_response
from gateway_api.state import FRONT_DOOR, FrontDoor
from model_gateway.errors import GatewayError
from model_gateway.settings import DeploymentRow, ModelRow


def find_model(door: FrontDoor, name: str) -> str:
    """The model that a model's or a task's name stands for.

    Raises:
        GatewayError: none is named, none has the name, or no worker serves it.
    """
    if not name:
        raise GatewayError("missing_required_parameter", "model is required", param="model")
    model = door.config.resolve(name)
    if model is None:
        raise GatewayError("model_not_found", f"there is no model or task '{name}'", param="model")
    if not door.fleet.serves(model):
        raise GatewayError(
            "model_not_found", f"no worker serves '{model}': its provider's key is not set", param="model"
        )
    return model


def _served(door: FrontDoor) -> dict[str, ModelRow]:
    return {name: row for name, row in door.config.models.items() if door.fleet.serves(name)}


async def published_models(request: web.Request) -> web.Response:
    """``GET /models``: models with their prices, tasks, and the budget's settings."""
    door = request.app[FRONT_DOOR]
    budget = door.config.budget
    return json_response(
        {
            "models": [_published(name, row) for name, row in _served(door).items()],
            "defaults": door.config.defaults,
            "budget": {
                "daily_limit_usd": float(budget.daily_limit_usd),
                "hard_stop": budget.hard_stop,
                "warning_threshold": float(budget.warning_threshold),
            },
        }
    )


def _published(name: str, row: ModelRow) -> dict[str, Any]:
    several = {
        "routing": row.routing,
        "deployments": [{"name": label, **_prices(deployment)} for label, deployment in row.rows() if label],
    }
    return {
        "name": name,
        **_prices(row),
        "max_tokens": row.max_tokens,
        "supports_streaming": True,
        **(several if row.deployments else {}),
        **({"fallbacks": row.fallbacks} if row.fallbacks else {}),
    }


def _prices(row: DeploymentRow) -> dict[str, Any]:
    return {
        "provider": row.provider,
        "input_cost": _cost(row, row.input_cost),
        "output_cost": _cost(row, row.output_cost),
    }


def _cost(row: DeploymentRow, cost: Decimal | None) -> float | None:
    """USD per token; None where the row has no price of its own, and the workers look it up."""
    if row.free:
        return 0.0
    return None if cost is None else float(cost)


async def openai_models(request: web.Request) -> web.Response:
    """``GET /v1/models``."""
    served = _served(request.app[FRONT_DOOR])
    return json_response({"object": "list", "data": [_openai(name, row) for name, row in served.items()]})


async def openai_model(request: web.Request) -> web.Response:
    """``GET /v1/models/{id}``."""
    name = request.match_info["id"]
    row = _served(request.app[FRONT_DOOR]).get(name)
    if row is None:
        raise GatewayError("model_not_found", f"there is no model '{name}'", param="model")
    return json_response(_openai(name, row))


def _openai(name: str, row: ModelRow) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": row.provider}
