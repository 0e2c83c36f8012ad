"""The embedded server keeps what it acknowledged, and its password to itself."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError

from gateway_cli.embedded import HOST, EmbeddedServer, running_url, wait_until_answering
from gateway_cli.ports import ReservedPort
from model_gateway.connection import connect
from model_gateway.fleet import durability_problems
from model_gateway.settings import ConfigError
from tests.redis_server import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server in a directory whose name needs quoting."""
    server = RedisServer(tmp_path / 'data "quoted" \\ here')
    yield server
    server.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_acknowledged_is_there_after_a_stop_and_a_kill(server: RedisServer, number: signal.Signals):
    await server.start()
    async with connect(server.url) as redis:
        await redis.set("paid", "1")
    server.stop(number)
    await server.start()
    async with connect(server.url) as redis:
        assert await redis.get("paid") == b"1"


async def test_it_counts_as_durable(server: RedisServer):
    await server.start()
    async with connect(server.url) as redis:
        assert await durability_problems(redis) == []


async def test_one_value_and_all_connections_together_are_bounded(server: RedisServer):
    await server.start()
    async with connect(server.url) as redis:
        assert await redis.config_get("proto-max-bulk-len") == {"proto-max-bulk-len": str(128 * 2**20)}
        assert await redis.config_get("maxmemory-clients") == {"maxmemory-clients": str(2**30)}


async def test_without_the_password_nothing_is_answered(server: RedisServer):
    await server.start()
    async with connect(server.url.replace(server.server.password, "wrong")) as redis:
        with pytest.raises(AuthenticationError):
            await redis.ping()


def test_the_password_stands_neither_in_the_command_line_nor_in_the_config_file(tmp_path: Path):
    server = EmbeddedServer(tmp_path / "redis", 6379, "a-canary")
    server.prepare()
    shown = [*server.command, server.config_path.read_text(), repr(server)]
    assert not [text for text in shown if "a-canary" in text]
    assert stat.S_IMODE(server.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700


def test_the_url_of_a_running_server_is_found_in_the_data_directory(tmp_path: Path):
    assert running_url(tmp_path) == ""
    (tmp_path / "redis.url").write_text("redis://:secret@127.0.0.1:1/0\n")
    assert running_url(tmp_path) == "redis://:secret@127.0.0.1:1/0"


async def test_waiting_for_a_server_that_is_not_there_ends_and_says_why():
    with ReservedPort(HOST, 0, "REDIS_URL") as port, pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
        await wait_until_answering(f"redis://{HOST}:{port.number}/0", 0.1)


async def test_a_port_in_use_is_refused_by_its_setting(server: RedisServer):
    await server.start()
    with pytest.raises(ConfigError, match=f"GATEWAY_PORT: {HOST}:{server.server.port} is in use"):
        ReservedPort(HOST, server.server.port, "GATEWAY_PORT")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match="GATEWAY_PORT: can't listen on"):
        ReservedPort("192.0.2.1", 0, "GATEWAY_PORT")
