"""``model-gateway``: one command, a module for each of its subcommands.

A subcommand's module has ``add_parser(commands)``, which names it and sets ``run``, what carries it out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from gateway_cli import acl, check_config, demo, ledger, processes, up
from gateway_cli.errors import StartupError
from model_gateway.process import log_to_stderr
from model_gateway.settings import ConfigError

_COMMANDS: Final = (up, processes, check_config, acl, ledger, demo)

EXIT_REFUSED: Final = 2
"""The config, a secret or the command line is wrong: starting again would not help."""
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; the answer is the process's exit code."""
    chosen = _parser().parse_args(arguments)
    log_to_stderr()
    try:
        return int(chosen.run(chosen))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    except StartupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-gateway", description="An LLM gateway over Redis Streams.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
