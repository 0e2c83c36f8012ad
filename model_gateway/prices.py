"""What a deployment costs: the row's own prices, else those of the ``genai-prices`` package."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from model_gateway.money import FREE, Price, Rates
from model_gateway.settings import ConfigError, DeploymentRow, GatewayConfig, LongContext, deployment_name

_MILLION: Final = Decimal(1_000_000)
_KINDS: Final = {
    "input": "input_cost",
    "output": "output_cost",
    "cached": "cached_input_cost",
    "cache_write": "cache_write_cost",
    "cache_write_1h": "cache_write_1h_cost",
    "audio_input": "audio_input_cost",
    "audio_output": "audio_output_cost",
    "image_input": "image_input_cost",
    "image_output": "image_output_cost",
    "reasoning": "reasoning_cost",
}
"""A kind of token, and the setting with its price."""

_PUBLISHED: Final = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
"""A kind of token, and the package's name for its price per million."""

_PUBLISHERS: Final = {"vertex": "google", "xai": "x-ai"}
"""Providers whose prices the package has under another name."""


def price_of(name: str, row: DeploymentRow) -> Price | None:
    """The price of a row's model, or None where nobody knows it.

    Args:
        name: the model's name, where the row has no ``engine``.
        row: the deployment.
    """
    if row.free:
        return FREE
    if row.input_cost is not None and row.output_cost is not None:
        steps = sorted(row.long_context, key=lambda step: step.above)
        return Price(_rates(row), tuple((step.above, _rates(step)) for step in steps), row.service_tiers)
    # A compatible server sets its own prices: the vendor's published ones are not its.
    return None if row.api_base else _published(row, row.engine or name)


def _rates(row: DeploymentRow | LongContext) -> Rates:
    return Rates.per_token_usd(**{kind: getattr(row, setting, None) for kind, setting in _KINDS.items()})


def _published(row: DeploymentRow, engine: str) -> Price | None:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - 0.1 s, only for rows without a price

    provider = _PUBLISHERS.get(row.provider, row.provider)
    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=engine, provider_id=provider)
    except LookupError:
        return None
    prices = {kind: getattr(found.model_price, field, None) for kind, field in _PUBLISHED.items()}
    starts = sorted({tier.start for price in prices.values() for tier in getattr(price, "tiers", ())})
    if prices["output"] is None and "embed" in engine:
        prices["output"] = Decimal(0)  # vectors are not sold by the token
    base = _published_rates(prices, 0)
    if base is None:
        return None
    steps = [(start, _published_rates(prices, start)) for start in starts]
    return Price(base, tuple((start, rates) for start, rates in steps if rates is not None), row.service_tiers)


def _published_rates(prices: Mapping[str, Any], start: int) -> Rates | None:
    """The rates from ``start`` input tokens on; None where input or output has none."""
    found = {kind: _at(price, start) for kind, price in prices.items()}
    if found["input"] is None or found["output"] is None:
        return None
    return Rates.per_token_usd(**found)


def _at(price: Any, start: int) -> Decimal | None:
    """USD per token from ``start`` input tokens on."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return price / _MILLION
    base: Decimal = price.base
    for tier in sorted(price.tiers, key=lambda found: found.start):
        if tier.start <= start:
            base = tier.price
    return base / _MILLION


def load_prices(config: GatewayConfig) -> Mapping[str, Price]:
    """Every deployment's price, by ``deployment_name``.

    Raises:
        ConfigError: deployments without one.
    """
    prices: dict[str, Price] = {}
    problems: list[str] = []
    for name, model in config.models.items():
        for deployment, row in model.rows():
            path = f"models.{name}.deployments.{deployment}" if deployment else f"models.{name}"
            problems += [f"{path}: {problem}" for problem in _contradictions(row)]
            price = price_of(name, row)
            if price is None:
                problems.append(f"{path}: no price; set input_cost and output_cost, or free: true")
            else:
                prices[deployment_name(name, deployment)] = price
    if problems:
        raise ConfigError("config", problems)
    return prices


def _contradictions(row: DeploymentRow) -> list[str]:
    """Price settings that do not go together."""
    given = {setting for setting in _KINDS.values() if getattr(row, setting) is not None}
    own = {"input_cost", "output_cost"}
    found = []
    if row.free and (given or row.long_context or row.service_tiers):
        found.append("free: true stands beside a price")
    if len(given & own) == 1:
        found.append("set both input_cost and output_cost")
    if not own <= given:
        found += [f"{setting} needs input_cost and output_cost" for setting in sorted(given - own)]
        if row.long_context:
            found.append("long_context needs input_cost and output_cost")
    thresholds = [step.above for step in row.long_context]
    if len(set(thresholds)) != len(thresholds):
        found.append("long_context: the same threshold stands twice")
    return found
