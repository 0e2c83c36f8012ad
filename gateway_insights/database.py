"""The connections to PostgreSQL, and what it means that it is away."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from pgvector.asyncpg import register_vector

from gateway_insights.migrate import migrate

__all__ = ["AWAY", "DatabaseAwayError", "Pool", "connect", "migrate", "transaction"]

Pool: TypeAlias = asyncpg.Pool
"""What ``connect`` gives."""

CONNECT_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 60.0
"""For one statement; a longer one (an index) is given its own ``timeout``."""
_IDLE_SECONDS: Final = 300.0
_EXTENSION_SCHEMA: Final = (
    "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = $1"
)


class DatabaseAwayError(Exception):
    """PostgreSQL can't be reached or is going away; the text says why, without the URL's password."""


AWAY: Final[tuple[type[BaseException], ...]] = (
    DatabaseAwayError,
    OSError,  # refused, reset; TimeoutError is one too
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it stops, it starts, it lost a process
    asyncpg.InsufficientResourcesError,  # the disk is full, too many connections
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
    asyncpg.InterfaceError,  # the connection was closed under a statement or a transaction
    asyncpg.InternalClientError,  # the same, seen before the socket has told of it
)
"""What a statement raises while PostgreSQL is away; trying again later is right.

``asyncpg.DataError`` (a value that does not fit its column) is an ``InterfaceError`` too, and stays wrong when it
is tried again: whoever sends values from outside catches it first, or works in ``transaction``.
"""

_REFUSED: Final[tuple[type[BaseException], ...]] = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    ssl.SSLError,
)
"""A server that is there and lets nobody in: wrong password, no such database."""


async def connect(url: str, *, max_size: int = 4) -> Pool:
    """Open a pool whose connections give and take vectors as ``pgvector.Vector``, in UTC.

    It works before the first ``migrate`` too; that call renews the connections, so that they know vectors.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        max_size: the most connections at once.

    Raises:
        DatabaseAwayError: the server can't be reached, or lets nobody in.
        ValueError: this is no such URL.
    """
    try:
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=max_size,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            max_inactive_connection_lifetime=_IDLE_SECONDS,
            server_settings={"application_name": "model-gateway insights", "timezone": "UTC"},
            init=_know_vectors,
        )
    except ValueError:  # its text may hold a part of the password
        raise ValueError("expected postgresql://user:password@host:5432/database") from None
    except (*AWAY, *_REFUSED) as error:
        raise DatabaseAwayError(_reason(error)) from None


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Any]:
    """A connection in a transaction: all of it is committed, or nothing.

    Raises:
        DatabaseAwayError: PostgreSQL went away before the commit was confirmed. It may have been carried out.
    """
    try:
        async with pool.acquire(timeout=CONNECT_SECONDS) as connection, connection.transaction():
            yield connection
    except asyncpg.DataError:
        raise
    except AWAY as error:
        raise DatabaseAwayError(_reason(error)) from error


async def _know_vectors(connection: Any) -> None:
    """Teach a connection pgvector's types, once the extension is there."""
    schema = await connection.fetchval(_EXTENSION_SCHEMA, "vector")
    if schema is not None:
        await register_vector(connection, schema=schema)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
