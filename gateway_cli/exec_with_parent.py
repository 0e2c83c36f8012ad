"""Become another program, and end when the process that started this one ends, however it ended.

Run as a script: ``exec_with_parent.py <parent's pid> <program> <arguments>...``. On Linux the kernel sends SIGTERM
when the parent is gone, so that a supervisor killed with SIGKILL leaves nothing running. It is its own program
because code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def bound_to_this_process(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that starts ``command`` as a child that ends with this process."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *command)


def main() -> None:
    """Ask for the signal, then become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - whoever only builds a command line needs none

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the request was in place
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
