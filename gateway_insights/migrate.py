"""Numbered migrations: each is carried out once, whoever starts first and however many start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

if TYPE_CHECKING:
    from gateway_insights.database import Pool

_log = structlog.get_logger(__name__)

_LOCK: Final = 0x6D6F64656C  # "model", in pg_locks
_SECONDS: Final = 600.0
"""For one migration, and for another process's."""
_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS insights_migrations (
        version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
_APPLIED: Final = "INSERT INTO insights_migrations (version, name) VALUES ($1, $2)"
_REFUSED: Final = (
    asyncpg.SyntaxOrAccessError,  # no rights, or a table of that name is there already
    asyncpg.FeatureNotSupportedError,  # no pgvector on that server
    asyncpg.UndefinedFileError,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``: ``0001_name.sql``."""

    version: int
    name: str
    sql: str


class SchemaError(Exception):
    """The database can't be brought to this release's schema; trying again does not help before somebody acts."""


async def migrate(pool: Pool) -> None:
    """Bring the database up to this release.

    Safe with several processes at once: one migrates, the others wait for it. A migration is carried out whole or
    not at all.

    Raises:
        SchemaError: the database is ahead of this release, lacks pgvector, or forbids it.
    """
    known = migrations()
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_SECONDS)
        try:
            changed = await _apply_missing(connection, known)
        finally:
            if not connection.is_closed():  # the lock ends with its connection
                await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    if changed:
        await pool.expire_connections()  # new ones learn the new types


def migrations() -> list[Migration]:
    """All migrations of this release, in order."""
    return sorted(_read(files("gateway_insights") / "migrations"), key=lambda migration: migration.version)


def _read(folder: Traversable) -> Iterator[Migration]:
    for file in folder.iterdir():
        if named := _NAME.fullmatch(file.name):
            yield Migration(int(named[1]), named[2], file.read_text(encoding="utf-8"))


async def _apply_missing(connection: Any, known: list[Migration]) -> bool:
    """Carry out what is missing; whether that was anything."""
    await connection.execute(_TABLE)
    applied = {row["version"] for row in await connection.fetch("SELECT version FROM insights_migrations")}
    if newer := applied - {migration.version for migration in known}:
        raise SchemaError(f"the database has migration {max(newer)}, which this release does not know; upgrade it")
    missing = [migration for migration in known if migration.version not in applied]
    for migration in missing:
        await _apply(connection, migration)
    return bool(missing)


async def _apply(connection: Any, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=_SECONDS)
            await connection.execute(_APPLIED, migration.version, migration.name)
    except _REFUSED as error:
        raise SchemaError(f"migration {migration.version} ({migration.name}) failed: {error}") from error
    _log.info("insights.migrated", version=migration.version, name=migration.name)
