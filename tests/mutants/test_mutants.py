"""Tests of the tests: each deliberate bug, put into a copy of the project, must be caught."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.chaos.scale import FULL
from tests.mutants.mutants import FURTHER, REQUIRED, Mutant

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway_api", "gateway_cli", "gateway_insights", "gateway_worker", "model_gateway", "tests")
TESTS_FAILED = 1
SECONDS = 100.0
ALL_SECONDS = 280.0


def copy_of_the_project(folder: Path) -> Path:
    """What the tests need of it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def break_it(project: Path, mutant: Mutant) -> None:
    path = project / mutant.file
    text = path.read_text()
    assert text.count(mutant.sound) == 1, f"{mutant.file} has changed: write the mutant '{mutant.name}' anew"
    path.write_text(text.replace(mutant.sound, mutant.broken))


async def run_tests(project: Path, *nodes: str, within: float = SECONDS) -> tuple[int | None, str]:
    """Exit code and output of pytest there; its processes import from there too."""
    command = ["-m", "pytest", "--quiet", "-x", "-p", "no:cacheprovider", "--timeout", "60", *nodes]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=project,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


@pytest.mark.parametrize("mutant", [*REQUIRED, *(FURTHER if FULL else ())], ids=lambda mutant: mutant.name)
async def test_the_suite_catches(mutant: Mutant, tmp_path, record_property):
    project = copy_of_the_project(tmp_path)
    break_it(project, mutant)
    code, said = await run_tests(project, mutant.caught_by)
    record_property("fault", f"mutant: {mutant.name}")
    record_property("caught by", mutant.caught_by)
    assert code == TESTS_FAILED, said[-3000:]
    assert "\nE  " in said, said[-3000:]
    assert "Error compiling script" not in said, said[-3000:]


@pytest.mark.skipif(not FULL, reason="these tests run anyway, each by itself")
@pytest.mark.timeout(300)
async def test_without_a_bug_the_same_tests_pass(tmp_path):
    project = copy_of_the_project(tmp_path)
    nodes = sorted({mutant.caught_by for mutant in (*REQUIRED, *FURTHER)})
    code, said = await run_tests(project, *nodes, within=ALL_SECONDS)
    assert code == 0, said[-3000:]


@pytest.mark.parametrize("mutant", FURTHER, ids=lambda mutant: mutant.name)
def test_a_mutant_still_fits_the_code(mutant: Mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.sound) == 1
