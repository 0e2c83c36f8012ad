"""What a deployment costs: the row's own prices, else those that the ``genai-prices`` package knows as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_gateway.money import FREE, Price, Rates
from model_gateway.published_prices import published_price
from model_gateway.settings import ConfigError, DeploymentRow, GatewayConfig, LongContext, deployment_name
from model_gateway.usage import USUAL_TIERS

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
    "cached_audio": "cached_audio_cost",
}
"""A kind of token, and the setting with its price."""


def price_of(name: str, row: DeploymentRow) -> Price | None:
    """The price of a row's model, or None where nobody knows it.

    Args:
        name: the model's name, where the row has no ``engine``.
        row: the deployment.

    Raises:
        ValueError: what the row says is no price.
    """
    if row.free:
        return FREE
    if row.input_cost is not None and row.output_cost is not None:
        steps = sorted(row.long_context, key=lambda step: step.above)
        return Price(_rates(row), tuple((step.above, _rates(step)) for step in steps), row.service_tiers)
    if row.api_base and not _is_vendors_own(row.provider):
        return None  # a compatible server sets its own prices: the vendor's published ones are not its
    published = published_price(row.provider, row.engine or name)
    return published and Price(published.rates, published.long_context, row.service_tiers)


def _is_vendors_own(provider: str) -> bool:
    """Whether a row's ``api_base`` leads to the vendor all the same, as each of its customers has a server."""
    # Only for rows without a price at a server of their own: most need no provider's class here.
    from model_gateway.providers.factory import ProviderFactory  # noqa: PLC0415

    try:
        return ProviderFactory.find(provider).own_servers
    except LookupError:
        return False


def _rates(row: DeploymentRow | LongContext) -> Rates:
    return Rates.per_token_usd(**{kind: getattr(row, setting) for kind, setting in _KINDS.items()})


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
            price, found = _checked(name, row)
            problems += [f"{path}: {problem}" for problem in found]
            if price is not None:
                prices[deployment_name(name, deployment)] = price
    if problems:
        raise ConfigError("config", problems)
    return prices


def _checked(name: str, row: DeploymentRow) -> tuple[Price | None, list[str]]:
    """A row's price, or what keeps it from having one."""
    found = _contradictions(row)
    if found:
        return None, found
    try:
        price = price_of(name, row)
    except ValueError as error:
        return None, [str(error)]
    return price, [] if price is not None else ["no price; set input_cost and output_cost, or free: true"]


def _contradictions(row: DeploymentRow) -> list[str]:
    """Price settings that do not go together, or that no price can be made of."""
    given = _given(row)
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
    return found + _bad_steps(row) + _bad_tiers(row)


def _given(row: DeploymentRow | LongContext) -> set[str]:
    return {setting for setting in _KINDS.values() if getattr(row, setting) is not None}


def _bad_steps(row: DeploymentRow) -> list[str]:
    """A step that left out a kind would charge it as plain input or output, which may be less than it costs below."""
    thresholds = [step.above for step in row.long_context]
    found = ["long_context: the same threshold stands twice"] if len(set(thresholds)) != len(thresholds) else []
    for index, step in enumerate(row.long_context):
        missing = sorted(_given(row) - _given(step))
        found += [f"long_context.{index}.{setting}: is missing, as the model has one" for setting in missing]
    return found


def _bad_tiers(row: DeploymentRow) -> list[str]:
    return [
        f"service_tiers.{tier}: is the usual tier, which costs what the other settings say"
        for tier in sorted(USUAL_TIERS & row.service_tiers.keys())
    ]
