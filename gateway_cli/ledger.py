"""``model-gateway ledger``: declare the ledger whole, look at it, recompute it from its events, rebuild it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from gateway_cli.data_directory import create_data_directory
from gateway_cli.embedded import running_url
from gateway_cli.errors import StartupError
from gateway_cli.ledger_marker import location, prepare_ledger
from model_gateway.connection import AWAY, connect
from model_gateway.environment import Environment
from model_gateway.ledger import initialise, is_initialised
from model_gateway.money import usd_text
from model_gateway.replay import Replay, read_ledger, rebuild, replay_stream
from model_gateway.streams import Keys

Action = Callable[[Redis, Keys], Awaitable[int]]


def add_parser(commands: Any) -> None:
    """Add ``ledger init``, ``status``, ``audit`` and ``rebuild``."""
    parser = commands.add_parser("ledger", help="the ledger's epoch, its audit, and its rebuilding")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, action, text in (
        ("init", _init, "declare the ledger whole: on a new Redis, or to accept what was lost"),
        ("status", _status, "what the ledger holds"),
        ("audit", _audit, "recompute every charge and every balance from the events"),
        ("rebuild", _rebuild, "write the ledger anew from the events, and open admission"),
    ):
        actions.add_parser(name, help=text).set_defaults(run=_runner(action))
    actions.choices["init"].add_argument(
        "--if-new",
        dest="run",
        action="store_const",
        const=_init_if_new,
        help="unless GATEWAY_DATA_DIR remembers that this Redis had one: then it was lost, and stays closed",
    )


def _runner(action: Action) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> int:
        environment = Environment.read()
        url = environment.redis_url or running_url(environment.data_dir)
        if not url:
            environment.require("REDIS_URL")
        return asyncio.run(_with_redis(url, action))

    return run


def _init_if_new(_: argparse.Namespace) -> int:
    """Declare the ledger whole as `up` does: once for a Redis, so that it can be run at each start."""
    environment = Environment.read()
    environment.require("REDIS_URL")
    url, data = environment.redis_url, create_data_directory(environment.data_dir)
    try:
        asyncio.run(prepare_ledger(url, location(url), data, Keys()))
    except AWAY as error:
        raise StartupError(f"Redis does not answer: {type(error).__name__}") from error
    return 0


async def _with_redis(url: str, action: Action) -> int:
    redis = connect(url)
    try:
        return await action(redis, Keys())
    except AWAY as error:
        raise StartupError(f"Redis does not answer: {type(error).__name__}") from error
    finally:
        await redis.aclose()


async def _init(redis: Redis, keys: Keys) -> int:
    await initialise(redis, keys)
    print("The ledger is open: requests are admitted.")
    return 0


async def _status(redis: Redis, keys: Keys) -> int:
    whole = await is_initialised(redis, keys)
    print("open" if whole else "lost: nothing is admitted; run `ledger rebuild` or `ledger init`")
    for name, amount in sorted((await read_ledger(redis, keys)).items()):
        print(f"{name:40} {usd_text(amount):>20} USD")
    return 0 if whole else 1


async def _audit(redis: Redis, keys: Keys) -> int:
    found = await replay_stream(redis, keys)
    ledger = await read_ledger(redis, keys)
    problems = found.mismatches + _differences(found, ledger)
    settled = sum(found.settled.values())
    print(f"{found.events} events, {usd_text(settled)} USD charged, {len(found.open)} reservations open")
    print("\n".join(problems) if problems else "Every charge follows from its tokens and price; every balance agrees.")
    return 1 if problems else 0


def _differences(found: Replay, ledger: dict[str, int]) -> list[str]:
    replayed = found.ledger()
    return [
        f"{name}: the events say {replayed.get(name, 0)}, the ledger {ledger.get(name, 0)} nano-dollars"
        for name in sorted({*replayed, *ledger})
        if name.split("|")[1] >= found.first_window and replayed.get(name, 0) != ledger.get(name, 0)
    ]


async def _rebuild(redis: Redis, keys: Keys) -> int:
    try:
        found = await rebuild(redis, keys)
    except RuntimeError as error:
        raise StartupError(str(error)) from error
    print(f"Rebuilt from {found.events} events: {usd_text(sum(found.settled.values()))} USD settled.")
    return 0
