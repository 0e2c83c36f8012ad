"""Lua scripts: loading them, and calling many in one round trip.

A script takes its keys, one JSON object of named arguments (``ARGV[1]``, all values text), and raw payloads after
it. Every script is idempotent by id or token, so a call whose answer was lost is simply sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from model_gateway.clock import Clock
from model_gateway.connection import AWAY, COMMAND_TIMEOUT, unavailable
from model_gateway.errors import GatewayError

_PASSING: Final = ("MISCONF", "NOREPLICAS", "BUSY ")
"""Further errors that say that Redis can't now, for which redis-py has no class; BUSYGROUP is none of them."""

_BATCH: Final = 128
_IN_ONE_TURN: Final = 16
"""Answers that are handed out before whoever else waits for the event loop has a turn."""
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script and the digest that Redis knows it by."""

    name: str
    text: str
    sha: str


@cache
def load_script(package: str, name: str, *preludes: str, allow_oom: bool = False) -> Script:
    """The script ``<package>/lua/<name>.lua``, with preludes (``package:name``) in front of it.

    Args:
        package: where the script lies.
        name: the file's name without ``.lua``.
        preludes: shared functions, in order.
        allow_oom: whether it may write at maxmemory.
    """
    parts = [_read(*prelude.split(":")) for prelude in preludes] + [_read(package, name)]
    flags = " flags=allow-oom" if allow_oom else ""
    text = f"#!lua{flags}\n" + "\n".join(parts)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(package: str, name: str) -> str:
    return (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class Scripts:
    """Calls scripts; calls that wait at the same moment share one round trip."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Mapping[str, Any],
        *payload: str | bytes,
        within: float = COMMAND_TIMEOUT,
    ) -> list[Any]:
        """Run a script once, sending it again while Redis is away.

        Args:
            script: what to run.
            keys: its KEYS.
            args: its named arguments; the test clock's time is added.
            payload: raw arguments after the named ones.
            within: seconds to go on trying.

        Raises:
            GatewayError: ``redis_unavailable`` when the time is up, ``storage_full`` at maxmemory.
        """
        named = orjson.dumps({**args, "now": self._clock.override_ms()})
        command = ("EVALSHA", script.sha, len(keys), *keys, named, *payload)
        deadline = asyncio.get_running_loop().time() + within
        delay = _FIRST_DELAY
        while True:
            try:
                return await self._run(script, command)
            except (*AWAY, NoScriptError) as error:  # loaded, and flushed again before it was called
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise unavailable() from error
            except OutOfMemoryError as error:
                raise GatewayError("storage_full", "Redis is at its memory limit", retry_after=5) from error
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _run(self, script: Script, command: tuple[Any, ...]) -> list[Any]:
        try:
            return _answer(await self._send(command))
        except NoScriptError:
            await self._redis.script_load(script.text)
            return _answer(await self._send(command))

    def _send(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Queue a command for the next round trip."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        if self._sender is None:
            # A task of its own: cancelling a caller can't misalign the connection.
            self._sender = loop.create_task(self._drain(), name="scripts")
        return answer

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                await self._round_trip(batch)
        finally:
            self._sender = None

    async def _round_trip(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for command, _ in batch:
            pipeline.execute_command(*command)
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            answers = [error] * len(batch)
        for number, ((_, future), answer) in enumerate(zip(batch, answers, strict=True), 1):
            if not future.done():
                future.set_result(answer)
            if number % _IN_ONE_TURN == 0:
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Wait for the round trip under way."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=COMMAND_TIMEOUT)


def _answer(answer: Any) -> list[Any]:
    """The answer as a list, or its error raised."""
    if isinstance(answer, ResponseError) and "OOM" in str(answer):
        raise OutOfMemoryError(str(answer))
    if isinstance(answer, ResponseError) and str(answer).startswith(_PASSING):
        raise RedisConnectionError(str(answer))
    if isinstance(answer, BaseException):
        raise answer
    return answer if isinstance(answer, list) else [answer]
