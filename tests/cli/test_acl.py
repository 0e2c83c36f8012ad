"""Each agent is a Redis user that may do its own work and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from gateway_cli.acl import acl_line, acl_lines
from gateway_cli.embedded import password_sha256
from model_gateway.client import StreamClient
from model_gateway.connection import connect
from model_gateway.settings import Agent, ConfigError, parse_config
from model_gateway.streams import Keys
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
KEYS = Keys()
PASSWORD = "a-password-of-the-tests-" + "p" * 16
TRUSTED = acl_line("inside", Agent(secret_env="A"), KEYS, password_sha256(PASSWORD))
ISOLATED = acl_line("outside", Agent(secret_env="B", isolated=True), KEYS, password_sha256(PASSWORD))
CONFIG = "models: {echo: {provider: echo, free: true}}\nagents: {demo: {secret_env: AGENT_DEMO_SECRET}}\n"

FORBIDDEN_TO_ALL = [
    ("XRANGE", "model.requests", "-", "+"),
    ("XREAD", "STREAMS", "model.requests", "0"),
    ("XRANGE", "model.replies.agent-other", "-", "+"),
    ("XADD", "model.replies.agent-other", "*", "a", "1"),
    ("XADD", "model.ingress.other", "*", "a", "1"),
    ("XADD", "agent.events", "*", "a", "1"),
    ("XRANGE", "agent.events", "-", "+"),
    ("HSET", "gw:ledger", "a", "1"),
    ("HGETALL", "gw:ledger"),
    ("HGETALL", "gw:req:agent-other:1"),
    ("HGETALL", "gw:req:admin:1"),
    ("SET", "gw:epoch", "1"),
    ("DEL", "model.requests"),
    ("XTRIM", "model.requests", "MAXLEN", "0"),
    ("XGROUP", "DESTROY", "model.requests", "workers"),
    ("XACK", "model.requests", "workers", "1-1"),
    ("XINFO", "STREAM", "model.requests", "FULL"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("SUBSCRIBE", "x"),
]
FORBIDDEN_TO_ISOLATED = [
    ("XADD", "model.requests", "*", "a", "1"),
    ("XADD", "model.control", "*", "a", "1"),
    ("XRANGE", "model.ingress.outside", "-", "+"),
    ("HSET", "gw:req:agent-outside:1", "a", "1"),
    ("SCRIPT", "LOAD", "return 1"),
    ("EVAL", "return 1", "0"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with a trusted agent, ``inside``, and an isolated one, ``outside``."""
    server = RedisServer(tmp_path_factory.mktemp("acl"), users=(TRUSTED, ISOLATED))
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.close()


def url_of(server: RedisServer, agent: str) -> str:
    return server.url.replace(f":{server.server.password}", f"agent-{agent}:{PASSWORD}")


@pytest.fixture
async def inside(server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(url_of(server, "inside"))
    yield client
    await client.aclose()


@pytest.fixture
async def outside(server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(url_of(server, "outside"))
    yield client
    await client.aclose()


async def test_a_trusted_agent_can_submit_read_and_cancel_with_the_client(server: RedisServer):
    client = StreamClient(url_of(server, "inside"), sender="agent-inside", secret="s" * 32)
    await client.start()
    try:
        async with await client.submit(principal="agent-inside", model="echo", body=b"{}") as exchange:
            await exchange.cancel()
        again = await client.submit(principal="agent-inside", model="echo", body=b"{}", request_id=exchange.request_id)
        assert again.ready() is None
    finally:
        await client.close()
    async with connect(server.url) as everything:
        assert await everything.xlen("model.requests") == 1
        assert await everything.xlen("model.control") == 1


async def test_a_trusted_agent_can_publish_with_a_plain_xadd(inside: Redis):
    assert await inside.xadd("model.requests", {"v": "1"})


async def test_an_isolated_agent_can_write_its_ingress_and_read_its_replies(outside: Redis):
    assert await outside.xadd("model.ingress.outside", {"v": "1"})
    assert await outside.xrange("model.replies.agent-outside") == []
    assert not await outside.xread({"model.replies.agent-outside": "0"})


@pytest.mark.parametrize("command", FORBIDDEN_TO_ALL, ids=" ".join)
async def test_no_agent_may(command: tuple[str, ...], inside: Redis, outside: Redis):
    for agent in (inside, outside):
        with pytest.raises(NoPermissionError):
            await agent.execute_command(*command)


@pytest.mark.parametrize("command", FORBIDDEN_TO_ISOLATED, ids=" ".join)
async def test_an_isolated_agent_may_not(command: tuple[str, ...], outside: Redis):
    with pytest.raises(NoPermissionError):
        await outside.execute_command(*command)


async def test_a_script_gives_an_agent_no_rights_that_it_has_not(inside: Redis):
    sha = await inside.script_load("return redis.call('XRANGE', 'model.requests', '-', '+')")
    with pytest.raises(ResponseError, match="ACL failure in script"):
        await inside.evalsha(sha, 0)


async def test_a_wrong_password_is_no_user(server: RedisServer):
    wrong = connect(url_of(server, "inside").replace(PASSWORD, "wrong"))
    with pytest.raises(AuthenticationError):
        await wrong.ping()
    await wrong.aclose()


def test_a_line_holds_the_digest_of_the_password_and_not_the_password():
    lines = acl_lines(parse_config(CONFIG), {"AGENT_DEMO_REDIS_PASSWORD": PASSWORD})
    assert len(lines) == 1
    assert lines[0].startswith(f"user agent-demo reset on #{password_sha256(PASSWORD)} ")
    assert PASSWORD not in lines[0]


@pytest.mark.parametrize(("password", "problem"), [("", "is not set"), ("short", "is shorter than")])
def test_a_missing_or_weak_password_is_refused_by_its_name(password: str, problem: str):
    with pytest.raises(ConfigError, match=f"AGENT_DEMO_REDIS_PASSWORD: {problem}"):
        acl_lines(parse_config(CONFIG), {"AGENT_DEMO_REDIS_PASSWORD": password})


def test_the_command_prints_one_line_per_agent(tmp_path: Path):
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GATEWAY_CONFIG": str(config),
        "GATEWAY_DATA_DIR": str(tmp_path),
        "AGENT_DEMO_REDIS_PASSWORD": PASSWORD,
    }
    command = [sys.executable, "-m", "gateway_cli", "acl"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == acl_lines(parse_config(CONFIG), environment)
