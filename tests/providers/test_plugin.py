"""Plug-ins: the three ways to register a provider, and the example package, built, installed and serving."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.providers.echo import EchoProvider
from model_gateway.testing import Scenario, ScriptedServer
from tests.processes import ROOT, gateway

EXAMPLE = ROOT / "examples" / "provider_plugin"
KEY = "feather-planted-0123456789abcdefghijklmnopqrstuvwxyz"
CONFIG = """
models:
  polly:
    {{provider: parrot, engine: polly-2, api_base: "{url}", api_key_env: PARROT_API_KEY, input_cost: 0.000001,
      output_cost: 0.000002, max_tokens: 50}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
"""


class Custom(EchoProvider):
    """Some provider that nobody knows yet."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[ProviderInterface]]:
    """What is registered, put back afterwards."""
    monkeypatch.setattr(ProviderFactory, "_providers", dict(ProviderFactory._providers))
    return ProviderFactory._providers


# the three ways


def test_a_registered_class_is_found_by_its_name(registry: Any) -> None:
    ProviderFactory.register("custom", Custom)
    assert ProviderFactory.find("custom") is Custom


def test_a_class_put_into_the_table_is_found_by_its_name(registry: Any) -> None:
    ProviderFactory._providers["custom"] = Custom
    assert ProviderFactory.find("custom") is Custom


def test_an_installed_entry_point_is_found_by_its_name(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_point(tmp_path, "custom", f"{__name__}:Custom")
    monkeypatch.syspath_prepend(tmp_path)
    assert ProviderFactory.find("custom") is Custom


def test_what_is_registered_wins_over_what_is_installed(registry: Any) -> None:
    ProviderFactory.register("openai", Custom)
    assert ProviderFactory.find("openai") is Custom


def test_a_name_that_nobody_has_is_refused_with_those_that_there_are(registry: Any) -> None:
    ProviderFactory.register("custom", Custom)
    with pytest.raises(LookupError, match=r"no provider 'nobody'; installed are .*custom.*echo"):
        ProviderFactory.find("nobody")


def test_a_plugin_that_can_not_be_loaded_is_a_mistake_in_the_config(tmp_path: Path) -> None:
    entry_point(tmp_path, "parrot", "no_such_module:Provider")
    found = check_config(tmp_path, "http://127.0.0.1:9")
    assert found.returncode == 2
    assert "models.polly.provider: No module named 'no_such_module'" in found.stderr


def entry_point(folder: Path, name: str, target: str) -> None:
    """What an installer leaves of a package with an entry point."""
    info = folder / "custom-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: custom\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[model_gateway.providers]\n{name} = {target}\n")


# the example


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the example was installed into, from a copy, so that the build leaves nothing here."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "target"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", str(target)]
    run(*pip, *options, str(source), check=True)
    yield target
    shutil.rmtree(folder)


def run(*command: str, check: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert found.returncode == 0 or not check, found.stdout + found.stderr
    return found


def check_config(plugins: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``model-gateway check-config``, as an operator runs it who has installed a plug-in."""
    path = plugins / "models.yaml"
    path.write_text(CONFIG.format(url=url))
    command = (sys.executable, "-m", "gateway_cli", "check-config", str(path))
    return run(*command, PYTHONPATH=f"{plugins}{os.pathsep}{ROOT}", AGENT_TEST_SECRET="x" * 40, **variables)


def parrot(scenario: Scenario, request: Any) -> bytes | list[bytes]:
    """A vendor that repeats what was said last, which is one token."""
    says, end = request["script"][-1]["says"], {"ended": "done", "seeds": {"cracked": 3, "spat": 1}}
    head = {"squawk": "sq_1", "parrot": request["parrot"]}
    if not request.get("live"):
        return orjson.dumps({**head, "says": says, **end})
    return [b"data: %b\n\n" % orjson.dumps(event) for event in (head, {"says": says}, end)]


def test_the_example_is_found_by_its_entry_point_once_it_is_installed(installed: Path) -> None:
    script = "from model_gateway.providers import ProviderFactory as F; print(F.find('parrot').__module__)"
    found = run(sys.executable, "-c", script, PYTHONPATH=f"{installed}{os.pathsep}{ROOT}", check=True)
    assert found.stdout.strip() == "model_gateway_parrot.provider"


def test_check_config_knows_the_example_and_what_it_waits_for(installed: Path, tmp_path: Path) -> None:
    waiting = check_config(installed, "http://127.0.0.1:9")
    assert (waiting.returncode, "polly waits for PARROT_API_KEY" in waiting.stdout) == (0, True), waiting.stderr
    served = check_config(installed, "http://127.0.0.1:9", PARROT_API_KEY=KEY)
    assert "1 served: polly" in served.stdout
    assert KEY not in served.stdout + served.stderr
    without = check_config(tmp_path, "http://127.0.0.1:9")
    assert "no provider 'parrot'; installed are" in without.stderr


def test_the_example_passes_its_own_tests_and_with_them_the_conformance_suite(installed: Path) -> None:
    source = installed.parent / "source"
    pytest_run = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(source / "tests"))
    found = run(*pytest_run, "-c", str(source / "pyproject.toml"), PYTHONPATH=f"{installed}{os.pathsep}{ROOT}")
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(found.stdout.rpartition(" passed")[0].split()[-1]) > 40


async def test_the_example_answers_through_a_worker(
    installed: Path, redis: Any, redis_url: str, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": "Grüße 😀"}]
    variables = {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}", "PARROT_API_KEY": KEY}
    async with (
        ScriptedServer(Scenario.TEXT, parrot) as server,
        gateway(redis, redis_url, tmp_path, CONFIG.format(url=server.url), **variables) as house,
        house.agent() as agent,
    ):
        await house.start_worker()
        reply = await agent.complete(model="polly", messages=messages)
        chunks = [chunk async for chunk in agent.stream(model="polly", messages=messages)]
        with pytest.raises(GatewayError) as caught:
            await agent.complete(model="polly", messages=messages, seed=1)
    assert reply["choices"][0]["message"]["content"] == messages[0]["content"]
    assert reply["usage"]["total_tokens"] == 4
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == messages[0]["content"]
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "seed")
    said = [{"parrot": "polly-2", "script": [{"who": "visitor", "says": messages[0]["content"]}], "breath": 50}]
    assert server.requests == [*said, {**said[0], "live": True}]
