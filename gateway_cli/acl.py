"""``model-gateway acl``: one Redis user per agent, with no more rights than it needs.

An agent ``demo`` is the Redis user ``agent-demo``. Its password is the variable
``AGENT_DEMO_REDIS_PASSWORD`` (the agent's name in capitals, ``_`` for ``-``), taken from the environment,
else from ``<data>/secrets.env``; the printed line holds only its SHA-256. The embedded server gets these
users by itself. For another server, put the lines into its config or ACL file, or send each as a command
with ``ACL SETUSER`` in place of ``user``.

A trusted agent can't read other agents' requests and replies, nor the budgets, but Redis lets whoever may
XADD to a stream trim it too. An isolated agent writes to an ingress stream of its own: only its own
requests are at stake.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway_cli.embedded import password_sha256
from gateway_cli.secret_store import SecretStore, redis_password_name
from model_gateway.environment import Environment, weak
from model_gateway.settings import Agent, ConfigError, GatewayConfig, load_config
from model_gateway.streams import Keys

_CONNECT: Final = "+ping +client|setname +client|setinfo"
# What the submit and cancel scripts call: Redis checks a script's commands against its caller's rights.
_SUBMIT: Final = (
    "+evalsha +script|load +xadd +xlen +xinfo|groups +exists +time +hget +hmget +hgetall +hset +hsetnx +pexpire"
)


def add_parser(commands: Any) -> None:
    """Add ``acl``."""
    parser = commands.add_parser("acl", help="print a Redis user for each agent")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the agents' users; no secret is shown."""
    environment = Environment.read()
    config = load_config(environment.config_path)
    for line in acl_lines(config, _variables(environment.data_dir)):
        print(line)
    return 0


def _variables(data_directory: Path) -> dict[str, str]:
    """The environment over what ``up`` made."""
    return {
        **SecretStore(data_directory).read(),
        **{name: value for name, value in os.environ.items() if value},
    }


def acl_lines(config: GatewayConfig, variables: Mapping[str, str]) -> list[str]:
    """A user for each agent.

    Raises:
        ConfigError: passwords that are missing or weak.
    """
    passwords = {agent: variables.get(redis_password_name(agent), "") for agent in config.agents}
    problems = [problem for agent, password in passwords.items() for problem in _password_problems(agent, password)]
    if problems:
        raise ConfigError("environment", problems)
    return [acl_line(name, agent, Keys(), password_sha256(passwords[name])) for name, agent in config.agents.items()]


def _password_problems(agent: str, password: str) -> list[str]:
    name = redis_password_name(agent)
    return weak(name, password) if password else [f"{name}: is not set (agent '{agent}')"]


def acl_line(name: str, agent: Agent, keys: Keys, password_sha256: str) -> str:
    """One agent's ``user ...`` line."""
    sender = f"agent-{name}"
    write = f"%W~{keys.ingress(name)} +xadd" if agent.isolated else _submit(sender, keys)
    # A selector of its own: reading is allowed on the replies, and on nothing that may be written.
    read = f"(%R~{keys.replies(sender)} +xread +xrange +xrevrange)"
    return f"user {sender} reset on #{password_sha256} {_CONNECT} {write} {read}"


def _submit(sender: str, keys: Keys) -> str:
    # EVALSHA asks for both rights on every key that a script names.
    return f"~{keys.requests} ~{keys.control} ~{keys.full} ~{keys.record(sender, '*')} {_SUBMIT}"
