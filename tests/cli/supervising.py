"""A supervisor in a process of its own, for tests that stop or kill it. Its command line is a folder."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway_cli.supervisor import Service, Supervisor


async def main(folder: Path) -> None:
    """Supervise two processes, until it is told to stop."""
    supervisor = Supervisor()
    supervisor.stop_on_signals()

    async def start() -> None:
        for name in ("first", "second"):
            program = str(Path(__file__).with_name("supervised.py"))
            command = (sys.executable, program, str(folder), name, "obedient")
            supervisor.start(Service(name, command, dict(os.environ)))

    await supervisor.run(start())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
