"""A messages request's fields as a chat completion's: pure functions.

Each field is mapped, says nothing to the model, or is refused with ``unsupported_parameter``. Left out are:

- ``cache_control``, wherever it stands: a hint about prices; chat providers cache by themselves.
- ``service_tier``: the values that change no price are what a chat completion without one gets.
- ``max_tokens``: the bound goes beside the body, as the provider's own field for it has to be found.
- ``context_management`` that only clears earlier thinking, which is never passed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.dialects.messages.content import JSON
from model_gateway.dialects.messages.turns import conversation
from model_gateway.dialects.refusing import CANT, only, wrong
from model_gateway.dialects.strict_json import unsupported

_TOOL: Final = frozenset(
    {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}
)
"""Of a tool; ``eager_input_streaming`` is about the size of pieces, not what they say."""

_BUDGETS: Final = ((4_096, "low"), (16_384, "medium"))
"""Thinking of at most so many tokens is this ``reasoning_effort``; of more it is ``high``."""

_MAX_USER: Final = 64
"""Characters of OpenAI's ``user``."""


def chat_payload(payload: Mapping[str, Any]) -> JSON:
    """The fields of the chat completion, but for the output bound.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``; nothing was sent.
    """
    found: JSON = {}
    for make in dict.fromkeys(_MAPPED.values()):
        found |= make(payload)
    only(payload, _MAPPED.keys() | _ELSEWHERE, "")
    # Last, as it takes longest: what is refused may be left out, and all of it made again.
    return {"messages": conversation(payload), **found}


def _bound(payload: Mapping[str, Any]) -> JSON:
    if payload["max_tokens"] == 0:
        raise unsupported("max_tokens", f"of 0, to fill the cache only, {CANT}")
    return {}


def _sampling(payload: Mapping[str, Any]) -> JSON:
    return {name: payload[name] for name in ("temperature", "top_p") if payload.get(name) is not None}


def _stop(payload: Mapping[str, Any]) -> JSON:
    return {"stop": payload["stop_sequences"]} if payload.get("stop_sequences") else {}


def _user(payload: Mapping[str, Any]) -> JSON:
    """``metadata.user_id`` only has to tell users apart: one that is too long for OpenAI goes as its SHA-256."""
    metadata = payload.get("metadata") or {}
    only(metadata, frozenset({"user_id"}), "metadata")
    user = metadata.get("user_id")
    if not user:
        return {}
    return {"user": user if len(user) <= _MAX_USER else hashlib.sha256(user.encode()).hexdigest()}


def _tools(payload: Mapping[str, Any]) -> JSON:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls``; without a tool there is nothing to choose."""
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(payload.get("tools") or ())]
    choice = payload.get("tool_choice") or {}
    only(choice, frozenset({"type", "name", "disable_parallel_tool_use"}), "tool_choice")
    if not tools:
        if choice.get("type") not in (None, "auto", "none"):
            raise wrong("tool_choice", "needs tools")
        return {}
    found: JSON = {"tools": tools}
    if choice:
        found["tool_choice"] = _choice(choice)
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _tool(tool: JSON, path: str) -> JSON:
    known = _TOOL | {"allowed_callers"} if tool.get("allowed_callers") == ["direct"] else _TOOL
    only(tool, known, path)
    if not tool.get("name") or tool.get("input_schema") is None:
        raise wrong(path, "must have a name and an input_schema")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name)}
    return {"type": "function", "function": function}


def _choice(choice: JSON) -> str | JSON:
    match choice["type"]:
        case "auto" | "none" as same:
            return str(same)
        case "any":
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": choice.get("name")}}
    raise unsupported("tool_choice.type", f"{choice['type']!r} {CANT}")


def _reasoning(payload: Mapping[str, Any]) -> JSON:
    """``reasoning_effort``: of ``output_config.effort``, else of the budget.

    Adaptive thinking without an effort leaves it to the model, as a chat completion does that says nothing. Whether
    thinking is shown (``display``) the writer sees to.
    """
    thinking, effort = payload.get("thinking") or {}, (payload.get("output_config") or {}).get("effort")
    only(thinking, frozenset({"type", "budget_tokens", "display"}), "thinking")
    match thinking.get("type"):
        case None | "adaptive":
            return {"reasoning_effort": effort} if effort else {}
        case "enabled":
            return {"reasoning_effort": effort or _effort(thinking.get("budget_tokens"))}
        case "disabled":
            if effort:
                raise unsupported("output_config.effort", f"apart from thinking, which is disabled, {CANT}")
            return {"reasoning_effort": "none"}
    raise unsupported("thinking.type", f"{thinking['type']!r} {CANT}")


def _effort(budget: int | None) -> str:
    if budget is None:
        raise wrong("thinking.budget_tokens", "is required where thinking is enabled")
    return next((effort for most, effort in _BUDGETS if budget <= most), "high")


def _format(payload: Mapping[str, Any]) -> JSON:
    """A JSON schema for the answer, in ``output_config`` or, as it was first called, ``output_format``."""
    config = payload.get("output_config") or {}
    only(config, frozenset({"effort", "format"}), "output_config")
    newer, older = config.get("format"), payload.get("output_format")
    if newer and older:
        raise wrong("output_format", "says the same as output_config.format; leave it out")
    wanted, path = (newer, "output_config.format") if newer else (older, "output_format")
    if not wanted:
        return {}
    only(wanted, frozenset({"type", "schema"}), path)
    if wanted["type"] != "json_schema" or wanted.get("schema") is None:
        raise wrong(path, "must be a json_schema with its schema")
    schema = {"name": "answer", "schema": wanted["schema"], "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _context(payload: Mapping[str, Any]) -> JSON:
    management = payload.get("context_management") or {}
    only(management, frozenset({"edits"}), "context_management")
    for index, edit in enumerate(management.get("edits") or ()):
        if not edit["type"].startswith("clear_thinking_"):
            raise unsupported(f"context_management.edits[{index}].type", f"{edit['type']!r} {CANT}")
    return {}


_ELSEWHERE: Final = frozenset(
    {"model", "messages", "system", "stream", "cache_control", "service_tier", "speed", "inference_geo"}
)
"""Fields that are seen to elsewhere; of the last three only values without effect come this far."""

_MAPPED: Final[Mapping[str, Callable[[Mapping[str, Any]], JSON]]] = {
    "max_tokens": _bound,
    "temperature": _sampling,
    "top_p": _sampling,
    "stop_sequences": _stop,
    "metadata": _user,
    "tools": _tools,
    "tool_choice": _tools,
    "thinking": _reasoning,
    "output_config": _reasoning,
    "output_format": _format,
    "context_management": _context,
}
"""Which function maps a field; several may share one."""
