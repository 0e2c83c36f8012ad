"""What a message cost, in Anthropic's words and in the gateway's.

Anthropic's ``input_tokens`` leaves out what was read from the prompt cache or written to it; all three are input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.money import Usage, detail, is_count

_PRICED_TIERS: Final = frozenset({"priority", "batch"})


def usage_from_messages(usage: Mapping[str, Any]) -> Usage | None:
    """Tokens by kind out of a message's ``usage``; None where the counts are missing or make no sense."""
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
        tier=tier if isinstance(tier, str) and tier in _PRICED_TIERS else "",
    )


def messages_from_usage(usage: Usage | None) -> dict[str, Any]:
    """A message's ``usage`` object; zeros where the provider did not say, as the SDK's types have no unknown."""
    known = usage or Usage()
    members: dict[str, Any] = {
        "input_tokens": max(known.input - known.cached - known.cache_write, 0),
        "cache_creation_input_tokens": known.cache_write,
        "cache_read_input_tokens": known.cached,
        "output_tokens": known.output,
    }
    if known.reasoning:
        members["output_tokens_details"] = {"thinking_tokens": known.reasoning}
    return members
