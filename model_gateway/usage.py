"""Tokens by kind, and how OpenAI's ``usage`` objects tell them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, TypeGuard


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind.

    Of ``input`` are part: ``cached``, ``cache_write``, ``audio_input``, ``image_input``. Of ``cache_write`` is part:
    ``cache_write_1h``. Of both ``cached`` and ``audio_input`` is part: ``cached_audio``. Of ``output`` are part:
    ``reasoning``, ``audio_output``, ``image_output``.

    Attributes:
        tier: the service tier that answered, where it changes the price; else empty.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    cached_audio: int = 0
    tier: str = ""

    def counts(self) -> dict[str, int]:
        """Tokens by kind, without the tier."""
        return {name: getattr(self, name) for name in TOKEN_KINDS}


TOKEN_KINDS: Final = tuple(item.name for item in fields(Usage) if item.name != "tier")

USUAL_TIERS: Final = frozenset({"default", "standard"})
"""What vendors call the tier that the price is the price of."""

_UNTOLD: Final = USUAL_TIERS | {"auto"}


def usage_from_openai(usage: Any, tier: Any = "") -> Usage | None:
    """Tokens by kind out of OpenAI's ``usage`` object; None where it is missing or makes no sense.

    Args:
        usage: the object. OpenAI's own are ``cached_tokens``, ``cache_write_tokens``, ``audio_tokens`` and
            ``image_tokens`` of the prompt, ``audio_tokens`` and ``reasoning_tokens`` of the completion; the gateway's
            own, for what others tell, are the prompt's ``cache_write_1h_tokens`` and ``cached_audio_tokens`` and the
            completion's ``image_tokens``.
        tier: the reply's ``service_tier``.
    """
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (is_count(prompt) and is_count(completion)):
        return None
    before, after = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        input=prompt,
        output=completion,
        cached=detail(before, "cached_tokens"),
        cache_write=detail(before, "cache_write_tokens"),
        cache_write_1h=detail(before, "cache_write_1h_tokens"),
        audio_input=detail(before, "audio_tokens"),
        image_input=detail(before, "image_tokens"),
        cached_audio=detail(before, "cached_audio_tokens"),
        reasoning=detail(after, "reasoning_tokens"),
        audio_output=detail(after, "audio_tokens"),
        image_output=detail(after, "image_tokens"),
        tier=tier if isinstance(tier, str) and tier not in _UNTOLD else "",
    )


def openai_from_usage(usage: Usage) -> dict[str, Any]:
    """The inverse of ``usage_from_openai``: OpenAI's ``usage`` object, for providers that report in other words."""
    before = {
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "audio_tokens": usage.audio_input,
        "image_tokens": usage.image_input,
        "cached_audio_tokens": usage.cached_audio,
    }
    after = {
        "reasoning_tokens": usage.reasoning,
        "audio_tokens": usage.audio_output,
        "image_tokens": usage.image_output,
    }
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached} | {name: n for name, n in before.items() if n},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning}
        | {name: n for name, n in after.items() if n},
    }


def embedding_usage(usage: Any) -> Usage | None:
    """Tokens out of the ``usage`` object of embeddings; None where it is missing or makes no sense."""
    prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Usage(input=prompt) if is_count(prompt) else None


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value out of a provider's JSON can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def detail(details: Any, name: str) -> int:
    """One count out of an object of counts; 0 where it is missing or makes no sense."""
    value = details.get(name) if isinstance(details, dict) else None
    return value if is_count(value) else 0
