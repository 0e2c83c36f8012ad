"""Processes that are kept running: started again when they die, stopped in order.

Nothing here knows what the processes are.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from gateway_cli.errors import StartupError
from gateway_cli.exec_with_parent import bound_to_this_process

_log = structlog.get_logger(__name__)

REFUSED: Final = 2
"""The exit code of a process whose config or secrets are wrong: starting it again would not help."""
_SPAWN_FAILED: Final = 127
_STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep running.

    Attributes:
        name: for messages.
        command: the program's absolute path, and its arguments.
        environment: all of its variables.
        stop_seconds: from the request to stop to SIGKILL.
        may_hasten: whether a second request to stop kills it at once.
        pass_fds: descriptors that it inherits.
        stop_signal: what asks it to stop.
        essential: whether nothing is to start where it refuses to.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    stop_seconds: float = 10.0
    may_hasten: bool = True
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    essential: bool = True


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before a process is started again: doubled each time, anew for one that lived long."""

    first: float = 0.2
    most: float = 5.0
    reset_after: float = 10.0

    def after(self, delay: float, lived: float) -> float:
        """The next delay, after one of ``delay`` (0: none yet) and a process that lived ``lived`` seconds."""
        if not delay or lived >= self.reset_after:
            return self.first
        return min(2 * delay, self.most)


class _Supervised:
    """One service, kept running until it is stopped."""

    def __init__(self, service: Service, supervisor: Supervisor) -> None:
        self.service = service
        self._supervisor = supervisor
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running(), name=service.name)

    async def _keep_running(self) -> None:
        delay = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set() or self._supervisor.gives_up_on(self.service, code):
                return
            delay = self._supervisor.backoff.after(delay, time.monotonic() - started)
            _log.warning("process.died", process=self.service.name, exit_code=code, restart_in_seconds=delay)
            await self._pause(delay)

    async def _run_once(self) -> int:
        """Run the process to its end; its exit code, negative for a signal."""
        try:
            self._process = await _spawn(self.service)
        except OSError as error:
            _log.error("process.not_started", process=self.service.name, error=str(error))
            return _SPAWN_FAILED
        if self._stopping.is_set():  # stop() came while there was no process to signal
            self._ask_to_stop()
        return await self._process.wait()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def stop(self, hasten: asyncio.Event) -> None:
        """Ask it to stop; SIGKILL when it is over time or hastened."""
        self._stopping.set()
        self._ask_to_stop()
        hastened = asyncio.create_task(hasten.wait())
        over = {self._task, hastened} if self.service.may_hasten else {self._task}
        await asyncio.wait(over, timeout=self.service.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
        hastened.cancel()
        if not self._task.done():
            _log.warning("process.killed", process=self.service.name)
            self._signal(signal.SIGKILL)
        await self._task

    def _ask_to_stop(self) -> None:
        """By the service's own signal. A child that is still the Python which becomes it would complain of SIGINT."""
        begun = self._process is not None and _program(self._process.pid) != str(Path(sys.executable).resolve())
        self._signal(self.service.stop_signal if begun else signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Supervisor:
    """Keeps services running, stops them in the reverse order of their start."""

    def __init__(self, backoff: Backoff = Backoff()) -> None:
        """Make one inside a running loop."""
        self.backoff = backoff
        self._stages: list[list[_Supervised]] = []
        self._starting = True
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hasten = asyncio.Event()

    def start(self, *services: Service) -> None:
        """Start services that belong together; they are stopped together, before what was started earlier."""
        self._stages.append([_Supervised(service, self) for service in services])

    def request_stop(self) -> None:
        """Stop; asked twice, kill what is still stopping."""
        if self._outcome.done():
            self._hasten.set()
        else:
            self._outcome.set_result(None)

    def stop_on_signals(self) -> None:
        """Take Ctrl-C, SIGTERM and a closed terminal as ``request_stop``."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.request_stop)

    async def run(self, startup: Coroutine[Any, Any, None]) -> None:
        """Carry out ``startup``, which starts services, then keep them running until asked to stop.

        Raises:
            StartupError: a service refused to start.
        """
        starting = asyncio.create_task(startup, name="startup")
        try:
            await asyncio.wait({starting, self._outcome}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._starting = False
            await self._outcome
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._stop()

    def gives_up_on(self, service: Service, code: int) -> bool:
        """Whether a process that ended is not to be started again."""
        if code == REFUSED and not service.essential:
            _log.warning("process.refused_to_start", process=service.name, todo="it says why above; the rest runs")
            return True
        if not self._starting or code != REFUSED:
            return False
        if not self._outcome.done():
            refused = StartupError(f"{service.name} refused to start; it says why above", exit_code=REFUSED)
            self._outcome.set_exception(refused)
        return True

    async def _stop(self) -> None:
        if not self._outcome.done():  # startup failed: the next request hastens
            self._outcome.set_result(None)
        for stage in reversed(self._stages):
            await asyncio.gather(*(supervised.stop(self._hasten) for supervised in stage))


async def _spawn(service: Service) -> asyncio.subprocess.Process:
    """Start a process in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
    return await asyncio.create_subprocess_exec(
        *bound_to_this_process(service.command),
        env=service.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=_STDERR,
        start_new_session=True,
        pass_fds=service.pass_fds,
    )


def _program(pid: int) -> str:
    """What a process runs; empty where nobody can say."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""
