"""What a model costs: the row's own prices, else those of the ``genai-prices`` package."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from model_gateway.money import FREE, Price
from model_gateway.settings import ConfigError, GatewayConfig, ModelRow

_MILLION = Decimal(1_000_000)


def price_of(name: str, row: ModelRow) -> Price | None:
    """The price of a row's model, or None where nobody knows it."""
    if row.free:
        return FREE
    if row.input_cost is not None and row.output_cost is not None:
        return Price.per_token_usd(row.input_cost, row.output_cost, row.cached_input_cost)
    # A compatible server sets its own prices: the vendor's published ones are not its.
    return None if row.api_base else _published(row.provider, row.engine or name)


def _published(provider: str, engine: str) -> Price | None:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - 0.1 s, only for rows without a price

    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=engine, provider_id=provider)
    except LookupError:
        return None
    prices = found.model_price
    input_price, output_price = _flat(prices.input_mtok), _flat(prices.output_mtok)
    if input_price is None or output_price is None:
        return None
    return Price.per_token_usd(input_price, output_price, _flat(prices.cache_read_mtok))


def _flat(price: Any) -> Decimal | None:
    """USD per token; None for a price with tiers, which one number can't stand for."""
    return price / _MILLION if isinstance(price, Decimal) else None


def load_prices(config: GatewayConfig) -> Mapping[str, Price]:
    """Every model's price.

    Raises:
        ConfigError: models without one.
    """
    prices = {name: price_of(name, row) for name, row in config.models.items()}
    problems = [f"models.{name}: {problem}" for name, row in config.models.items() for problem in _contradictions(row)]
    problems += [
        f"models.{name}: no price; set input_cost and output_cost, or free: true"
        for name, price in prices.items()
        if price is None
    ]
    if problems:
        raise ConfigError("config", problems)
    return {name: price for name, price in prices.items() if price is not None}


def _contradictions(row: ModelRow) -> list[str]:
    """Price settings that do not go together."""
    given = [cost is not None for cost in (row.input_cost, row.output_cost, row.cached_input_cost)]
    found = []
    if row.free and any(given):
        found.append("free: true stands beside a price")
    if given[0] != given[1]:
        found.append("set both input_cost and output_cost")
    if given[2] and not given[0]:
        found.append("cached_input_cost needs input_cost and output_cost")
    return found
