"""The data directory: secrets, the embedded server's files, locks. Nobody else may write into it."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model_gateway.settings import ConfigError

_LOCK_POLL_SECONDS: Final = 0.05


def create_data_directory(path: Path) -> Path:
    """The directory, made with mode 0700 if it is new; its absolute path.

    One that is there already keeps its mode: it may be somebody's on purpose.

    Raises:
        ConfigError: it can't be made or written, or others may write into it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, "others may write into it; choose one of your own")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(path, "this user may not write into it")
    return path.resolve()


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError("environment", [f"GATEWAY_DATA_DIR: {path} can't be used: {reason}"])


def write_private(path: Path, text: str) -> None:
    """Write a file in one step; at no moment can anybody but its owner read it, or find half of it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


@contextmanager
def locked(path: Path, held: str, wait_seconds: float = 0.0) -> Iterator[int]:
    """Hold an exclusive lock on a file; the descriptor keeps it too in a child that inherits it.

    Args:
        path: the lock's file; made if it is not there.
        held: what to say when somebody else holds it.
        wait_seconds: how long to wait for it.

    Raises:
        ConfigError: somebody else holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_seconds
    try:
        while not _take(descriptor):
            if time.monotonic() >= deadline:
                raise ConfigError("environment", [f"GATEWAY_DATA_DIR: {path.parent}: {held}"])
            time.sleep(_LOCK_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
