"""Money in integer nano-dollars (1 USD = 1,000,000,000), prices as decimals, one rounding per request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final

from model_gateway.usage import (
    TOKEN_KINDS,
    USUAL_TIERS,
    Usage,
    detail,
    embedding_usage,
    is_count,
    openai_from_usage,
    usage_from_openai,
)

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT_USD: Final = 9_000_000
"""The largest limit: below 2**53 nano-dollars, so that a double in a Lua script compares it exactly."""

AUTO: Final = "auto"
"""The tier of a request that leaves it to the account's own settings, by saying so or by saying nothing."""

_NANO_DIGITS: Final = 9
_MAX_DECIMALS: Final = 60
_MAX_WHOLE: Final = 30
"""Digits of a rate after and before the point: enough for any price, and few enough for ``_EXACT``."""

_EXACT: Final = Context(prec=500)
"""In which nothing is rounded: the usual context keeps 28 digits, and a price times a count may have more."""

_TIER: Final = re.compile(r"[A-Za-z0-9._\-]{1,64}")


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
    cached_audio: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a finite, non-negative number, or has too many digits."""
        for value in self.given().values():
            _check_amount("a price", value)

    @classmethod
    def per_token_usd(cls, **usd: Decimal | None) -> Rates:
        """From US dollars per token, as in ``models.yaml``."""
        return cls(**{kind: value.scaleb(_NANO_DIGITS, _EXACT) for kind, value in usd.items() if value is not None})

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
        """What ``usage`` costs in nano-dollars, as exact as the decimal context is.

        Parts never count for more than their whole; where they overlap, the dearest counts.
        """
        return _split(usage.input, self.input, self._parts_in(usage)) + _split(
            usage.output, self.output, self._parts_out(usage)
        )

    def _parts_in(self, usage: Usage) -> Iterable[tuple[int, Decimal]]:
        long = min(usage.cache_write_1h, usage.cache_write)
        both = min(usage.cached_audio, usage.cached, usage.audio_input)
        write, cached = _or(self.cache_write, self.input), _or(self.cached, self.input)
        return (
            (usage.cached - both, cached),
            (both, _or(self.cached_audio, _or(self.audio_input, cached))),
            (usage.audio_input - both, _or(self.audio_input, self.input)),
            (long, _or(self.cache_write_1h, write)),
            (usage.cache_write - long, write),
            (usage.image_input, _or(self.image_input, self.input)),
        )

    def _parts_out(self, usage: Usage) -> Iterable[tuple[int, Decimal]]:
        return (
            (usage.reasoning, _or(self.reasoning, self.output)),
            (usage.audio_output, _or(self.audio_output, self.output)),
            (usage.image_output, _or(self.image_output, self.output)),
        )

    @property
    def dearest_input(self) -> Decimal:
        """The most that an input token can cost."""
        kinds = (self.cached, self.cache_write, self.cache_write_1h, self.audio_input, self.image_input)
        return max([self.input, *(value for value in (*kinds, self.cached_audio) if value is not None)])

    @property
    def dearest_output(self) -> Decimal:
        """The most that an output token can cost."""
        kinds = (self.reasoning, self.audio_output, self.image_output)
        return max([self.output, *(value for value in kinds if value is not None)])


def _check_amount(what: str, value: Decimal) -> None:
    if not value.is_finite() or value < 0:
        raise ValueError(f"{what} must be a finite number of at least 0, not {value}")
    if value.adjusted() >= _MAX_WHOLE or -int(value.as_tuple().exponent) > _MAX_DECIMALS:
        raise ValueError(f"{what} must have at most {_MAX_WHOLE} digits before the point and {_MAX_DECIMALS} after it")


def _or(rate: Decimal | None, whole: Decimal) -> Decimal:
    return whole if rate is None else rate


def _split(total: int, rate: Decimal, parts: Iterable[tuple[int, Decimal]]) -> Decimal:
    """Parts at their own rates, the dearest first; what is left at the whole's."""
    cost, left = Decimal(0), total
    present = [part for part in parts if part[0]]
    for count, own in sorted(present, key=lambda part: part[1], reverse=True):
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
        tiers: service tiers, each a factor on every rate. That of ``auto`` is the most that a request can cost which
            leaves the tier to the account's own settings.
    """

    rates: Rates
    long_context: tuple[tuple[int, Rates], ...] = ()
    tiers: Mapping[str, Decimal] = field(default_factory=dict)
    _text: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Refuse what could not be written down or is said twice; then write it down once, as it stands in events."""
        steps = [above for above, _ in self.long_context]
        if steps != sorted(set(steps)):
            raise ValueError("long-context thresholds must ascend")
        for name, factor in self.tiers.items():
            if not _TIER.fullmatch(name) or name in USUAL_TIERS:
                raise ValueError(f"{name!r} can't be the name of a service tier with a price of its own")
            _check_amount(f"the factor of the service tier {name!r}", factor)
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
        """What ``usage`` costs in nano-dollars, rounded half-even once.

        The tier that answered decides; one that has no factor costs as the usual one.
        """
        rates = self.rates
        for above, step in self.long_context:
            if usage.input > above:
                rates = step
        with localcontext(_EXACT):
            exact = rates.cost(usage) * self.tiers.get(usage.tier, Decimal(1))
        return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))

    def reserve(self, input_bound: int, output_bound: int, choices: int, tier: str = "") -> int:
        """The most that a call can cost in nano-dollars, rounded up.

        Every usage of at most ``choices`` times the bounds is covered, below a long-context threshold as above it. A
        tier that was asked for may turn out not to be the one that answers: the dearer of the two counts. Where none
        was asked for the factor of ``auto`` counts, if there is one.
        """
        input_bound, output_bound = choices * input_bound, choices * output_bound
        reachable = [self.rates, *(step for above, step in self.long_context if input_bound > above)]
        dearest_input = max(rates.dearest_input for rates in reachable)
        dearest_output = max(rates.dearest_output for rates in reachable)
        factor = max(Decimal(1), self.tiers.get(tier or AUTO, Decimal(1)))
        with localcontext(_EXACT):
            exact = factor * (input_bound * dearest_input + output_bound * dearest_output)
        return int(exact.to_integral_value(rounding=ROUND_CEILING))


def number(value: Decimal) -> str:
    """A decimal without exponent or trailing zeros: ``2.500E+3`` becomes ``2500``."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


FREE: Final = Price(Rates(Decimal(0), Decimal(0)))


def nano_from_usd(usd: Decimal) -> int:
    """Whole nano-dollars in ``usd``, rounded half-even."""
    return int(usd.scaleb(_NANO_DIGITS, _EXACT).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_text(nano: int) -> str:
    """Exact dollars as decimal text: 2_500 becomes ``0.0000025``."""
    return number(Decimal(nano).scaleb(-_NANO_DIGITS, _EXACT))


def usd_number(nano: int) -> float:
    """Dollars as a JSON number, for people; the exact figure stands beside it in nano-dollars."""
    return nano / NANO


__all__ = [
    "AUTO",
    "FREE",
    "MAX_LIMIT_USD",
    "NANO",
    "TOKEN_KINDS",
    "Price",
    "Rates",
    "Usage",
    "detail",
    "embedding_usage",
    "is_count",
    "nano_from_usd",
    "number",
    "openai_from_usage",
    "usage_from_openai",
    "usd_number",
    "usd_text",
]
