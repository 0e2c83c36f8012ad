"""``up`` refuses what can't work before it starts anything: exit code 2, the setting's name, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_cli.data_directory import locked

ROOT = Path(__file__).parents[2]
CANARY = "canary-secret"


def up(data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``model-gateway up`` where it is expected to refuse."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GATEWAY_CONFIG": str(ROOT / "config" / "models.yaml"),
        "GATEWAY_DATA_DIR": str(data),
        "GATEWAY_PORT": "0",
        "GATEWAY_EVENTS_PORT": "0",
        **variables,
    }
    command = [sys.executable, "-m", "gateway_cli", "up"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def assert_refused(found: subprocess.CompletedProcess[str], *said: str) -> None:
    assert found.returncode == 2, found.stderr
    assert found.stdout == ""
    assert not [text for text in said if text not in found.stderr], found.stderr
    assert "Traceback" not in found.stderr
    assert CANARY not in found.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ADMIN_TOKEN": CANARY}, "ADMIN_TOKEN: is shorter than 32 bytes"),
        ({"HMAC_SECRET": "your-hmac-secret"}, "HMAC_SECRET: is an example out of the documentation"),
        ({"AGENT_DEMO_SECRET": CANARY}, "AGENT_DEMO_SECRET: is shorter"),
        ({"AGENT_DEMO_REDIS_PASSWORD": CANARY}, "AGENT_DEMO_REDIS_PASSWORD: is shorter"),
        ({"REDIS_URL": f"redis://:{CANARY}@host:9x/0"}, "REDIS_URL: expected redis://"),
        ({"GATEWAY_APPENDFSYNC": "no"}, "GATEWAY_APPENDFSYNC: expected always or everysec"),
        ({"GATEWAY_PORT": "8o81"}, "GATEWAY_PORT: expected a whole number"),
        ({"GATEWAY_PORT": "9999", "GATEWAY_EVENTS_PORT": "9999"}, "GATEWAY_EVENTS_PORT: 9999 is GATEWAY_PORT"),
        ({"GATEWAY_CONFIG": "nowhere.yaml"}, "nowhere.yaml: 1 problem(s)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_can_not_work_is_refused_by_its_name(tmp_path: Path, variables: dict[str, str], said: str):
    assert_refused(up(tmp_path / "data", **variables), said)


def test_a_second_gateway_in_the_same_data_directory_is_refused(tmp_path: Path):
    with locked(tmp_path / "lock", "taken"):
        assert_refused(up(tmp_path), "another `model-gateway up` runs with this directory")


def test_a_port_in_use_is_refused_by_its_setting(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert_refused(up(tmp_path, GATEWAY_PORT=str(port)), f"GATEWAY_PORT: 127.0.0.1:{port} is in use")
