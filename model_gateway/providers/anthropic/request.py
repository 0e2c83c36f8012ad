"""A chat completion's fields as the body of a Messages request: pure functions.

Each field is mapped by one of ``_MAPPED``, says nothing (``_NO_EFFECT``), or is refused with its reason; one that
nobody here has heard of is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.providers.anthropic.terms import JSON, Terms, is_nothing, wrong
from model_gateway.providers.anthropic.tools import tool_choice, tools
from model_gateway.providers.anthropic.turns import conversation

DEFAULT_MAX_TOKENS: Final = 4096
"""The API wants a bound; the gateway always sends one, another caller may not."""

MIN_BUDGET: Final = 1024
"""Tokens of thinking at least, as the API wants it."""

_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": MIN_BUDGET,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 65_536,
}
"""Tokens of thinking by ``reasoning_effort``, for models that take a budget; less where ``max_tokens`` leaves less."""

_EFFORTS: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""``output_config.effort`` by ``reasoning_effort``."""

_TIERS: Final[Mapping[str, str]] = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}

_NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "function_call": ("none", "auto"),
}
"""Values that ask for what happens anyway; so do null, false and whatever is empty."""

_REASONS: Final[Mapping[str, str]] = {
    "n": "can't be more than 1: the Messages API gives one answer",
    "functions": "is not known to the Messages API; use tools",
    "function_call": "is not known to the Messages API; use tool_choice",
    "store": "is not known to the Messages API: nothing is stored for the client",
    "verbosity": "is not known to the Messages API; say it in the prompt",
}


def message_body(messages: list[JSON], model: str, fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The body for ``/v1/messages``.

    Args:
        messages: of the chat.
        model: the provider's name for the model.
        fields: the chat completion's other fields.
        terms: how the deployment wants it.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``; nothing was sent.
    """
    system, turns = conversation(messages, terms)
    body: JSON = {"model": model, "messages": turns}
    if system:
        body["system"] = system
    for make in dict.fromkeys(_MAPPED.values()):
        _merge(body, make(fields, terms))
    for name, value in fields.items():
        if name not in _MAPPED and not is_nothing(value) and value not in _NO_EFFECT.get(name, ()):
            terms.refuse(name, _REASONS.get(name, "is not known to the Messages API"))
    return body


def _merge(body: JSON, members: JSON) -> None:
    for name, value in members.items():
        body[name] = {**body[name], **value} if name in body else value


def _max_tokens(fields: Mapping[str, Any], terms: Terms) -> int:
    newer, older = fields.get("max_completion_tokens"), fields.get("max_tokens")
    if newer and older and newer != older:
        terms.refuse("max_tokens", "says something else than max_completion_tokens")
    return int(newer or older or DEFAULT_MAX_TOKENS)


def _bound(fields: Mapping[str, Any], terms: Terms) -> JSON:
    return {"max_tokens": _max_tokens(fields, terms)}


def _sampling(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """Temperature (0 to 1 here), top_p and top_k; 1 is the default of the first two, and never sent.

    Models that do not sample refuse these, the newest version of the API for all models.
    """
    found = {}
    for name in ("temperature", "top_p", "top_k"):
        value = fields.get(name)
        if value is None or (value == 1 and name != "top_k"):
            continue
        if not terms.samples:
            terms.refuse(name, f"was taken out of the Messages API (version {terms.version})")
        elif name == "temperature" and value > 1:
            terms.refuse(name, "is at most 1 in the Messages API")
        else:
            found[name] = value
    return found


def _stop(fields: Mapping[str, Any], terms: Terms) -> JSON:
    stop = fields.get("stop")
    if not stop:
        return {}
    return {"stop_sequences": [stop] if isinstance(stop, str) else stop}


def _format(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """A JSON schema for the answer; the vendor has no JSON mode without one."""
    wanted = fields.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text"):
        return {}
    if not isinstance(wanted, dict) or kind != "json_schema":
        terms.refuse("response_format", f"is {kind!r}; the Messages API takes json_schema only")
        return {}
    terms.only(wanted, frozenset({"type", "json_schema"}), "response_format")
    named = wanted.get("json_schema")
    if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
        raise wrong("response_format.json_schema.schema", "must be a JSON schema")
    # Its name says nothing to the model, and the vendor is always strict.
    terms.only(named, frozenset({"name", "strict", "schema", "description"}), "response_format.json_schema")
    described = {"description": named["description"]} if named.get("description") else {}
    return {"output_config": {"format": {"type": "json_schema", "schema": {**described, **named["schema"]}}}}


def _reasoning(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """``reasoning_effort``, and the vendor's own ``thinking`` (an object), which wins where both say how to think."""
    own, effort = fields.get("thinking"), fields.get("reasoning_effort")
    found: JSON = {} if own is None else {"thinking": own}
    if effort is None:
        return found
    if effort != "none" and effort not in _EFFORTS:
        terms.refuse("reasoning_effort", f"{effort!r} is not known to the Messages API")
        return found
    made = _budget(effort, fields, terms) if terms.thinking == "budget" else _adaptive(effort)
    return {**made, **found}


def _adaptive(effort: str) -> JSON:
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _EFFORTS[effort]}}


def _budget(effort: str, fields: Mapping[str, Any], terms: Terms) -> JSON:
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    budget = min(_BUDGETS[effort], _max_tokens(fields, terms) - 1)
    if budget < MIN_BUDGET:
        terms.refuse("reasoning_effort", f"needs more than {MIN_BUDGET} tokens of output (max_tokens)")
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _user(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """``safety_identifier``, or its older name ``user``: both are for telling misuse apart, as here."""
    user = fields.get("safety_identifier") or fields.get("user")
    return {"metadata": {"user_id": user}} if user else {}


def _tier(fields: Mapping[str, Any], terms: Terms) -> JSON:
    tier = fields.get("service_tier")
    if tier is None:
        return {}
    if tier not in _TIERS:
        terms.refuse("service_tier", f"{tier!r} is not known to the Messages API")
        return {}
    return {"service_tier": _TIERS[tier]}


def _caching(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The vendor's own ``cache_control``: caches up to the last block that can be."""
    marked = fields.get("cache_control")
    return {} if marked is None else {"cache_control": marked}


def _streaming(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """Whether to stream is the call's business; usage comes in any case."""
    terms.only(fields.get("stream_options") or {}, frozenset({"include_usage"}), "stream_options")
    return {}


_MAPPED: Final[Mapping[str, Callable[[Mapping[str, Any], Terms], JSON]]] = {
    "max_tokens": _bound,
    "max_completion_tokens": _bound,
    "temperature": _sampling,
    "top_p": _sampling,
    "top_k": _sampling,
    "stop": _stop,
    "tools": tools,
    "tool_choice": tool_choice,
    "parallel_tool_calls": tool_choice,
    "response_format": _format,
    "reasoning_effort": _reasoning,
    "thinking": _reasoning,
    "user": _user,
    "safety_identifier": _user,
    "service_tier": _tier,
    "cache_control": _caching,
    "stream": _streaming,
    "stream_options": _streaming,
}
"""Which function maps a field; several may share one."""
