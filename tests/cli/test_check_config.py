"""``check-config`` reports every mistake at once, with its path in the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_cli.check_config import checked_config
from model_gateway.settings import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "models.yaml"


def check_config(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "gateway_cli", "check-config", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_published_example_is_good_as_it_stands():
    found = check_config(str(EXAMPLE))
    assert found.returncode == 0, found.stderr
    assert "1 served: echo" in found.stdout
    assert "gpt-4o waits for OPENAI_API_KEY" in found.stdout


def test_a_key_in_the_environment_makes_its_models_served_and_is_not_shown():
    found = check_config(GATEWAY_CONFIG=str(EXAMPLE), OPENAI_API_KEY="sk-canary")
    assert "5 served" in found.stdout
    assert "canary" not in found.stdout + found.stderr


def test_mistakes_go_to_stderr_with_exit_code_2_and_no_traceback(tmp_path: Path):
    path = tmp_path / "models.yaml"
    path.write_text("models: {echo: {provider: echo, fre: true, timeout: -1}}\ndefaults: {vitals: gone}\n")
    found = check_config(str(path))
    assert found.returncode == 2
    assert found.stdout == ""
    assert "models.echo.fre: unknown setting; did you mean 'free'?" in found.stderr
    assert "models.echo.timeout:" in found.stderr
    assert "defaults.vitals: there is no model 'gone'" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_missing_file_is_a_mistake_too(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be read"):
        checked_config(tmp_path / "nowhere.yaml")


def test_providers_and_prices_are_reported_together(tmp_path: Path):
    path = tmp_path / "models.yaml"
    path.write_text("""
models:
  misspelt: {provider: opnai, free: true}
  unpriced: {provider: echo}
  half: {provider: echo, input_cost: 0.000001}
""")
    with pytest.raises(ConfigError) as refused:
        checked_config(path)
    problems = "\n".join(refused.value.problems)
    assert "models.misspelt.provider: no provider 'opnai'; installed are" in problems
    assert "models.unpriced: no price" in problems
    assert "models.half: set both input_cost and output_cost" in problems
