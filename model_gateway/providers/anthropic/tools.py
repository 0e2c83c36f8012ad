"""Tools and the choice among them, from chat to the Messages API: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.providers.anthropic.terms import JSON, Terms, wrong

_TOOL: Final = frozenset({"type", "function", "cache_control"})
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict", "cache_control"})
_CHOICES: Final[Mapping[str, JSON]] = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def tools(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The functions that the model may call.

    Raises:
        GatewayError: ``unsupported_parameter``: a tool that is no function; ``invalid_value``.
    """
    found = [_tool(tool, f"tools[{index}]", terms) for index, tool in enumerate(fields.get("tools") or ())]
    known = [tool for tool in found if tool]
    return {"tools": known} if known else {}


def _tool(tool: JSON, path: str, terms: Terms) -> JSON:
    if tool.get("type") != "function":
        terms.refuse(f"{path}.type", f"is {tool.get('type')!r}; only functions can be put to the Messages API")
        return {}
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise wrong(f"{path}.function.name", "must be a text")
    terms.only(tool, _TOOL, path)
    terms.only(function, _FUNCTION, f"{path}.function")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise wrong(f"{path}.function.parameters", "must be a JSON schema")
    made: JSON = {"name": function["name"], "input_schema": {"type": "object", **parameters}}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict"):
        made["strict"] = True
    marked = tool.get("cache_control") or function.get("cache_control")
    return {**made, "cache_control": marked} if marked else made


def tool_choice(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """``tool_choice`` and ``parallel_tool_calls`` in one; nothing where there is no tool to choose.

    Raises:
        GatewayError: ``unsupported_parameter``: a choice that the Messages API does not have.
    """
    wanted, one = fields.get("tool_choice"), fields.get("parallel_tool_calls") is False
    choice = _choice(wanted, terms)
    if not fields.get("tools") and choice in ({}, _CHOICES["auto"], _CHOICES["none"]):
        return {}
    if one and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return {"tool_choice": choice} if choice else {}


def _choice(wanted: Any, terms: Terms) -> JSON:
    if wanted is None:
        return {}
    if isinstance(wanted, str) and wanted in _CHOICES:
        return _CHOICES[wanted]
    function = wanted.get("function") if isinstance(wanted, dict) and wanted.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        kind = wanted.get("type") if isinstance(wanted, dict) else wanted
        terms.refuse("tool_choice", f"is {kind!r}, which the Messages API does not have")
        return {}
    return {"type": "tool", "name": function["name"]}
