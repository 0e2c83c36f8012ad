"""The data directory is the owner's alone, and one gateway's at a time."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_cli.data_directory import create_data_directory, locked, write_private
from model_gateway.settings import ConfigError


def test_a_new_directory_is_the_owners_alone(tmp_path: Path):
    found = create_data_directory(tmp_path / "deep" / "data")
    assert found.is_absolute()
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_a_directory_that_others_may_write_is_refused_and_keeps_its_mode(tmp_path: Path):
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match="others may write"):
        create_data_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_a_file_where_the_directory_should_be_is_refused(tmp_path: Path):
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match="GATEWAY_DATA_DIR"):
        create_data_directory(tmp_path / "data")


def test_a_private_file_is_replaced_whole_and_never_open_to_others(tmp_path: Path):
    path = tmp_path / "redis.url"
    write_private(path, "old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_and_free_after_it(tmp_path: Path):
    path = tmp_path / "lock"
    with locked(path, "taken"), pytest.raises(ConfigError, match="taken"), locked(path, "taken"):
        pytest.fail("two hold one lock")
    with locked(path, "taken"):
        pass


def test_a_child_that_inherits_a_lock_holds_it_until_it_ends(tmp_path: Path):
    path = tmp_path / "lock"
    wait_for_input = [sys.executable, "-I", "-S", "-c", "input()"]
    with locked(path, "taken") as descriptor:
        child = subprocess.Popen(
            wait_for_input, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(descriptor,)
        )
    with child, pytest.raises(ConfigError, match="taken"), locked(path, "taken"):
        pytest.fail("the child's lock was taken")
    with locked(path, "taken"):
        pass
