"""What a message cost, out of Anthropic's ``usage`` object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_gateway.money import Usage, detail, is_count, openai_from_usage

JSON = dict[str, Any]


def usage_of(usage: Mapping[str, Any]) -> Usage | None:
    """Tokens by kind; None where the counts are missing or make no sense.

    ``input_tokens`` leaves out what was read from the cache or written to it; all three are input.
    """
    fresh, output = usage.get("input_tokens"), usage.get("output_tokens")
    if not (is_count(fresh) and is_count(output)):
        return None
    read, written = detail(usage, "cache_read_input_tokens"), detail(usage, "cache_creation_input_tokens")
    tier = usage.get("service_tier")
    return Usage(
        input=fresh + read + written,
        output=output,
        cached=read,
        cache_write=written,
        cache_write_1h=detail(usage.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning=detail(usage.get("output_tokens_details"), "thinking_tokens"),
        tier=tier if isinstance(tier, str) else "",
    )


def chat_members(usage: Mapping[str, Any]) -> JSON:
    """The members of a chat completion that tell what it cost; none where it is not known."""
    found = usage_of(usage)
    if found is None:
        return {}
    return {"usage": openai_from_usage(found)} | ({"service_tier": found.tier} if found.tier else {})
