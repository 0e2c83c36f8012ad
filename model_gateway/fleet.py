"""Who is alive: the workers' heartbeats, the queue, and whether Redis keeps what it is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from model_gateway.streams import GROUP, Keys

HEARTBEAT_SECONDS: Final = 1.0
FRESH_MS: Final = 5_000
"""A worker whose heartbeat is older than this does not count as alive."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker process, by its own word."""

    name: str
    at_ms: int = 0
    models: list[str] = field(default_factory=list)
    slots: int = 0
    in_use: int = 0
    parked: int = 0
    metrics_port: int = 0


@dataclass(frozen=True, slots=True)
class QueueState:
    """The request stream: ``depth`` is what nobody has finished, ``lag`` what nobody has taken."""

    depth: int
    lag: int
    pending: int


async def beat(redis: Redis, keys: Keys, state: WorkerState) -> None:
    """Say that a worker lives, by the time of Redis, and forget those long dead."""
    now = await _now_ms(redis)
    everyone = await _states(redis, keys)
    gone = [name for name, other in everyone.items() if now - other.at_ms > 10 * FRESH_MS]
    pipeline = redis.pipeline(transaction=False)
    pipeline.hset(keys.workers, state.name, orjson.dumps({**asdict(state), "at_ms": now}).decode())
    pipeline.pexpire(keys.workers, 10 * FRESH_MS)
    if gone:
        pipeline.hdel(keys.workers, *gone)
    await pipeline.execute()


async def leave(redis: Redis, keys: Keys, name: str) -> None:
    """Take a stopping worker off the list."""
    await cast("Any", redis.hdel(keys.workers, name))


async def live_workers(redis: Redis, keys: Keys) -> list[WorkerState]:
    """The workers whose heartbeat is fresh; machines' clocks may differ, so Redis tells the time."""
    now = await _now_ms(redis)
    return [state for state in (await _states(redis, keys)).values() if now - state.at_ms <= FRESH_MS]


async def _now_ms(redis: Redis) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def _states(redis: Redis, keys: Keys) -> dict[str, WorkerState]:
    raw = cast("dict[bytes, bytes]", await cast("Any", redis.hgetall(keys.workers)))
    states = ((name.decode(), _state(value)) for name, value in raw.items())
    return {name: state for name, state in states if state is not None}


def _state(value: bytes) -> WorkerState | None:
    """A heartbeat; of another version's, what is known; None where it can't be read."""
    try:
        found = orjson.loads(value)
        return WorkerState(**{name: found[name] for name in WorkerState.__slots__ if name in found})
    except (ValueError, TypeError):
        return None


async def queue_state(redis: Redis, keys: Keys) -> QueueState:
    """How much work waits and runs."""
    try:
        groups = await redis.xinfo_groups(keys.requests)
    except ResponseError:  # no stream yet
        return QueueState(0, 0, 0)
    for group in groups:
        if group["name"] == GROUP.encode():
            pending = int(group["pending"])
            lag = group.get("lag")
            waiting = int(lag) if lag is not None else await redis.xlen(keys.requests)
            return QueueState(waiting + pending, waiting, pending)
    return QueueState(0, 0, 0)


async def refusal_to_write(redis: Redis) -> str:
    """Why this Redis takes no writes now, in its own words; empty when it does. Asked by a script that may write."""
    try:
        await cast("Any", redis.eval("#!lua\nreturn 1", 0))
    except ResponseError as error:
        return f"Redis takes no writes: {error}"
    return ""


async def durability_problems(redis: Redis) -> list[str]:
    """Why this Redis may lose what it acknowledged; empty when it keeps it."""
    wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    try:
        found = await redis.config_get(*wanted)
    except ResponseError:
        return ["Redis hides its configuration; set GATEWAY_UNVERIFIED_DURABILITY=accept if it is durable"]
    settings = {_text(name or ""): _text(value or "") for name, value in found.items()}
    return [
        f"Redis has {name} {settings.get(name)}, it needs {value}"
        for name, value in wanted.items()
        if settings.get(name) != value
    ]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
