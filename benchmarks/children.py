"""Processes that a benchmark starts; they end with it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_cli.exec_with_parent import bound_to_this_process

ROOT = Path(__file__).parent.parent
READY_SECONDS = 30.0
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process, and the line that it printed when it was ready."""

    pid: int
    said: str

    def children(self) -> dict[str, int]:
        """Its own children: the last word of each command line, and the process id."""
        pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ") for pid in pids}
        return {line.split("\0")[-1]: pid for pid, line in lines.items()}


def cpu_us(pid: int) -> float:
    """The CPU time of a process until now, user and system, in microseconds; in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def running(folder: Path, module: str, *arguments: str, **variables: str) -> AsyncIterator[Child]:
    """``python -m <module>`` from its first line on stdout to the block's end. Its log goes into ``folder``."""
    log = folder / f"{module}.log"
    with log.open("wb") as stderr:
        process = await _start(module, *arguments, stdout=asyncio.subprocess.PIPE, stderr=stderr, env=variables)
    try:
        assert process.stdout is not None
        said = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                said = await process.stdout.readline()
        if not said:
            raise RuntimeError(f"{module} did not start in {READY_SECONDS:g} s:\n{log.read_text()}")
        yield Child(process.pid, said.decode().strip())
    finally:
        await _stop(process)


async def answered(module: str, question: bytes) -> bytes:
    """What ``python -m <module>`` makes of its stdin."""
    pipe = asyncio.subprocess.PIPE
    process = await _start(module, stdin=pipe, stdout=pipe)
    try:
        answer, _ = await process.communicate(question)
    finally:
        await _stop(process)
    if process.returncode:
        raise RuntimeError(f"{module} failed")
    return answer


async def _start(
    module: str, *arguments: str, env: dict[str, str] | None = None, **streams: Any
) -> asyncio.subprocess.Process:
    command = bound_to_this_process((sys.executable, "-m", module, *arguments))
    variables = {"PATH": os.environ["PATH"], **(env or {})}
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=variables, **streams)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def bounded(benchmark: Coroutine[Any, Any, None], seconds: float) -> None:
    """Run a benchmark for so long at most; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(seconds):
        await benchmark
