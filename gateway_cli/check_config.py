"""``model-gateway check-config``: every mistake in the config at once, with its path in the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model_gateway.environment import Environment
from model_gateway.prices import load_prices
from model_gateway.providers.factory import ProviderFactory, is_served, key_variables
from model_gateway.settings import ConfigError, GatewayConfig, load_config


def add_parser(commands: Any) -> None:
    """Add ``check-config``."""
    parser = commands.add_parser("check-config", help="report every mistake in the config at once")
    parser.add_argument("path", nargs="?", type=Path, help="default: GATEWAY_CONFIG, else config/models.yaml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check one file and say what it would serve."""
    path = arguments.path or Environment.read().config_path
    config = checked_config(path)
    served = [name for name, row in config.models.items() if any(is_served(deployment) for _, deployment in row.rows())]
    print(f"{path}: good. {len(config.models)} models, {len(served)} served: {', '.join(served) or 'none'}")
    for name, row in config.models.items():
        if name not in served:
            missing = {" or ".join(key_variables(deployment)): None for _, deployment in row.rows()}
            print(f"  {name} waits for {', '.join(missing)}")
    return 0


def checked_config(path: Path) -> GatewayConfig:
    """The config, with a price and an installed provider for every model.

    Raises:
        ConfigError: with every mistake.
    """
    config = load_config(path)
    problems = _providers(config)
    try:
        load_prices(config)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(str(path), problems)
    return config


def _providers(config: GatewayConfig) -> list[str]:
    """Rows whose provider can't be loaded."""
    problems: list[str] = []
    for name, model in config.models.items():
        for label, row in model.rows():
            path = f"models.{name}.deployments.{label}" if label else f"models.{name}"
            try:
                ProviderFactory.find(row.provider)
            except (LookupError, ImportError, AttributeError) as error:  # a plug-in may be broken in its own way
                problems.append(f"{path}.provider: {error}")
    return problems
