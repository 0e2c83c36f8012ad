"""Processes are kept running, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_cli.errors import StartupError
from gateway_cli.supervisor import Backoff, Service, Supervisor
from tests.processes import wait_until

HERE = Path(__file__).parent
QUICK = Backoff(first=0.01, most=0.05)


def service(
    folder: Path, name: str, behaviour: str = "obedient", *, stop_seconds: float = 20.0, may_hasten: bool = True
) -> Service:
    command = (sys.executable, str(HERE / "supervised.py"), str(folder), name, behaviour)
    return Service(name, command, dict(os.environ), stop_seconds, may_hasten=may_hasten)


def pids(folder: Path, name: str) -> list[int]:
    """Every process that ran under a name, in order."""
    path = folder / f"{name}.pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether a process is there and more than an entry that nobody has collected yet."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text() if sys.platform == "linux" else ""
    except (ProcessLookupError, FileNotFoundError):
        return False
    return ") Z " not in status


@asynccontextmanager
async def supervising(*stages: list[Service]) -> AsyncIterator[tuple[Supervisor, asyncio.Task[None]]]:
    """A supervisor with its stages started; stopped at the end if the test has not done so."""
    supervisor = Supervisor(QUICK)

    async def start() -> None:
        for stage in stages:
            supervisor.start(*stage)

    running = asyncio.create_task(supervisor.run(start()))
    yield supervisor, running
    supervisor.request_stop()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_killed_process_comes_back(tmp_path: Path):
    async with supervising([service(tmp_path, "worker")]):
        for times in (1, 2, 3):
            await wait_until(lambda: len(pids(tmp_path, "worker")) == times)  # noqa: B023 - waited for here
            os.kill(pids(tmp_path, "worker")[-1], signal.SIGKILL)
        await wait_until(lambda: len(pids(tmp_path, "worker")) == 4)
    assert not [pid for pid in pids(tmp_path, "worker") if is_running(pid)]


async def test_a_death_does_not_touch_the_others(tmp_path: Path):
    async with supervising([service(tmp_path, "redis")], [service(tmp_path, "api")]):
        await wait_until(lambda: pids(tmp_path, "redis") and pids(tmp_path, "api"))
        os.kill(pids(tmp_path, "redis")[0], signal.SIGKILL)
        await wait_until(lambda: len(pids(tmp_path, "redis")) == 2)
        assert len(pids(tmp_path, "api")) == 1
        assert is_running(pids(tmp_path, "api")[0])


def test_the_wait_before_a_restart_doubles_up_to_a_bound_and_begins_anew_after_a_long_life():
    backoff, delay, delays = Backoff(), 0.0, []
    for lived in (0, 0, 0, 0, 0, 0, 0, 9.9, 10.0):
        delay = backoff.after(delay, lived)
        delays.append(delay)
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.2]


async def test_a_process_that_refuses_its_config_at_start_stops_everything(tmp_path: Path):
    stages = [service(tmp_path, "redis")], [service(tmp_path, "worker", "refuses")]
    supervisor = Supervisor(QUICK)

    async def start() -> None:
        for stage in stages:
            supervisor.start(*stage)
        await asyncio.Event().wait()  # never ready

    with pytest.raises(StartupError, match="worker refused to start") as refused:
        await supervisor.run(start())
    assert refused.value.exit_code == 2
    assert len(pids(tmp_path, "worker")) == 1
    assert not [pid for pid in pids(tmp_path, "redis") if is_running(pid)]


async def test_a_process_that_is_not_essential_may_refuse_and_is_left_alone(tmp_path: Path):
    spare = replace(service(tmp_path, "insights", "refuses"), essential=False)
    async with supervising([service(tmp_path, "worker")], [spare]):
        await wait_until(lambda: pids(tmp_path, "worker") and pids(tmp_path, "insights"))
        await wait_until(lambda: not is_running(pids(tmp_path, "insights")[0]))
        assert is_running(pids(tmp_path, "worker")[0])
    assert len(pids(tmp_path, "insights")) == 1


async def test_a_process_that_exits_with_2_after_the_start_is_started_again(tmp_path: Path):
    async with supervising([service(tmp_path, "worker", "refuses-later")]):
        await wait_until(lambda: pids(tmp_path, "worker"))
        (tmp_path / "refuse").touch()
        os.kill(pids(tmp_path, "worker")[0], signal.SIGKILL)
        await wait_until(lambda: len(pids(tmp_path, "worker")) >= 3)
        (tmp_path / "refuse").unlink()
        await wait_until(lambda: is_running(pids(tmp_path, "worker")[-1]))


async def test_what_fails_at_start_stops_what_was_started(tmp_path: Path):
    supervisor = Supervisor(QUICK)

    async def start() -> None:
        supervisor.start(service(tmp_path, "redis"))
        await wait_until(lambda: pids(tmp_path, "redis"))
        raise StartupError("not ready")

    with pytest.raises(StartupError, match="not ready"):
        await supervisor.run(start())
    assert not is_running(pids(tmp_path, "redis")[0])


async def test_processes_stop_in_the_reverse_order_of_their_start(tmp_path: Path):
    names = ["redis", "worker", "api"]
    async with supervising(*([service(tmp_path, name)] for name in names)) as (supervisor, running):
        await wait_until(lambda: all(pids(tmp_path, name) for name in names))
        supervisor.request_stop()
        await running
    assert (tmp_path / "stopped").read_text().split() == ["api", "worker", "redis"]


async def test_a_process_that_is_over_its_time_is_killed(tmp_path: Path):
    async with supervising([service(tmp_path, "worker", "stubborn", stop_seconds=0.1)]) as (supervisor, running):
        await wait_until(lambda: pids(tmp_path, "worker"))
        supervisor.request_stop()
        await running
    assert not is_running(pids(tmp_path, "worker")[0])


async def test_a_process_is_asked_by_its_own_signal_once_it_is_what_it_becomes(tmp_path: Path):
    """A shell stands for the program; the Python that becomes one has no answer to its signal.

    Not SIGINT, which a shell can't trap where whoever started these tests in the background has it ignored.
    """
    trap = f"trap 'echo program >> {tmp_path}/stopped; exit' USR1"
    script = f"{trap}; echo $$ > {tmp_path}/program.pids; while :; do sleep 0.1; done"
    program = Service("program", ("/bin/sh", "-c", script), dict(os.environ), stop_signal=signal.SIGUSR1)
    becoming = replace(service(tmp_path, "becoming"), stop_signal=signal.SIGUSR1)
    async with supervising([program, becoming]) as (supervisor, running):
        await wait_until(lambda: pids(tmp_path, "program") and pids(tmp_path, "becoming"))
        supervisor.request_stop()
        await running
    assert sorted((tmp_path / "stopped").read_text().split()) == ["becoming", "program"]


async def test_asking_twice_kills_at_once_but_lets_the_database_save(tmp_path: Path):
    redis = service(tmp_path, "redis", may_hasten=False)
    worker = service(tmp_path, "worker", "stubborn", stop_seconds=600)
    async with supervising([redis], [worker]) as (supervisor, running):
        await wait_until(lambda: pids(tmp_path, "redis") and pids(tmp_path, "worker"))
        supervisor.request_stop()
        await wait_until((tmp_path / "stopped").exists)
        supervisor.request_stop()
        await running
    assert (tmp_path / "stopped").read_text().split() == ["worker", "redis"]


@pytest.fixture
def supervisor_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of its own, at the head of a process group as a terminal would make it."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "supervising.py"), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


async def both_running(folder: Path) -> list[int]:
    await wait_until(lambda: pids(folder, "first") and pids(folder, "second"))
    return [pids(folder, name)[0] for name in ("first", "second")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_ctrl_c_stops_everything_in_order(
    supervisor_process: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
):
    running = await both_running(tmp_path)
    os.killpg(supervisor_process.pid, number)
    await wait_until(lambda: supervisor_process.poll() is not None)
    assert supervisor_process.returncode == 0
    assert (tmp_path / "stopped").read_text().split() == ["second", "first"]
    assert not [pid for pid in running if is_running(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel to tell a child of its parent's end")
async def test_a_supervisor_that_is_killed_leaves_no_process(
    supervisor_process: subprocess.Popen[bytes], tmp_path: Path
):
    running = await both_running(tmp_path)
    supervisor_process.kill()
    await wait_until(lambda: not [pid for pid in running if is_running(pid)])
