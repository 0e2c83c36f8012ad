"""What a message cost, in a chat completion's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_gateway.dialects.messages.usage import usage_from_messages
from model_gateway.money import openai_from_usage

JSON = dict[str, Any]


def chat_members(usage: Mapping[str, Any]) -> JSON:
    """The members of a chat completion that tell what it cost; none where it is not known."""
    found = usage_from_messages(usage)
    if found is None:
        return {}
    tier = usage.get("service_tier")
    return {"usage": openai_from_usage(found)} | ({"service_tier": tier} if isinstance(tier, str) else {})
