"""Secrets that nobody set: made once, kept in ``<data>/secrets.env``, used again next time.

The file is ``KEY=value`` lines, mode 0600, and a shell can source it. What the environment sets wins and is
never written down.
"""

from __future__ import annotations

import secrets
import shlex
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from gateway_cli.data_directory import write_private
from model_gateway.settings import ConfigError, GatewayConfig

FILE_NAME: Final = "secrets.env"
EMBEDDED_REDIS_PASSWORD: Final = "GATEWAY_REDIS_PASSWORD"  # noqa: S105 - a variable's name
EMBEDDED_POSTGRES_PASSWORD: Final = "GATEWAY_POSTGRES_PASSWORD"  # noqa: S105 - a variable's name
_HEADER: Final = "# Made by model-gateway up. Whoever reads this file can spend the budget.\n"


def redis_password_name(agent: str) -> str:
    """The variable with an agent's Redis password: ``AGENT_DEMO_REDIS_PASSWORD`` for ``demo``."""
    return f"AGENT_{agent.upper().replace('-', '_')}_REDIS_PASSWORD"


def secret_names(config: GatewayConfig) -> list[str]:
    """Every secret that a gateway with embedded servers needs."""
    agents = [name for agent, row in config.agents.items() for name in (row.secret_env, redis_password_name(agent))]
    metrics = [config.metrics.token] if config.metrics.token else []
    return ["ADMIN_TOKEN", "HMAC_SECRET", EMBEDDED_REDIS_PASSWORD, EMBEDDED_POSTGRES_PASSWORD, *agents, *metrics]


class SecretStore:
    """The file of secrets in a data directory."""

    def __init__(self, data_directory: Path) -> None:
        self.path = data_directory / FILE_NAME

    def read(self) -> dict[str, str]:
        """What the file holds; empty when there is none.

        Raises:
            ConfigError: others may read it, or a line is no ``KEY=value``.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(self.path), [f"can't be read: {error}"]) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(str(self.path), [f"others may read it; chmod 600 {self.path}"])
        return self._parse(text)

    def complete(self, names: Iterable[str], variables: Mapping[str, str]) -> dict[str, str]:
        """Every variable with its secrets: the environment's, else the file's, else new ones, which are kept.

        Args:
            names: the secrets that must be there.
            variables: the environment; an empty value counts as not set.
        """
        stored = self.read()
        missing = [name for name in names if not variables.get(name) and not stored.get(name)]
        if missing:
            made = {name: secrets.token_hex(32) for name in missing}
            self._append(made)
            stored |= made
        return {**variables, **{name: value for name, value in stored.items() if not variables.get(name)}}

    def _append(self, made: Mapping[str, str]) -> None:
        old = self.path.read_text(encoding="utf-8") if self.path.exists() else _HEADER
        lines = [f"{name}={value}" for name, value in made.items()]
        write_private(self.path, "\n".join([old.rstrip("\n"), *lines, ""]))

    def _parse(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, value = _assignment(line)
            if not name.isidentifier():
                raise ConfigError(str(self.path), [f"line {number}: expected KEY=value"])
            found[name] = value
        return found


def _assignment(line: str) -> tuple[str, str]:
    """A line's name and its value without quotes; no name when it is no assignment."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        return "", ""
    name, equals, value = words[0].partition("=")
    return (name, value) if equals and len(words) == 1 else ("", "")
