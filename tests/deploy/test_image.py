"""The image: what goes into it, and what its commands do in an empty environment."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.deploy.deployment import DOCKERFILE, ROOT, compose, copied, gateway_services, instructions, reaches_docker

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATA = {".lua", ".sql", ".yaml", ".typed"}
NEEDED = {
    "api": {"REDIS_URL", "ADMIN_TOKEN", "HMAC_SECRET"},
    "worker": {"REDIS_URL", "HMAC_SECRET"},
    "insights": {"REDIS_URL", "HMAC_SECRET"},
    "ledger status": {"REDIS_URL"},
    "ledger init": {"REDIS_URL"},
    "ledger init --if-new": {"REDIS_URL"},
}


def run(binaries: Path, folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of the image's commands somewhere else, with nothing but these variables."""
    environment = {"PATH": os.defpath, "GATEWAY_CONFIG": str(ROOT / "config" / "models.yaml"), **variables}
    arguments = [str(binaries / "model-gateway"), *command.split()]
    return subprocess.run(
        arguments, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def stages() -> list[list[tuple[str, list[str]]]]:
    """The Dockerfile's instructions, by stage."""
    found: list[list[tuple[str, list[str]]]] = []
    for word, arguments in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, arguments))
    return found


def test_everything_that_is_copied_exists_and_reaches_docker():
    assert {"pyproject.toml", "gateway_api", "deploy/healthcheck.py"} <= {*copied()}
    assert [path for path in copied() if not (ROOT / path).exists() or not reaches_docker(path)] == []
    assert reaches_docker("gateway_worker/lua/admit.lua")


@pytest.mark.parametrize(
    "path", [".env", ".gateway/secrets.env", ".git/config", "tests/conftest.py", "config/x", "a/.env"]
)
def test_no_secret_and_nothing_else_is_sent_to_docker(path: str):
    assert not reaches_docker(path)


def test_every_package_of_the_project_is_copied():
    folders = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert folders <= {*copied()}
    assert PROJECT["project"]["readme"] in copied()


def test_the_extras_exist_and_bring_what_the_processes_need():
    [extras] = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {*extras.split(",")} == {"insights", "sdk"}
    assert {*extras.split(",")} <= PROJECT["project"]["optional-dependencies"].keys()


def test_python_is_one_that_the_project_supports_and_tests_with():
    [base] = re.findall(r"^ARG BASE=python:(\S+)-slim", DOCKERFILE.read_text(), re.MULTILINE)
    assert f"py{base.replace('.', '')}" == PROJECT["tool"]["ruff"]["target-version"]


def test_the_last_stage_installs_nothing_and_runs_as_nobody_in_particular():
    build, last = stages()
    text = " ".join(argument for _, arguments in last for argument in arguments)
    assert len(build) > len(last)
    assert not re.search(r"\b(apt|apt-get|apk|pip|gcc|build-essential)\b", text)
    assert [arguments for word, arguments in last if word == "COPY"] == [
        ["--from=build", "/opt/model-gateway", "/opt/model-gateway"]
    ]
    [user] = [arguments[0] for word, arguments in last if word == "USER"]
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) > 0
    assert f"--uid {user.split(':')[0]}" in text


def test_the_ledgers_folder_is_in_the_image_so_that_its_volume_takes_over_the_owner():
    place = compose()["services"]["ledger"]["environment"]["GATEWAY_DATA_DIR"]
    text = " ".join(argument for _, arguments in stages()[-1] for argument in arguments)
    assert f"install --directory --mode=0700 --owner=gateway --group=gateway {place}" in text


def test_the_health_checks_file_is_in_the_image_where_the_services_look_for_it():
    [[_, place]] = [a for w, a in instructions() if w == "COPY" and a[0] == "deploy/healthcheck.py"]
    tests = [row["healthcheck"]["test"] for row in gateway_services().values() if "healthcheck" in row]
    assert [test[:3] for test in tests] == [["CMD", "python", place]] * 3


def test_the_wheel_holds_every_data_file_of_its_packages(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        inside = {*archive.namelist()}
    folders = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in DATA | {".py"}]
    assert {path.suffix for path in files} == DATA | {".py"}
    assert [str(path) for path in files if str(path.relative_to(ROOT)) not in inside] == []


@pytest.mark.parametrize("command", NEEDED)
def test_a_command_of_the_image_names_every_variable_that_is_missing(binaries: Path, tmp_path: Path, command: str):
    found = run(binaries, tmp_path, command)
    assert found.returncode == 2, found.stderr
    assert {*re.findall(r"([A-Z_]{4,}): is not set", found.stderr)} == NEEDED[command]
    assert "Traceback" not in found.stderr


def test_check_config_reads_the_config_with_every_provider_of_the_wheel(binaries: Path, tmp_path: Path):
    found = run(binaries, tmp_path, "check-config")
    assert found.returncode == 0, found.stderr
    assert "echo" in found.stdout


@pytest.mark.parametrize("command", ["", "api", "worker", "insights", "ledger", "check-config", "acl"])
def test_a_command_of_the_image_tells_how_it_is_used(binaries: Path, tmp_path: Path, command: str):
    found = run(binaries, tmp_path, f"{command} --help")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: model-gateway")


def test_what_runs_is_the_wheel_and_not_the_tree(binaries: Path, tmp_path: Path):
    names = "model_gateway", "gateway_api", "gateway_worker", "gateway_insights", "gateway_cli"
    code = "\n".join(f"import {name}; print({name}.__file__)" for name in names)
    command = [str(binaries / "python"), "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=True)
    assert all(path.startswith(str(binaries.parent)) for path in found.stdout.split())
