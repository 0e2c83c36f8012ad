"""Money in integer nano-dollars (1 USD = 1,000,000,000), prices as decimals, one rounding per request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any, Final, TypeGuard

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT_USD: Final = 9_000_000
"""The largest limit: below 2**53 nano-dollars, so that a double in a Lua script compares it exactly."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind.

    Of ``input`` are part: ``cached``, ``cache_write``, ``audio_input``, ``image_input``. Of ``cache_write`` is part:
    ``cache_write_1h``. Of ``output`` are part: ``reasoning``, ``audio_output``, ``image_output``.

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
    tier: str = ""

    def counts(self) -> dict[str, int]:
        """Tokens by kind, without the tier."""
        return {name: getattr(self, name) for name in TOKEN_KINDS}


TOKEN_KINDS: Final = tuple(item.name for item in fields(Usage) if item.name != "tier")


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per token by kind; a kind without a rate of its own costs what its whole does."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_input: Decimal | None = None
    image_output: Decimal | None = None
    reasoning: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a finite, non-negative number."""
        for value in self.given().values():
            if not value.is_finite() or value < 0:
                raise ValueError(f"a price must be a finite number of at least 0, not {value}")

    @classmethod
    def per_token_usd(cls, **usd: Decimal | None) -> Rates:
        """From US dollars per token, as in ``models.yaml``."""
        return cls(**{kind: value * NANO for kind, value in usd.items() if value is not None})

    @classmethod
    def parse(cls, text: str) -> Rates:
        """The inverse of ``str``."""
        parts = dict(part.split("=", 1) for part in text.split(","))
        return cls(**{kind: Decimal(value) for kind, value in parts.items()})

    def __str__(self) -> str:
        return ",".join(f"{kind}={number(value)}" for kind, value in self.given().items())

    def given(self) -> dict[str, Decimal]:
        """The rates that are set, by kind."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {kind: value for kind, value in values.items() if value is not None}

    def cost(self, usage: Usage) -> Decimal:
        """What ``usage`` costs in nano-dollars, exactly. Parts never count for more than their whole."""
        long = min(usage.cache_write_1h, usage.cache_write)
        write = _or(self.cache_write, self.input)
        parts_in = (
            (usage.cached, _or(self.cached, self.input)),
            (long, _or(self.cache_write_1h, write)),
            (usage.cache_write - long, write),
            (usage.audio_input, _or(self.audio_input, self.input)),
            (usage.image_input, _or(self.image_input, self.input)),
        )
        parts_out = (
            (usage.reasoning, _or(self.reasoning, self.output)),
            (usage.audio_output, _or(self.audio_output, self.output)),
            (usage.image_output, _or(self.image_output, self.output)),
        )
        return _split(usage.input, self.input, parts_in) + _split(usage.output, self.output, parts_out)

    @property
    def dearest_input(self) -> Decimal:
        """The most that an input token can cost."""
        kinds = (self.cached, self.cache_write, self.cache_write_1h, self.audio_input, self.image_input)
        return max([self.input, *(value for value in kinds if value is not None)])

    @property
    def dearest_output(self) -> Decimal:
        """The most that an output token can cost."""
        kinds = (self.reasoning, self.audio_output, self.image_output)
        return max([self.output, *(value for value in kinds if value is not None)])


def _or(rate: Decimal | None, whole: Decimal) -> Decimal:
    return whole if rate is None else rate


def _split(total: int, rate: Decimal, parts: tuple[tuple[int, Decimal], ...]) -> Decimal:
    """Parts at their own rates, what is left at the whole's."""
    cost, left = Decimal(0), total
    for count, own in parts:
        if count:
            counted = min(count, left)
            cost += counted * own
            left -= counted
    return cost + left * rate


