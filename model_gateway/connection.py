"""Connections to Redis, and what it means that Redis is away."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from model_gateway.errors import GatewayError

AWAY: Final = (
    *(RedisConnectionError, RedisTimeoutError, OSError),
    *(ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError),
)
"""What redis-py raises while Redis is away, loading, or not yet the primary."""

COMMAND_TIMEOUT: Final = 5.0


def connect(redis_url: str, *, read_timeout: float = COMMAND_TIMEOUT) -> Redis:
    """A client without retries of its own: redis-py's would send a write again that was carried out.

    Args:
        redis_url: the server.
        read_timeout: seconds without an answer; longer than any BLOCK used on it.
    """
    client = Redis.from_url(
        redis_url,
        protocol=2,
        socket_timeout=read_timeout,
        socket_connect_timeout=COMMAND_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    pool = client.connection_pool
    pool.connection_class = _that_says_it_is_closed(pool.connection_class)
    return client


def _that_says_it_is_closed(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, TCP, TLS or Unix, over whatever event loop."""

    class Plain(kind):  # type: ignore[misc, valid-type]
        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().send_packed_command(*args, **kwargs)
            except RuntimeError as error:
                _raise_if_closed(error)
                raise

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except RuntimeError as error:
                _raise_if_closed(error)
                raise

    return Plain


def _raise_if_closed(error: RuntimeError) -> None:
    """Transports of asyncio raise OSErrors once they are closed, which redis-py knows; uvloop's a RuntimeError."""
    if "closed" in str(error):
        raise RedisConnectionError(f"the connection to Redis was closed: {error}") from error


def unavailable() -> GatewayError:
    """Redis is away: try again in a second."""
    return GatewayError("redis_unavailable", "the gateway can't reach its Redis; try again in a second", retry_after=1)
