"""A response request as a chat completion: the fields. Pure functions.

What a chat completion can't say is refused. Left out is only what has no effect here: ``store: false``, as nothing is
kept; ``max_tool_calls`` and what may be included of the provider's own tools, which are not offered; ``metadata``,
which is there to be told again with the answer, and is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from model_gateway.dialects.refusing import CANT, only, wrong
from model_gateway.dialects.responses.turns import messages_of
from model_gateway.dialects.strict_json import unsupported

JSON = dict[str, Any]

_SAME: Final = (
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
)
"""Fields that a chat completion has by the same name."""

_KNOWN: Final = frozenset(
    {
        *_SAME,
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "max_output_tokens",
        "max_tool_calls",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "include",
        "top_logprobs",
        "truncation",
        "image",
        "store",
        "metadata",
        # Refused before, where they ask for anything.
        "background",
        "context_management",
    }
)

LOGPROBS: Final = "message.output_text.logprobs"
ENCRYPTED: Final = "reasoning.encrypted_content"
_NOTHING_TO_INCLUDE: Final = frozenset(
    {
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "message.input_image.image_url",
    }
)
"""Parts of items that no answer has here."""

_NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "truncation": (None, "disabled"),
    "stream_options.include_obfuscation": (None, False),
    "reasoning.context": (None, "auto"),
    "prompt_cache_options.prewarm": (None, False),
    "image.context_compression": (None, "auto", "disabled"),
}
"""Values that ask for what happens anyway, of what a chat completion can't say."""


def chat_payload(payload: Mapping[str, Any]) -> JSON:
    """The body of a chat completion that asks the same, without an output bound.

    Args:
        payload: a response request's body, checked.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    only(payload, _KNOWN, "")
    _refuse_effects(payload)
    chat: JSON = {name: payload[name] for name in ("model", "stream", *_SAME) if payload.get(name) is not None}
    chat |= _tools(payload) | _text(payload.get("text") or {}) | _reasoning(payload) | _logprobs(payload)
    # Last, as it takes longest: what is refused may be left out, and all of it made again.
    return {"messages": messages_of(payload), **chat}


def included(payload: Mapping[str, Any], name: str) -> bool:
    """Whether a part of the answer is asked for that is not given otherwise."""
    return name in (payload.get("include") or ())


def _refuse_effects(payload: Mapping[str, Any]) -> None:
    for path, harmless in _NO_EFFECT.items():
        name, _, member = path.partition(".")
        value = payload.get(name)
        if member:
            value = value.get(member) if isinstance(value, dict) else value
        if value not in harmless:
            raise unsupported(path, CANT)
    for index, name in enumerate(payload.get("include") or ()):
        if name not in (LOGPROBS, ENCRYPTED) and name not in _NOTHING_TO_INCLUDE:
            raise unsupported(f"include[{index}]", CANT)


# -- tools


def _tools(payload: Mapping[str, Any]) -> JSON:
    """Tools and how they are chosen; without tools, a choice that asks for none says nothing."""
    tools = payload.get("tools")
    choice = payload.get("tool_choice")
    if not tools:
        return {} if choice in (None, "auto", "none") else {"tool_choice": _choice(choice)}
    chat: JSON = {"tools": [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]}
    if choice is not None:
        chat["tool_choice"] = _choice(choice)
    if payload.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = payload["parallel_tool_calls"]
    return chat


def _tool(tool: Mapping[str, Any], path: str) -> JSON:
    kind = tool["type"]
    _refuse_callers(tool, path)
    only(tool, _TOOL_MEMBERS[kind], path)
    told = {name: tool[name] for name in _TOLD[kind] if tool.get(name) is not None}
    if kind == "custom" and "format" in told:
        told["format"] = _grammar(told["format"], f"{path}.format")
    return {"type": kind, kind: told}


def _refuse_callers(tool: Mapping[str, Any], path: str) -> None:
    """Tools that a program of the provider's may call, or that are fetched later or run apart, are not of a chat."""
    if tool.get("allowed_callers") not in (None, [], ["direct"]):
        raise unsupported(f"{path}.allowed_callers", CANT)
    for name in ("async", "defer_loading"):
        if tool.get(name) not in (None, False):
            raise unsupported(f"{path}.{name}", CANT)


_TOLD: Final = {
    "function": ("name", "description", "parameters", "strict"),
    "custom": ("name", "description", "format"),
}
_TOOL_MEMBERS: Final = {
    kind: frozenset({*told, "type", "allowed_callers", "async", "defer_loading"}) for kind, told in _TOLD.items()
}


def _grammar(given: Any, path: str) -> JSON:
    if not isinstance(given, dict) or given.get("type") not in ("text", "grammar"):
        raise unsupported(f"{path}.type", CANT)
    only(given, frozenset({"type", "syntax", "definition"}), path)
    if given["type"] == "text":
        return {"type": "text"}
    return {"type": "grammar", "grammar": {name: given.get(name) for name in ("syntax", "definition")}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    kind = choice["type"]
    if kind == "allowed_tools":
        only(choice, frozenset({"type", "mode", "tools"}), "tool_choice")
        given = choice.get("tools")
        if not isinstance(given, list):
            raise wrong("tool_choice.tools", "must be a list of tools")
        tools = [_named(tool, f"tool_choice.tools[{index}]") for index, tool in enumerate(given)]
        return {"type": kind, kind: {"mode": choice.get("mode"), "tools": tools}}
    return _named(choice, "tool_choice")


def _named(tool: Any, path: str) -> JSON:
    """A tool by its name."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in ("function", "custom"):
        raise unsupported(f"{path}.type", CANT)
    only(tool, frozenset({"type", "name"}), path)
    return {"type": kind, kind: {"name": tool.get("name")}}


# -- the answer's form


def _text(config: Mapping[str, Any]) -> JSON:
    only(config, frozenset({"format", "verbosity"}), "text")
    chat: JSON = {}
    if config.get("verbosity") is not None:
        chat["verbosity"] = config["verbosity"]
    given = config.get("format") or {"type": "text"}
    make = _FORMATS.get(given["type"])
    if make is None:
        raise unsupported("text.format.type", CANT)
    return chat | make(given)


def _plain(given: Mapping[str, Any], members: Collection[str] = ("type",)) -> JSON:
    only(given, members, "text.format")
    return {}


def _object(given: Mapping[str, Any]) -> JSON:
    return _plain(given) | {"response_format": {"type": "json_object"}}


def _schema(given: Mapping[str, Any]) -> JSON:
    members = ("name", "description", "schema", "strict")
    _plain(given, ("type", *members))
    told = {name: given[name] for name in members if given.get(name) is not None}
    return {"response_format": {"type": "json_schema", "json_schema": told}}


_FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], JSON]]] = {
    "text": _plain,
    "json_object": _object,
    "json_schema": _schema,
}


def _reasoning(payload: Mapping[str, Any]) -> JSON:
    """How hard to think. A summary is given wherever the provider tells what it thought, asked for or not."""
    given = payload.get("reasoning") or {}
    only(given, frozenset({"effort", "summary", "generate_summary", "context", "mode"}), "reasoning")
    return {"reasoning_effort": given["effort"]} if given.get("effort") is not None else {}


def _logprobs(payload: Mapping[str, Any]) -> JSON:
    most = payload.get("top_logprobs") or 0
    if not most and not included(payload, LOGPROBS):
        return {}
    return {"logprobs": True} | ({"top_logprobs": most} if most else {})
