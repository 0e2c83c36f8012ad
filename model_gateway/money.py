"""Money in integer nano-dollars (1 USD = 1,000,000,000), prices as decimals, one rounding per request."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any, Final, TypeGuard

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT_USD: Final = 9_000_000
"""The largest limit: below 2**53 nano-dollars, so that a double in a Lua script compares it exactly."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind. ``cached`` is part of ``input``, ``reasoning`` is part of ``output``."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token; fractions are allowed, floats are not."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    _text: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Refuse what is not a finite, non-negative number, and write the price down once."""
        for value in (self.input, self.output, self.cached):
            if value is not None and (not value.is_finite() or value < 0):
                raise ValueError(f"a price must be a finite number of at least 0, not {value}")
        parts = {"input": self.input, "output": self.output, "cached": self.cached}
        text = ",".join(f"{kind}={number(value)}" for kind, value in parts.items() if value is not None)
        object.__setattr__(self, "_text", text)

    @classmethod
    def per_token_usd(cls, input_usd: Decimal, output_usd: Decimal, cached_usd: Decimal | None = None) -> Price:
        """From US dollars per token, as in ``models.yaml``."""
        cached = None if cached_usd is None else cached_usd * NANO
        return cls(input_usd * NANO, output_usd * NANO, cached)

    @classmethod
    def parse(cls, text: str) -> Price:
        """The inverse of ``str``: how an audit reads the price out of an event."""
        parts = dict(part.split("=", 1) for part in text.split(","))
        return cls(**{kind: Decimal(value) for kind, value in parts.items()})

    def __str__(self) -> str:
        """As it stands in events: ``input=2500,output=10000,cached=1250`` (nano-dollars per token)."""
        return self._text

    def cost(self, usage: Usage) -> int:
        """What ``usage`` costs in nano-dollars, rounded half-even once."""
        cached_price = self.input if self.cached is None else self.cached
        cached = min(usage.cached, usage.input)
        exact = (usage.input - cached) * self.input + cached * cached_price + usage.output * self.output
        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))

    def reserve(self, input_bound: int, output_bound: int, choices: int) -> int:
        """The most that a call can cost in nano-dollars, rounded up."""
        dearest = self.input if self.cached is None else max(self.input, self.cached)
        exact = choices * (input_bound * dearest + output_bound * self.output)
        return int(exact.to_integral_value(rounding=ROUND_CEILING))


def number(value: Decimal) -> str:
    """A decimal without exponent or trailing zeros: ``2.500E+3`` becomes ``2500``."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


FREE: Final = Price(Decimal(0), Decimal(0))


def nano_from_usd(usd: Decimal) -> int:
    """Whole nano-dollars in ``usd``, rounded half-even."""
    return int((usd * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_text(nano: int) -> str:
    """Exact dollars as decimal text: 2_500 becomes ``0.0000025``."""
    return number(Decimal(nano) / NANO)


def usd_number(nano: int) -> float:
    """Dollars as a JSON number, for people; the exact figure stands beside it in nano-dollars."""
    return nano / NANO


def usage_from_openai(usage: Any) -> Usage | None:
    """Tokens by kind out of OpenAI's ``usage`` object; None where it is missing or makes no sense."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    return Usage(
        input=prompt,
        output=completion,
        cached=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        reasoning=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _detail(usage: dict[str, Any], group: str, name: str) -> int:
    details = usage.get(group)
    value = details.get(name) if isinstance(details, dict) else None
    return value if _is_count(value) else 0
