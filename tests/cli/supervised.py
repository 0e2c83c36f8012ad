"""A small process to supervise. Its command line is a folder, a name, and how it behaves."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Write down that it started, live, and write down that it was asked to stop."""
    folder, name, behaviour = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        with (folder / "stopped").open("a") as file:
            file.write(f"{name}\n")
        if behaviour != "stubborn":
            sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    with (folder / f"{name}.pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if behaviour == "refuses" or (behaviour == "refuses-later" and (folder / "refuse").exists()):
        sys.exit(2)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
