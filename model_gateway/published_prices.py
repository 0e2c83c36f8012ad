"""Prices as vendors publish them, out of the ``genai-prices`` package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from model_gateway.money import Price, Rates

_KINDS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "output_reasoning_mtok": "reasoning",
    "cache_audio_read_mtok": "cached_audio",
}
"""The package's name for a price per million tokens, and the kind of token."""

_TOOLS: Final = frozenset(
    {"web_searches_kcount", "storage_searches_kcount", "social_searches_kcount", "code_executions_kcount"}
)
"""Prices of tools that run at the vendor, which are refused in a request."""

_PUBLISHERS: Final = {"vertex": "google", "xai": "x-ai"}
"""Providers whose prices the package has under another name."""

_MILLION_DIGITS: Final = 6
_NO_TOKENS_OUT: Final = "embed"


def published_price(provider: str, engine: str) -> Price | None:
    """The price of a vendor's model today; None where it is not known, or is more than a price by kind of token.

    A price that changes with the hour is taken at its dearest.
    """
    prices = [_by_kind(published, engine) for published in _prices_today(provider, engine)]
    known = [price for price in prices if price is not None]
    dearest = max(known, key=lambda price: (price.rates.input, price.rates.output), default=None)
    return dearest if len(known) == len(prices) else None


def _prices_today(provider: str, engine: str) -> Iterator[Mapping[str, Any]]:
    """The package's prices by name, for each hour of this day; one where all are alike."""
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - 0.1 s, only for rows without a price

    vendor = _PUBLISHERS.get(provider, provider)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for hour in range(24):
        when = midnight + timedelta(hours=hour)
        try:
            found = calc_price(Usage(), model_ref=engine, provider_id=vendor, genai_request_timestamp=when)
        except LookupError:
            return
        if found.provider.id != vendor:  # it takes names that only resemble a vendor's
            return
        yield {name: price for name, price in vars(found.model_price).items() if price is not None}
        if not isinstance(found.model.prices, list):
            return


def _by_kind(published: Mapping[str, Any], engine: str) -> Price | None:
    if published.keys() - _KINDS.keys() - _TOOLS:
        return None
    kinds = {_KINDS[name]: price for name, price in published.items() if name in _KINDS}
    if _NO_TOKENS_OUT in engine:
        kinds.setdefault("output", Decimal(0))  # vectors are not sold by the token
    if not {"input", "output"} <= kinds.keys():
        return None
    starts = sorted({tier.start for price in kinds.values() for tier in getattr(price, "tiers", ())})
    return Price(_rates(kinds, 0), tuple((start, _rates(kinds, start)) for start in starts))


def _rates(kinds: Mapping[str, Any], start: int) -> Rates:
    """The rates past ``start`` input tokens."""
    return Rates.per_token_usd(**{kind: _at(price, start) for kind, price in kinds.items()})


def _at(price: Any, start: int) -> Decimal:
    """USD per token past ``start`` input tokens."""
    if isinstance(price, Decimal):
        return price.scaleb(-_MILLION_DIGITS)
    found: Decimal = price.base
    for tier in sorted(price.tiers, key=lambda each: each.start):
        if tier.start <= start:
            found = tier.price
    return found.scaleb(-_MILLION_DIGITS)
