"""``model-gateway api``, ``worker`` and ``insights``: one process alone, against ``REDIS_URL``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add ``api``, ``worker`` and ``insights``."""
    api = commands.add_parser("api", help="the front door alone, against REDIS_URL")
    api.set_defaults(run=run_api)
    worker = commands.add_parser("worker", help="one worker alone, against REDIS_URL")
    worker.set_defaults(run=run_worker)
    insights = commands.add_parser("insights", help="the insights process alone, against REDIS_URL and DATABASE_URL")
    insights.set_defaults(run=run_insights)


def run_api(_: argparse.Namespace) -> int:
    """Run the front door until it is told to stop."""
    from gateway_api.__main__ import main  # noqa: PLC0415 - each process loads only its own part

    return main()


def run_worker(_: argparse.Namespace) -> int:
    """Run one worker until it is told to stop."""
    from gateway_worker.__main__ import main  # noqa: PLC0415 - each process loads only its own part

    return main()


def run_insights(_: argparse.Namespace) -> int:
    """Run the insights process until it is told to stop."""
    from gateway_insights.__main__ import main  # noqa: PLC0415 - each process loads only its own part

    return main()
