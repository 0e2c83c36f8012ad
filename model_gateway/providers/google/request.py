"""A chat completion's fields as the body of a ``generateContent`` request: pure functions.

Each field is mapped by one of ``_MAPPED``, says nothing (``_NO_EFFECT``), or is refused with its reason; one that
nobody here has heard of is refused too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from model_gateway.providers.google.terms import JSON, Terms, is_nothing, wrong
from model_gateway.providers.google.tools import tool_choice, tools
from model_gateway.providers.google.turns import conversation

_NAMES: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
"""Fields that only have another name."""

_LEVELS: Final[Mapping[str, str]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}
"""``thinkingLevel`` by ``reasoning_effort``, for Gemini 3 and newer; which of them a model has, the vendor says."""

_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
"""``thinkingBudget`` by ``reasoning_effort``, for Gemini 2.5: the vendor's own table
(https://ai.google.dev/gemini-api/docs/openai); past ``high`` it has no more."""

_TIERS: Final = frozenset({"flex", "priority"})
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
"""What a value of a label may be (https://cloud.google.com/resource-manager/docs/labels-overview)."""

_NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default"),
    "function_call": ("none", "auto"),
}
"""Values that ask for what happens anyway; so do null, false and whatever is empty."""

_REASONS: Final[Mapping[str, str]] = {
    "functions": "is not known to the Gemini API; use tools",
    "function_call": "is not known to the Gemini API; use tool_choice",
    "store": "is not known to the Gemini API: nothing is stored for the client",
    "verbosity": "is not known to the Gemini API; say it in the prompt",
    "modalities": "can only be text here",
}


def content_body(messages: list[JSON], model: str, fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The body for ``:generateContent`` and ``:streamGenerateContent``, which are the same.

    Args:
        messages: of the chat.
        model: the provider's name for the model.
        fields: the chat completion's other fields.
        terms: how the deployment wants it.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``; nothing was sent.
    """
    thinking = terms.thinking_of(model)
    system, contents = conversation(messages, terms, signed=thinking == "level")
    body: JSON = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    config = _generation(fields, thinking, terms)
    if config:
        body["generationConfig"] = config
    if terms.safety_settings:
        body["safetySettings"] = list(terms.safety_settings)
    for make in (tools, tool_choice, _user, _tier):
        body |= make(fields, terms)
    _refuse_others(fields, terms)
    return body


def _generation(fields: Mapping[str, Any], thinking: str, terms: Terms) -> JSON:
    config: JSON = {name: fields[field] for field, name in _NAMES.items() if _says(field, fields)}
    for make in (_bound, _choices, _stop, _logprobs, _format):
        config |= make(fields, terms)
    thoughts = _thinking(fields.get("reasoning_effort"), thinking, terms)
    return {**config, "thinkingConfig": thoughts} if thoughts else config


def _says(name: str, fields: Mapping[str, Any]) -> bool:
    value = fields.get(name)
    return not is_nothing(value) and value not in _NO_EFFECT.get(name, ())


def _refuse_others(fields: Mapping[str, Any], terms: Terms) -> None:
    for name in fields:
        if name not in _MAPPED and _says(name, fields):
            terms.refuse(name, _REASONS.get(name, "is not known to the Gemini API"))
    terms.only(fields.get("stream_options") or {}, frozenset({"include_usage"}), "stream_options")


def _bound(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """The bound on output tokens, thoughts among them, as in ``max_completion_tokens``."""
    newer, older = fields.get("max_completion_tokens"), fields.get("max_tokens")
    if newer and older and newer != older:
        terms.refuse("max_tokens", "says something else than max_completion_tokens")
    bound = newer or older
    return {"maxOutputTokens": bound} if bound else {}


def _choices(fields: Mapping[str, Any], terms: Terms) -> JSON:
    return {"candidateCount": fields["n"]} if _says("n", fields) else {}


def _stop(fields: Mapping[str, Any], terms: Terms) -> JSON:
    stop = fields.get("stop")
    if not stop:
        return {}
    return {"stopSequences": [stop] if isinstance(stop, str) else stop}


def _logprobs(fields: Mapping[str, Any], terms: Terms) -> JSON:
    top = fields.get("top_logprobs")
    if not fields.get("logprobs"):
        if top:
            raise wrong("top_logprobs", "needs logprobs")
        return {}
    return {"responseLogprobs": True, **({"logprobs": top} if top else {})}


def _format(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """JSON, with a schema or without; the schema's name says nothing to the model, and the vendor is always strict."""
    wanted = fields.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text"):
        return {}
    if not isinstance(wanted, dict) or kind not in ("json_object", "json_schema"):
        terms.refuse("response_format", f"is {kind!r}, which the Gemini API does not have")
        return {}
    terms.only(wanted, frozenset({"type", "json_schema"}), "response_format")
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    named = wanted.get("json_schema")
    if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
        raise wrong("response_format.json_schema.schema", "must be a JSON schema")
    terms.only(named, frozenset({"name", "strict", "schema", "description"}), "response_format.json_schema")
    described = {"description": named["description"]} if named.get("description") else {}
    return {"responseMimeType": "application/json", "responseJsonSchema": {**described, **named["schema"]}}


def _thinking(effort: Any, thinking: str, terms: Terms) -> JSON:
    """How much to think, and whether to tell: by default where an effort is asked for."""
    found: JSON = _effort(effort, thinking, terms)
    include = terms.include_thoughts
    if include is None:
        include = bool(found) and effort != "none"
    return {**found, "includeThoughts": True} if include else found


def _effort(effort: Any, thinking: str, terms: Terms) -> JSON:
    known: Mapping[str, Any] = {"level": _LEVELS, "budget": _BUDGETS}.get(thinking, {})
    if effort is None or (effort == "none" and thinking == "none"):
        return {}
    if not isinstance(effort, str) or effort not in known:
        off = "can't be turned off for this model" if effort == "none" else f"{effort!r} is not known to this model"
        terms.refuse("reasoning_effort", off)
        return {}
    return {"thinkingLevel" if thinking == "level" else "thinkingBudget": known[effort]}


def _user(fields: Mapping[str, Any], terms: Terms) -> JSON:
    """``safety_identifier``, or its older name ``user``: a label on Vertex AI, where its value can be one."""
    name = "safety_identifier" if fields.get("safety_identifier") else "user"
    user = fields.get(name)
    if not user:
        return {}
    if not terms.labels:
        terms.refuse(name, "is not known to the Gemini API")
    elif not isinstance(user, str) or not _LABEL.fullmatch(user):
        terms.refuse(name, "becomes a label here: 1 to 63 of a-z, 0-9, _ and -")
    else:
        return {"labels": {"user": user}}
    return {}


def _tier(fields: Mapping[str, Any], terms: Terms) -> JSON:
    if not _says("service_tier", fields):
        return {}
    tier = fields["service_tier"]
    if not terms.tiers:
        terms.refuse("service_tier", "can't be asked for in a request to Vertex AI")
    elif tier not in _TIERS:
        terms.refuse("service_tier", f"{tier!r} is not known to the Gemini API")
    else:
        return {"serviceTier": tier}
    return {}


_MAPPED: Final = frozenset(_NAMES) | {
    "max_tokens",
    "max_completion_tokens",
    "n",
    "stop",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "user",
    "safety_identifier",
    "service_tier",
    "stream",
    "stream_options",
}
"""The fields that one of the functions above reads."""
