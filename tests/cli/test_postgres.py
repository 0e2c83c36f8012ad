"""The embedded PostgreSQL keeps what it committed and its password to itself, whoever starts it."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway_cli import exec_unprivileged, postgres
from gateway_cli.data_directory import locked
from gateway_cli.errors import StartupError
from gateway_cli.postgres import EmbeddedPostgres
from tests.postgres_server import START_SECONDS, STOP_SECONDS, PostgresServer, wait_until_answering

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="what root gives up")
NAMESPACES = subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True).returncode == 0
IN_A_NAMESPACE = pytest.mark.skipif(not NAMESPACES, reason="no user namespaces here")
ROOT = Path(__file__).parents[2]
STARTER = """
import signal, subprocess
from gateway_cli.exec_with_parent import bound_to_this_process
subprocess.Popen(bound_to_this_process({command!r}), pass_fds=({lock},))
signal.pause()
"""
WHOLE_LIFE = """
import asyncio, os, sys
from pathlib import Path
from tests.postgres_server import PostgresServer
assert os.geteuid() != 0
server = PostgresServer(Path(sys.argv[1]) / "postgres")
asyncio.run(server.start())
server.close()
"""
CANARY = "a-canary-in-a-prompt"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server in a private directory whose name needs quoting."""
    private = tmp_path / 'private "quoted" here'
    private.mkdir(mode=0o700)
    server = PostgresServer(private / "postgres")
    yield server
    server.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that the tests only look at."""
    server = PostgresServer(tmp_path_factory.mktemp("running") / "postgres")
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.close()


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def users(server: PostgresServer) -> set[str]:
    """The ids under which the server's process runs, as the machine sees it."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return set(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:])


async def test_what_was_committed_is_there_after_a_stop_and_a_kill(server: PostgresServer):
    await server.start()
    await ask(server.url, "CREATE TABLE paid (n int)")
    for end in (server.stop, server.kill):
        await ask(server.url, "INSERT INTO paid VALUES (1)")
        end()
        await server.start()
    assert await ask(server.url, "SELECT count(*) FROM paid") == 2


async def test_it_brings_pgvector(running: PostgresServer):
    await ask(running.url, "CREATE EXTENSION IF NOT EXISTS vector")
    assert await ask(running.url, "SELECT '[1,0]'::vector <=> '[0,1]'::vector") == 1.0


async def test_a_commit_is_on_disk_before_it_is_confirmed(running: PostgresServer):
    assert await ask(running.url, "SHOW fsync") == "on"
    assert await ask(running.url, "SHOW synchronous_commit") == "on"


