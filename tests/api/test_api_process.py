"""The front door as a process: what it refuses to start with, and how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import aiohttp
import pytest

from tests.api.stream_worker import ADMIN_TOKEN, HMAC_SECRET, StreamWorker
from tests.processes import ROOT, gateway, wait_until

CONFIG = "models: {echo: {provider: echo, free: true}}\nworker: {drain_seconds: 10}"
CANARY = "a-prompt-that-must-not-be-logged"
ASK = {"model": "echo", "messages": [{"role": "user", "content": CANARY}]}
BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.fixture
async def api(redis, redis_url, tmp_path):
    """A front-door process that is ready."""
    await StreamWorker(redis).serve("echo")
    async with gateway(redis, redis_url, tmp_path, CONFIG) as running:
        await running.start_api()
        yield running


async def ask(api, **fields) -> tuple[int, bytes]:
    url = f"{api.url}/v1/chat/completions"
    async with aiohttp.ClientSession(headers=BEARER) as session, session.post(url, json=ASK | fields) as response:
        return response.status, await response.read()


async def refuses_connections(api) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stopping_lets_what_runs_finish_and_takes_nothing_new(api, redis, number):
    worker = StreamWorker(redis)
    whole = asyncio.create_task(ask(api))
    first = await worker.take()
    streamed = asyncio.create_task(ask(api, stream=True))
    second = await worker.take()
    await second.chunk("half, ")
    (part,) = api.parts
    part.process.send_signal(number)
    await wait_until(lambda: refuses_connections(api))
    data = await first.reply()
    await second.chunk("and the other half", final=True)
    assert await whole == (200, data)
    assert (await streamed)[1].endswith(b"data: [DONE]\n\n")
    assert await asyncio.wait_for(part.process.wait(), 20) == 0


async def test_the_log_is_json_and_holds_neither_token_nor_secret_nor_prompt(api, redis):
    worker = StreamWorker(redis)
    asking = asyncio.create_task(ask(api))
    await (await worker.take()).reply()
    await asking
    await ask(api, max_tokens=-1)
    (part,) = api.parts
    assert await part.stop() == 0
    lines = part.log.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["api.listening", "api.stopping"]
    for secret in (ADMIN_TOKEN, HMAC_SECRET, CANARY):
        assert secret not in part.log.read_text()


async def start(folder, **variables: str) -> tuple[int, str]:
    """The exit code of a front door that does not start, and what it says."""
    config = folder / "models.yaml"
    config.write_text(CONFIG)
    good = {
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "HMAC_SECRET": HMAC_SECRET,
        "GATEWAY_CONFIG": str(config),
    }
    command = (sys.executable, "-m", "gateway_api")
    process = await asyncio.create_subprocess_exec(*command, env=good | variables, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_it_does_not_start_without_good_secrets_and_names_every_one_but_shows_none(tmp_path):
    code, said = await start(tmp_path, REDIS_URL="", ADMIN_TOKEN="too-short", HMAC_SECRET="your-hmac-secret")
    assert code == 2
    assert all(name in said for name in ("REDIS_URL", "ADMIN_TOKEN", "HMAC_SECRET"))
    assert "too-short" not in said
    assert "your-hmac-secret" not in said


async def test_it_does_not_start_without_a_config_and_says_where_it_looked(tmp_path):
    code, said = await start(tmp_path, GATEWAY_CONFIG="/nowhere/models.yaml")
    assert code == 2
    assert "/nowhere/models.yaml" in said


async def test_it_says_so_when_its_port_is_taken(api, redis_url, tmp_path):
    code, said = await start(tmp_path, REDIS_URL=redis_url, GATEWAY_PORT=str(api.port))
    assert code == 1
    assert str(api.port) in said
