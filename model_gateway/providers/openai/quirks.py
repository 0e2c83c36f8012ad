"""How a vendor's row shapes a request, and how its usage is read: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.dialects.chat import chat_usage
from model_gateway.dialects.strict_json import unsupported
from model_gateway.money import Usage, detail, is_count
from model_gateway.providers.openai.vendors import FieldRules, UsageRules, Vendor

_NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "encoding_format": ("float",),
}
"""Values that ask for nothing, as they are what happens anyway; so are null and whatever is empty."""


def chat_body(
    vendor: Vendor, messages: list[dict[str, Any]], model: str, fields: Mapping[str, Any], *, drop: bool
) -> dict[str, Any]:
    """The body of a chat completion.

    Args:
        vendor: whose.
        messages: as the client sent them.
        model: the vendor's name for the model.
        fields: the request's others.
        drop: leave out what the vendor does not have.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    rules = vendor.chat
    if vendor.roles or rules.refused_in_messages:
        messages = [_message(vendor, message, f"messages[{index}]", drop) for index, message in enumerate(messages)]
    return {"model": model, "messages": messages, **shaped(rules, fields, drop=drop)}


def stream_body(vendor: Vendor, body: dict[str, Any]) -> dict[str, Any]:
    """The same for a stream: usage is asked for wherever it can be."""
    options = body.pop("stream_options", None) or {}
    if vendor.stream_usage:
        return {**body, "stream": True, "stream_options": {**options, "include_usage": True}}
    return {**body, "stream": True}


def shaped(rules: FieldRules, fields: Mapping[str, Any], *, drop: bool) -> dict[str, Any]:
    """A request's fields as the vendor has them.

    Raises:
        GatewayError: ``unsupported_parameter``: a field or a value that it does not have, or one thing said twice.
    """
    shaped: dict[str, Any] = {}
    for name, value in fields.items():
        if name in rules.refused:
            _refuse(name, value, drop)
            continue
        own = rules.renamed.get(name, name)
        if own in shaped:
            raise unsupported(name, f"says the same as another field: both are '{own}' at this provider")
        shaped[own] = value
    for path, values in rules.refused_values.items():
        _refuse_value(shaped, path, values, drop)
    return shaped


def _refuse(param: str, value: Any, drop: bool) -> None:
    if not drop and _has_effect(param.rpartition(".")[2], value):
        raise unsupported(param, "is not known to this provider")


def _refuse_value(fields: dict[str, Any], path: str, values: list[Any], drop: bool) -> None:
    name, _, member = path.partition(".")
    holder = fields.get(name)
    if isinstance(holder, dict) and holder.get(member) in values:
        if not drop:
            raise unsupported(path, f"can't be '{holder[member]}' at this provider")
        del fields[name]


def _has_effect(name: str, value: Any) -> bool:
    return value not in (None, [], {}, "") and value not in _NO_EFFECT.get(name, ())


def _message(vendor: Vendor, message: dict[str, Any], path: str, drop: bool) -> dict[str, Any]:
    refused = vendor.chat.refused_in_messages & message.keys()
    for name in refused:
        _refuse(f"{path}.{name}", message[name], drop)
    role = message.get("role")
    if not refused and role not in vendor.roles:
        return message
    kept = {name: value for name, value in message.items() if name not in refused}
    return {**kept, "role": vendor.roles.get(str(role), role)}


def vendor_usage(rules: UsageRules, members: Mapping[str, Any]) -> Usage | None:
    """Tokens by kind out of a completion or a chunk, as ``chat_usage`` has them."""
    usage = members.get("usage")
    if not isinstance(usage, dict) and rules.under:
        holder = members.get(rules.under)
        usage = holder.get("usage") if isinstance(holder, dict) else None
    if not isinstance(usage, dict):
        return None
    return chat_usage({**members, "usage": _as_openai(rules, usage)})


def _as_openai(rules: UsageRules, usage: dict[str, Any]) -> dict[str, Any]:
    cached = usage.get(rules.cached)
    if is_count(cached):
        details = usage.get("prompt_tokens_details")
        known = details if isinstance(details, dict) else {}
        usage = {**usage, "prompt_tokens_details": {"cached_tokens": cached, **known}}
    if rules.reasoning_apart:
        usage = {**usage, "completion_tokens": _with_reasoning(usage)}
    return usage


def _with_reasoning(usage: Mapping[str, Any]) -> Any:
    """Completion tokens, reasoning included: added where the total says that it is not in there yet."""
    prompt, completion, total = (usage.get(f"{kind}_tokens") for kind in ("prompt", "completion", "total"))
    if not (is_count(prompt) and is_count(completion)):
        return completion
    together = completion + detail(usage.get("completion_tokens_details"), "reasoning_tokens")
    return completion if is_count(total) and total < prompt + together else together
