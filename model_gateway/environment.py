"""What the environment says, and which secrets are good enough to start with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_gateway.envelope import front_door_secret
from model_gateway.settings import ConfigError, GatewayConfig
from model_gateway.signing import Keyring

MIN_SECRET_BYTES: Final = 32
_DOCUMENTED: Final = frozenset(
    {
        "your-secure-token",
        "your-hmac-secret",
        "change-me-in-production",
        "development-token",
        "0123456789abcdef0123456789abcdef0123456789abcdef",
        "an-example-secret-that-must-be-replaced-0000",
    }
)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Environment:
    """The gateway's variables, with their defaults."""

    redis_url: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8081
    events_port: int = 8088
    metrics_port: int = 0
    data_dir: Path = Path(".gateway")
    config_path: Path = Path("config/models.yaml")
    workers: int = 1
    worker_name: str = ""
    admin_token: str = field(default="", repr=False)
    hmac_secret: str = field(default="", repr=False)
    hmac_secret_previous: str = field(default="", repr=False)
    unverified_durability: bool = False

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Environment:
        """The environment's values.

        Raises:
            ConfigError: a number that is none.
        """
        problems: list[str] = []

        def number(name: str, default: int, least: int, most: int) -> int:
            text = variables.get(name) or str(default)
            if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
                problems.append(f"{name}: expected a whole number from {least} to {most}, got {text!r}")
                return default
            return int(text)

        found = cls(
            redis_url=variables.get("REDIS_URL", ""),
            database_url=variables.get("DATABASE_URL", ""),
            host=variables.get("GATEWAY_HOST") or "127.0.0.1",
            port=number("GATEWAY_PORT", 8081, 0, 65535),
            events_port=number("GATEWAY_EVENTS_PORT", 8088, 0, 65535),
            metrics_port=number("GATEWAY_METRICS_PORT", 0, 0, 65535),
            data_dir=Path(variables.get("GATEWAY_DATA_DIR") or ".gateway"),
            config_path=Path(variables.get("GATEWAY_CONFIG") or "config/models.yaml"),
            workers=number("GATEWAY_WORKERS", 1, 1, 256),
            worker_name=variables.get("GATEWAY_WORKER_NAME", ""),
            admin_token=variables.get("ADMIN_TOKEN", ""),
            hmac_secret=variables.get("HMAC_SECRET", ""),
            hmac_secret_previous=variables.get("HMAC_SECRET_PREVIOUS", ""),
            unverified_durability=variables.get("GATEWAY_UNVERIFIED_DURABILITY") == "accept",
        )
        if problems:
            raise ConfigError("environment", problems)
        return found

    @property
    def on_loopback(self) -> bool:
        """Whether the gateway can be reached from this machine only."""
        return self.host in _LOOPBACK

    @property
    def keyring(self) -> Keyring:
        """The live signing secrets; the current one first."""
        return Keyring(tuple(filter(None, (self.hmac_secret, self.hmac_secret_previous))))

    def require(self, *names: str) -> None:
        """Refuse to start without good secrets and a Redis.

        Args:
            names: of ``REDIS_URL``, ``ADMIN_TOKEN`` and ``HMAC_SECRET``.

        Raises:
            ConfigError: with every one that is missing or bad.
        """
        values = {
            "REDIS_URL": self.redis_url,
            "ADMIN_TOKEN": self.admin_token,
            "HMAC_SECRET": self.hmac_secret,
        }
        problems = [f"{name}: is not set" for name in names if not values[name]]
        secrets = {name: values[name] for name in names if name != "REDIS_URL"}
        if self.hmac_secret_previous:
            secrets["HMAC_SECRET_PREVIOUS"] = self.hmac_secret_previous
        problems += [problem for name, value in secrets.items() if value for problem in weak(name, value)]
        if problems:
            raise ConfigError("environment", problems)


def weak(name: str, secret: str) -> list[str]:
    """Why a secret is no good; empty when it is."""
    if secret in _DOCUMENTED:
        return [f"{name}: is an example out of the documentation; make one with `openssl rand -hex 32`"]
    if len(secret.encode("utf-8", "surrogateescape")) < MIN_SECRET_BYTES:
        return [f"{name}: is shorter than {MIN_SECRET_BYTES} bytes; make one with `openssl rand -hex 32`"]
    return []


def sender_secrets(
    config: GatewayConfig, keyring: Keyring, variables: Mapping[str, str] = os.environ
) -> dict[str, tuple[str, ...]]:
    """Which secrets verify which sender's envelopes: ``http`` for front doors, ``agent-<name>`` for each agent.

    Raises:
        ConfigError: an agent's secret is missing, weak, or another's too.
    """
    found: dict[str, tuple[str, ...]] = {"http": tuple(front_door_secret(secret) for secret in keyring.secrets)}
    owners: dict[str, str] = dict.fromkeys(keyring.secrets, "HMAC_SECRET")
    problems: list[str] = []
    for name, agent in config.agents.items():
        secret = variables.get(agent.secret_env, "")
        problems += weak(agent.secret_env, secret) if secret else [f"{agent.secret_env}: is not set (agent '{name}')"]
        if secret and owners.setdefault(secret, agent.secret_env) != agent.secret_env:
            problems.append(f"{agent.secret_env}: is the same secret as {owners[secret]}")
        found[f"agent-{name}"] = (secret,)
    if problems:
        raise ConfigError("environment", problems)
    return found