@dataclass(frozen=True, slots=True)
class Price:
    """What a deployment charges.

    Attributes:
        rates: the usual ones.
        long_context: by input tokens: past so many, these rates hold for the whole request. Ascending.
        tiers: service tiers that may be asked for, each a factor on every rate.
    """

    rates: Rates
    long_context: tuple[tuple[int, Rates], ...] = ()
    tiers: Mapping[str, Decimal] = field(default_factory=dict)
    _text: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Write the price down once, as it stands in events."""
        parts = [str(self.rates)]
        parts += [f"above={above},{rates}" for above, rates in self.long_context]
        parts += [f"tier={name},factor={number(factor)}" for name, factor in self.tiers.items()]
        object.__setattr__(self, "_text", ";".join(parts))

    @classmethod
    def per_token_usd(cls, input_usd: Decimal, output_usd: Decimal, cached_usd: Decimal | None = None) -> Price:
        """From US dollars per token."""
        return cls(Rates.per_token_usd(input=input_usd, output=output_usd, cached=cached_usd))

    @classmethod
    def parse(cls, text: str) -> Price:
        """The inverse of ``str``: how an audit reads the price out of an event."""
        first, *rest = text.split(";")
        steps, tiers = [], {}
        for part in rest:
            head, _, tail = part.partition(",")
            if head.startswith("above="):
                steps.append((int(head.removeprefix("above=")), Rates.parse(tail)))
            else:
                tiers[head.removeprefix("tier=")] = Decimal(tail.removeprefix("factor="))
        return cls(Rates.parse(first), tuple(steps), tiers)

    def __str__(self) -> str:
        """As it stands in events, in nano-dollars per token.

        ``input=2500,output=10000,cached=1250;above=200000,input=5000,output=15000;tier=flex,factor=0.5``
        """
        return self._text

    def cost(self, usage: Usage) -> int:
        """What ``usage`` costs in nano-dollars, rounded half-even once."""
        rates = self.rates
        for above, step in self.long_context:
            if usage.input > above:
                rates = step
        exact = rates.cost(usage) * self.tiers.get(usage.tier, Decimal(1))
        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))

    def reserve(self, input_bound: int, output_bound: int, choices: int, tier: str = "") -> int:
        """The most that a call can cost in nano-dollars, rounded up.

        A tier that was asked for may turn out not to be the one that answers: the dearer of the two counts.
        """
        reachable = [self.rates, *(step for above, step in self.long_context if input_bound > above)]
        dearest_input = max(rates.dearest_input for rates in reachable)
        dearest_output = max(rates.dearest_output for rates in reachable)
        factor = max(Decimal(1), self.tiers.get(tier, Decimal(1)))
        exact = factor * choices * (input_bound * dearest_input + output_bound * dearest_output)
        return int(exact.to_integral_value(rounding=ROUND_CEILING))


def number(value: Decimal) -> str:
    """A decimal without exponent or trailing zeros: ``2.500E+3`` becomes ``2500``."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


FREE: Final = Price(Rates(Decimal(0), Decimal(0)))


def nano_from_usd(usd: Decimal) -> int:
    """Whole nano-dollars in ``usd``, rounded half-even."""
    return int((usd * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_text(nano: int) -> str:
    """Exact dollars as decimal text: 2_500 becomes ``0.0000025``."""
    return number(Decimal(nano) / NANO)


def usd_number(nano: int) -> float:
    """Dollars as a JSON number, for people; the exact figure stands beside it in nano-dollars."""
    return nano / NANO


_FREE_TIERS: Final = frozenset({"", "auto", "default", "standard"})


def usage_from_openai(usage: Any, tier: Any = "") -> Usage | None:
    """Tokens by kind out of OpenAI's ``usage`` object; None where it is missing or makes no sense.

    Args:
        usage: the object. ``prompt_tokens_details.cache_write_tokens`` and ``cache_write_1h_tokens`` are the
            gateway's own names for what OpenAI does not have.
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
        reasoning=detail(after, "reasoning_tokens"),
        audio_output=detail(after, "audio_tokens"),
        image_output=detail(after, "image_tokens"),
        tier=tier if isinstance(tier, str) and tier not in _FREE_TIERS else "",
    )


def openai_from_usage(usage: Usage) -> dict[str, Any]:
    """The inverse of ``usage_from_openai``: OpenAI's ``usage`` object, for providers that report in other words."""
    before = {
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "audio_tokens": usage.audio_input,
        "image_tokens": usage.image_input,
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
