"""A response around its output: what was asked, and what it cost."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from model_gateway.money import Usage

JSON = dict[str, Any]

_ASKED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Fields that the response tells again, with what holds where the request says nothing.

Where that is the provider's choice it is null.
"""

_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer was cut, by a chat's finish reason; by any other it was completed."""


def new_response(payload: Mapping[str, Any], model: str, created: int) -> JSON:
    """A response that has just begun.

    Args:
        payload: the request's body.
        model: the name that the response gives.
        created: seconds since the epoch.
    """
    asked = {name: default if payload.get(name) is None else payload[name] for name, default in _ASKED.items()}
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        **asked,
        "reasoning": {"effort": None, "summary": None} | (payload.get("reasoning") or {}),
        "service_tier": payload.get("service_tier") or "auto",
        "store": False,
        "text": {"format": {"type": "text"}} | _set(payload.get("text")),
        "tools": [_tool(tool) for tool in payload.get("tools") or ()],
        "usage": None,
    }


def ended(response: JSON, output: list[JSON], finish_reason: str, completed: int) -> JSON:
    """The same at its end, without usage.

    Args:
        response: as it began.
        output: its items.
        finish_reason: a chat's.
        completed: seconds since the epoch.
    """
    reason = _INCOMPLETE.get(finish_reason)
    end = {"incomplete_details": {"reason": reason}} if reason else {"completed_at": completed}
    return {**response, **end, "status": status_of(finish_reason), "output": output}


def status_of(finish_reason: str) -> str:
    """``completed`` or ``incomplete``."""
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def usage_of(usage: Usage) -> JSON:
    """Tokens, as a response tells them."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _set(members: Mapping[str, Any] | None) -> JSON:
    return {name: value for name, value in (members or {}).items() if value is not None}


def _tool(tool: Mapping[str, Any]) -> JSON:
    """A tool as it was asked for; a chat holds to a schema only where that is said."""
    return {"parameters": None, "strict": False, **_set(tool)} if tool["type"] == "function" else dict(tool)
