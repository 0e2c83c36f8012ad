"""What only shows between the rows of a config: names that lead nowhere, secrets that are somebody else's.

The checks take the data as it was written, which may be wrong in other ways too.
"""

from __future__ import annotations

import re
from typing import Any, Final


def references(data: dict[str, Any]) -> list[str]:
    """Every such mistake, as ``path: what is wrong``."""
    return _fallbacks(data.get("models")) + _tasks(data) + _agents(data)


def _fallbacks(models: Any) -> list[str]:
    """Fallbacks that name no model, or the model itself."""
    rows = models.items() if isinstance(models, dict) else ()
    found = []
    for name, row in ((name, row) for name, row in rows if isinstance(row, dict)):
        given = row.get("fallbacks")
        for fallback in given if isinstance(given, list) else ():
            if fallback == name:
                found.append(f"models.{name}.fallbacks: names the model itself")
            elif isinstance(fallback, str) and fallback not in models:
                found.append(f"models.{name}.fallbacks: there is no model '{fallback}'")
    return found


def _tasks(data: dict[str, Any]) -> list[str]:
    """Tasks that name no model, or that hide one."""
    models, defaults = data.get("models"), data.get("defaults")
    if not isinstance(models, dict) or not isinstance(defaults, dict):
        return []
    unknown = [
        f"defaults.{task}: there is no model '{model}'"
        for task, model in defaults.items()
        if isinstance(model, str) and model not in models
    ]
    hidden = [f"defaults.{task}: a model has this name already" for task in defaults if task in models]
    return unknown + hidden


_GATEWAYS_OWN: Final = re.compile(
    r"(HMAC_SECRET|HMAC_SECRET_PREVIOUS|ADMIN_TOKEN|REDIS_URL|DATABASE_URL|GATEWAY_.*|.*_API_KEY|AGENT_.*_REDIS_PASSWORD)\Z"
)
"""Variables with another purpose: an agent knows its secret, and would know theirs."""


def _agents(data: dict[str, Any]) -> list[str]:
    """Agents whose secrets would be one and the same, or another's."""
    problems: list[str] = []
    owners: dict[str, str] = {}
    agents, taken = data.get("agents"), _provider_keys(data)
    rows = agents.items() if isinstance(agents, dict) else ()
    for name, agent in ((name, row) for name, row in rows if isinstance(row, dict)):
        variable = agent.get("secret_env")
        if isinstance(variable, str) and owners.setdefault(variable, name) != name:
            problems.append(f"agents.{name}.secret_env: agent '{owners[variable]}' uses {variable} already")
        if isinstance(variable, str) and (_GATEWAYS_OWN.match(variable) or variable in taken):
            problems.append(f"agents.{name}.secret_env: {variable} is not an agent's: who has it could do more")
    return problems


def _provider_keys(data: dict[str, Any]) -> set[Any]:
    """The variables that hold providers' keys and the token of the metrics, where the config names them."""
    models, metrics = data.get("models"), data.get("metrics")
    rows = [row for row in models.values() if isinstance(row, dict)] if isinstance(models, dict) else []
    lists = [row["deployments"] for row in rows if isinstance(row.get("deployments"), list)]
    rows += [row for found in lists for row in found if isinstance(row, dict)]
    named = [row.get("api_key_env") for row in rows]
    named += [metrics.get("token")] if isinstance(metrics, dict) else []
    return {name for name in named if isinstance(name, str)}
