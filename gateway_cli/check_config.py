"""``model-gateway check-config``: every mistake in the config at once, with its path in the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model_gateway.environment import Environment
from model_gateway.prices import load_prices
from model_gateway.providers.factory import ProviderFactory, is_served, key_env
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
    served = [name for name, row in config.models.items() if is_served(row)]
    print(f"{path}: good. {len(config.models)} models, {len(served)} served: {', '.join(served) or 'none'}")
    for name, row in config.models.items():
        if name not in served:
            print(f"  {name} waits for {key_env(row)}")
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
    for name, row in config.models.items():
        try:
            ProviderFactory.find(row.provider)
        except (LookupError, ImportError, AttributeError) as error:  # a plug-in may be broken in its own way
            problems.append(f"models.{name}.provider: {error}")
    return problems
