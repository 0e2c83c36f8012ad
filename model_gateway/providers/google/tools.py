"""Tools and the choice among them, from chat to the Gemini API: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.providers.google.terms import JSON, Terms, wrong

_TOOL: Final = frozenset({"type", "function"})
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def tools(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The functions that the model may call; their parameters are JSON schemas here too.

    Raises:
        GatewayError: ``unsupported_parameter``: a tool that is no function; ``invalid_value``.
    """
    found = [_declaration(tool, f"tools[{index}]", terms) for index, tool in enumerate(fields.get("tools") or ())]
    known = [declaration for declaration in found if declaration]
    return {"tools": [{"functionDeclarations": known}]} if known else {}


def _declaration(tool: JSON, path: str, terms: Terms) -> JSON:
    if tool.get("type") != "function":
        terms.refuse(f"{path}.type", f"is {tool.get('type')!r}; only functions can be put to the Gemini API")
        return {}
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise wrong(f"{path}.function.name", "must be a text")
    terms.only(tool, _TOOL, path)
    terms.only(function, _FUNCTION, f"{path}.function")
    made: JSON = {"name": function["name"]}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("parameters"):
        made["parametersJsonSchema"] = function["parameters"]
    return made


def tool_choice(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """``tool_choice`` and ``strict``; nothing where there is no tool to choose.

    A function that is ``strict`` makes ``auto`` into ``VALIDATED``, which keeps calls to their schemas; to be made to
    call one (``ANY``) does so anyway.

    Raises:
        GatewayError: ``unsupported_parameter``: a choice that the Gemini API does not have.
    """
    given = fields.get("tools") or ()
    if fields.get("parallel_tool_calls") is False and given:
        terms.refuse("parallel_tool_calls", "can't be turned off in the Gemini API")
    config = _config(fields.get("tool_choice"), terms)
    if not given and config.get("mode") != "ANY":
        return {}
    if config.get("mode", "AUTO") == "AUTO" and any(_is_strict(tool) for tool in given):
        config = {"mode": "VALIDATED"}
    return {"toolConfig": {"functionCallingConfig": config}} if config else {}


def _config(wanted: Any, terms: Terms) -> JSON:
    if wanted is None:
        return {}
    if isinstance(wanted, str) and wanted in _MODES:
        return {"mode": _MODES[wanted]}
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if isinstance(wanted, dict) and kind == "function":
        return {"mode": "ANY", "allowedFunctionNames": [_name(wanted, "tool_choice")]}
    if isinstance(wanted, dict) and kind == "allowed_tools":
        return _allowed(wanted.get("allowed_tools"))
    terms.refuse("tool_choice", f"is {kind!r}, which the Gemini API does not have")
    return {}


def _allowed(allowed: Any) -> JSON:
    named = allowed.get("tools") if isinstance(allowed, dict) else None
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if not isinstance(named, list) or mode not in ("auto", "required"):
        raise wrong("tool_choice.allowed_tools", "must have a mode and tools")
    names = [_name(tool, f"tool_choice.allowed_tools.tools[{index}]") for index, tool in enumerate(named)]
    return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": names}


def _name(tool: Any, path: str) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise wrong(f"{path}.function.name", "must be a text")
    return name


def _is_strict(tool: JSON) -> bool:
    function = tool.get("function")
    return isinstance(function, dict) and function.get("strict") is True
