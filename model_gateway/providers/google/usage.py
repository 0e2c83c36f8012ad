"""What an answer cost, out of ``usageMetadata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.money import Usage, detail, is_count, openai_from_usage
from model_gateway.providers.google.terms import JSON

_TRAFFIC: Final[Mapping[str, str]] = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
}
"""The tier that answered, in Vertex AI's words (``trafficType``)."""


def usage_of(usage: Any) -> Usage | None:
    """Tokens by kind; None where the counts are missing or make no sense.

    ``promptTokenCount`` holds what was read from the cache, ``candidatesTokenCount`` leaves thoughts out. A count that
    is 0 is missing. Images that came from the cache count as cached alone; audio that did has a price of its own.
    """
    if not isinstance(usage, dict) or not is_count(usage.get("promptTokenCount")):
        return None
    if not is_count(usage.get("candidatesTokenCount", 0)) or not is_count(usage.get("thoughtsTokenCount", 0)):
        return None
    thoughts = detail(usage, "thoughtsTokenCount")
    asked, cached = usage.get("promptTokensDetails"), usage.get("cacheTokensDetails")
    told = usage.get("candidatesTokensDetails")
    return Usage(
        input=usage["promptTokenCount"] + detail(usage, "toolUsePromptTokenCount"),
        output=detail(usage, "candidatesTokenCount") + thoughts,
        cached=detail(usage, "cachedContentTokenCount"),
        reasoning=thoughts,
        audio_input=_modality(asked, "AUDIO"),
        cached_audio=_modality(cached, "AUDIO"),
        image_input=max(0, _modality(asked, "IMAGE") - _modality(cached, "IMAGE")),
        audio_output=_modality(told, "AUDIO"),
        image_output=_modality(told, "IMAGE"),
    )


def _modality(details: Any, name: str) -> int:
    """Tokens of a modality out of a list of counts."""
    counts = details if isinstance(details, list) else ()
    return sum(
        detail(count, "tokenCount") for count in counts if isinstance(count, dict) and count.get("modality") == name
    )


def tier_of(usage: Any, asked: str) -> str:
    """The tier that answered, if the answer tells; else the one that was asked for."""
    if not isinstance(usage, dict):
        return asked
    told = usage.get("serviceTier") or _TRAFFIC.get(str(usage.get("trafficType")))
    return told.lower() if isinstance(told, str) else asked


def chat_members(usage: Any, asked_tier: str) -> JSON:
    """The members of a chat completion that tell what it cost; none where it is not known."""
    found = usage_of(usage)
    if found is None:
        return {}
    tier = tier_of(usage, asked_tier)
    return {"usage": openai_from_usage(found)} | ({"service_tier": tier} if tier else {})
