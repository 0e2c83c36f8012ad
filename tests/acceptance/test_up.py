"""``model-gateway up`` as a person runs it: one command, one line, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.processes import ROOT, free_port, wait_until

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class Up:
    """One running ``up``."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GATEWAY_DATA_DIR": str(self.data),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_EVENTS_PORT": str(free_port()),
            "GATEWAY_CONFIG": str(ROOT / "config" / "models.yaml"),
        }
        self.log = folder / "up.log"

    async def start(self) -> str:
        """Start it; the line that it prints when it is ready."""
        with self.log.open("ab") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway_cli", "up"),
                env=self.variables,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        assert line, self.log.read_text()
        return line.decode()

    def parts(self) -> dict[str, int]:
        """Its processes by what they are."""
        found = {}
        for child in _descendants(self.process.pid):
            command = _command(child)
            for part in ("gateway_worker", "gateway_api", "gateway_insights", "valkey-server", "bin/postgres"):
                if part in command:
                    found[part] = child
        return found

    async def ask(self, method="POST", path="/v1/chat/completions", **fields):
        headers = {"Authorization": f"Bearer {self.secret('ADMIN_TOKEN')}"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", headers=headers) as session,
            session.request(method, path, **fields) as answer,
        ):
            return answer.status, await answer.json()

    async def answers(self) -> bool:
        try:
            return (await self.ask(json=HELLO))[0] == 200
        except aiohttp.ClientError:
            return False

    def secret(self, name: str) -> str:
        lines = (self.data / "secrets.env").read_text().splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return values[name].strip("'\"")

    async def interrupt(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), 60)


def _command(pid: int) -> str:
    """A process's command line; empty if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descendants(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    return [child for child, parent in parents.items() if parent == pid]


@pytest.fixture
async def up(tmp_path):
    running = Up(tmp_path)
    yield running
    if running.process.returncode is None:
        await running.interrupt()


async def test_one_command_starts_everything_and_ctrl_c_leaves_only_data(up):
    line = await up.start()
    assert f"http://127.0.0.1:{up.port}" in line
    assert "secrets.env" in line
    status, reply = await up.ask(json=HELLO)
    assert (status, reply["choices"][0]["message"]["content"]) == (200, "hello")
    parts = up.parts()
    assert set(parts) == {"gateway_worker", "gateway_api", "gateway_insights", "valkey-server", "bin/postgres"}
    assert (up.data / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert up.data.stat().st_mode & 0o777 == 0o700
    assert await up.interrupt() == 0
    assert not [name for name, pid in parts.items() if Path(f"/proc/{pid}").exists()]
    assert await up.process.stdout.read() == b""


async def test_a_request_shows_in_the_insights_and_is_found_by_what_it_meant(up):
    """Front door, worker, events, PostgreSQL and embedding, as one command starts them."""
    await up.start()
    for text in ("How do I bake a loaf of bread?", "Which city is the capital of France?"):
        await up.ask(json={"model": "echo", "messages": [{"role": "user", "content": text}]})
    spent = (await up.ask("GET", "/budget/stats"))[1]["spent_nano"]

    async def counted():
        status, stats = await up.ask("GET", "/insights/stats?hours=1")
        return status == 200 and stats["total"]["cost_nano"] == spent

    async def found():
        status, answer = await up.ask("GET", "/insights/similar?query=baking%20at%20home&limit=1")
        return status == 200 and answer["results"] and answer["results"][0]["request_text"]

    await wait_until(counted, what="the cost in the insights")
    assert await wait_until(found, what="a vector") == "How do I bake a loaf of bread?"
    status, trends = await up.ask("GET", "/insights/trends?days=1")
    assert (status, trends["total"]["cost_nano"]) == (200, spent)


async def test_what_was_spent_and_the_secrets_are_still_there_after_a_restart(up):
    await up.start()
    await up.ask(json=HELLO)
    before, token = await up.ask("GET", "/budget/stats"), up.secret("ADMIN_TOKEN")
    await up.interrupt()
    await up.start()
    after = await up.ask("GET", "/budget/stats")
    assert after[1]["spent_nano"] == before[1]["spent_nano"] > 0
    assert up.secret("ADMIN_TOKEN") == token


async def test_a_part_that_is_killed_is_started_again(up):
    await up.start()
    parts = up.parts()
    assert len(parts) == 5
    for part, victim in parts.items():
        os.kill(victim, signal.SIGKILL)
        await wait_until(partial(replaced, up, part, victim), within=20, what=f"{part} again")
        await wait_until(up.answers, within=30, what=f"an answer after {part}")
    assert await up.interrupt() == 0


def replaced(up, part, victim):
    return up.parts().get(part) not in (None, victim)