async def test_it_listens_on_loopback_only_and_on_no_unix_socket(running: PostgresServer):
    assert await ask(running.url, "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(running.url, "SHOW unix_socket_directories") == ""


async def test_without_the_password_nothing_is_answered(running: PostgresServer):
    for wrong in ("wrong", ""):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            await ask(running.url.replace(running.server.password, wrong), "SELECT 1")


async def test_the_password_stands_in_no_command_line_no_file_and_no_repr(running: PostgresServer):
    password, data = running.server.password, running.server.data
    shown = [*running.server.command, repr(running.server)]
    files = [file for file in running.server.directory.rglob("*") if file.is_file()]
    assert not [text for text in shown if password in text]
    assert not [file for file in files if password.encode() in file.read_bytes()]
    assert stat.S_IMODE(running.server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


async def test_what_a_failing_statement_holds_is_not_logged(running: PostgresServer):
    with pytest.raises(asyncpg.PostgresError):
        await ask(running.url, f"SELECT '{CANARY}'::int")
    with pytest.raises(asyncpg.PostgresError):
        await ask(running.url, f"CREATE TEMP TABLE t (a int NOT NULL, b text); INSERT INTO t (b) VALUES ('{CANARY}')")
    log = (running.server.directory / "log").read_text()
    assert CANARY not in log


async def test_a_new_password_is_taken_and_the_old_one_is_not(server: PostgresServer):
    await server.start()
    old = server.url
    server.stop()
    server.server = EmbeddedPostgres(server.server.directory, server.server.port, "it's:new@\\/%20")
    await server.start()
    assert await ask(server.url, "SELECT 1") == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(old, "SELECT 1")


@pytest.mark.parametrize("password", ["a\nb", ""])
def test_a_password_that_can_not_be_set_is_refused(tmp_path: Path, password: str):
    server = EmbeddedPostgres(tmp_path / "postgres", 1, password)
    with pytest.raises(StartupError, match="its password is empty or can't be printed"):
        server.prepare()


async def test_half_of_a_data_directory_is_made_anew(server: PostgresServer):
    server.server.directory.mkdir()
    half = server.server.directory / "data.new" / "base"
    half.mkdir(parents=True)
    await server.start()
    assert await ask(server.url, "SELECT 1") == 1


async def test_a_process_that_has_the_number_of_the_last_server_does_not_keep_it_from_starting(server: PostgresServer):
    await server.start()
    server.kill()
    left = server.server.data / "postmaster.pid"
    lines = left.read_text().splitlines()
    left.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    await server.start()
    assert await ask(server.url, "SELECT 1") == 1


async def test_it_stops_at_once_though_somebody_is_connected(server: PostgresServer):
    await server.start()
    connection = await asyncpg.connect(server.url)
    server.stop()
    assert server.process is not None
    assert server.process.returncode == 0
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    connection.terminate()


async def test_nothing_of_it_is_left_when_the_process_that_started_it_is_killed(server: PostgresServer):
    await server.start()
    server.stop()
    with locked(server.server.directory / "lock", "unused", STOP_SECONDS) as lock:
        server.server.prepare()
        code = STARTER.format(command=server.server.command, lock=lock)
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, pass_fds=(lock,), stderr=subprocess.DEVNULL)
    try:
        await wait_until_answering(server.url, START_SECONDS)
    finally:
        parent.kill()
        parent.wait()
    with locked(server.server.directory / "lock", "a process of it lives", STOP_SECONDS):
        pass


@AS_ROOT
async def test_root_s_server_runs_as_nobody_and_no_folder_above_it_is_opened(server: PostgresServer):
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in server.server.data.parents[1:]]
    await server.start()
    assert "0" not in users(server)
    assert stat.S_IMODE(server.server.directory.stat().st_mode) == 0o700
    assert server.server.directory.stat().st_uid == 0
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in server.server.data.parents[1:]] == before


@AS_ROOT
@IN_A_NAMESPACE
async def test_a_server_that_nobody_can_reach_runs_without_root_s_rights_and_can_come_back(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    binaries = postgres._binaries()
    hidden = tmp_path / "only root"
    hidden.mkdir(mode=0o700)
    (hidden / "bin").symlink_to(binaries)
    monkeypatch.setattr(postgres, "_binaries", lambda: hidden / "bin")
    await server.start()
    assert server.process is not None
    process = Path(f"/proc/{server.process.pid}")
    assert (process / "ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    assert "CapEff:\t0000000000000000" in (process / "status").read_text()
    await ask(server.url, "CREATE TABLE kept ()")
    server.stop()
    monkeypatch.setattr(postgres, "_binaries", lambda: binaries)
    await server.start()
    assert "0" not in users(server)
    assert await ask(server.url, "SELECT count(*) FROM kept") == 0


@AS_ROOT
def test_whoever_is_not_root_runs_it_as_themselves(tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    not_root = [sys.executable, exec_unprivileged.__file__, str(own), sys.executable]
    variables = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*not_root, "-c", WHOLE_LIFE, exec_unprivileged.DIRECTORY], env=variables, check=True, timeout=90)
    assert (own / "postgres" / "data" / "PG_VERSION").exists()


@AS_ROOT
def test_links_in_the_directory_are_not_followed_when_it_changes_hands(tmp_path: Path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.write_text("")
    theirs.mkdir()
    (theirs / "link").symlink_to(mine)
    command = [sys.executable, "-I", "-S", exec_unprivileged.__file__, str(theirs), "/bin/true"]
    subprocess.run(command, check=True)
    assert (theirs / "link").lstat().st_uid != 0
    assert mine.stat().st_uid == 0
