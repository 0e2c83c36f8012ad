"""The compose file is right as far as can be told without an engine."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
from jsonschema import Draft202012Validator

from gateway_api.app import create_door
from gateway_cli.main import _parser
from gateway_insights.app import InsightsProcess
from gateway_worker.app import WorkerProcess
from model_gateway.environment import Environment
from model_gateway.settings import load_config
from tests.deploy.deployment import (
    ROOT,
    NotSetError,
    compose,
    filled,
    gateway_services,
    guide_blocks,
    instructions,
    named,
)

SCHEMA = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
CONFIG = load_config(ROOT / "config" / "models.yaml")
SERVICES = compose()["services"]
LONG_RUNNING = {"api", "worker", "insights"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the guide's commands write into ``.env``."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run(["bash", "-euc", guide_blocks()[0]], cwd=folder, check=True, timeout=30)
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def variables_of(name: str, secrets: dict[str, str]) -> dict[str, str]:
    """The environment that a service's containers get."""
    service = filled(SERVICES[name], secrets)
    return {**(secrets if "env_file" in service else {}), **service["environment"]}


def mounts() -> list[tuple[str, str, bool]]:
    """Every mount: its source, its target, and whether it is read-only."""
    found = []
    for mount in (mount for service in SERVICES.values() for mount in service.get("volumes", [])):
        if isinstance(mount, str):
            source, target = mount.split(":")
            found.append((source, target, False))
        else:
            found.append((mount["source"], mount["target"], mount["read_only"]))
    return found


def test_the_file_follows_the_compose_specification():
    errors = Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(compose())
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_every_part_of_the_whole_is_there_under_its_published_name():
    commands = {service["command"][0] for service in gateway_services().values()}
    assert commands == {*LONG_RUNNING, "ledger"}
    assert SERVICES["gateway"]["container_name"] == "titan-model-gateway"
    assert SERVICES["postgres"]["image"] == "pgvector/pgvector:pg18"
    assert SERVICES["redis"]["image"].startswith("redis:")


def test_every_variable_is_documented():
    pages = "".join(path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    names = named() | {name for service in SERVICES.values() for name in service["environment"]}
    assert {"ADMIN_TOKEN", "GATEWAY_WORKERS", "REDIS_URL"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in pages] == []


def test_the_guide_makes_exactly_the_secrets_that_must_be_set(secrets: dict[str, str]):
    assert secrets.keys() == named("?")


@pytest.mark.parametrize("missing", sorted(named("?")))
def test_nothing_starts_while_a_secret_is_missing(missing: str, secrets: dict[str, str]):
    with pytest.raises(NotSetError, match=missing):
        filled(compose(), {name: value for name, value in secrets.items() if name != missing})


def test_no_secret_stands_in_the_file_or_in_a_command():
    secret = re.compile(r"SECRET|PASSWORD|TOKEN|AUTH$")
    for service in SERVICES.values():
        assert [
            name for name, value in service["environment"].items() if secret.search(name) and "${" not in value
        ] == []
        assert named("?").isdisjoint(
            re.findall(r"[A-Z_]+", json.dumps([service.get("command"), service.get("healthcheck")]))
        )


def test_every_path_that_is_mounted_or_built_from_exists():
    paths = [source for source, _, _ in mounts() if source.startswith(".")]
    assert {"./config", "./deploy/redis.conf"} <= {*paths}
    builds = [service["build"] for service in gateway_services().values()]
    for path in paths + [f"{build['context']}/{build['dockerfile']}" for build in builds]:
        assert (ROOT / path).exists(), path


def test_what_is_mounted_from_the_tree_is_read_only_and_volumes_are_named_and_declared():
    sources = {source for source, _, _ in mounts() if not source.startswith(".")}
    assert sources == compose()["volumes"].keys() == {"redis", "postgres", "ledger"}
    assert all(read_only for source, _, read_only in mounts() if source.startswith("."))


def test_the_config_lies_where_the_processes_look_for_it():
    for name, service in gateway_services().items():
        if service["command"][0] in LONG_RUNNING:
            place = Path(service["environment"]["GATEWAY_CONFIG"])
            [mount] = [mount for mount in service["volumes"] if mount["source"] == "./config"]
            assert (ROOT / mount["source"] / place.relative_to(mount["target"])).is_file(), name


def test_the_ledgers_memory_outlives_its_container():
    [mount] = SERVICES["ledger"]["volumes"]
    assert mount == f"ledger:{SERVICES['ledger']['environment']['GATEWAY_DATA_DIR']}"


@pytest.mark.parametrize("name", sorted(gateway_services()))
def test_every_command_is_one_of_the_gateways(name: str):
    assert ("ENTRYPOINT", ['["model-gateway"]']) in instructions()
    assert callable(_parser().parse_args(SERVICES[name]["command"]).run)
    assert "entrypoint" not in SERVICES[name]


def test_only_the_front_door_is_published_and_only_to_this_machine(secrets: dict[str, str]):
    published = {name: filled(service["ports"], secrets) for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8081:8081", "127.0.0.1:8088:8088"]}


def test_only_who_needs_it_reaches_the_outside():
    networks = compose()["networks"]
    assert networks["inside"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {"gateway", "worker"}
    assert all(
        "inside" in service["networks"] and networks.keys() >= {*service["networks"]} for service in SERVICES.values()
    )


def test_workers_can_be_many_each_with_a_name_of_its_own(secrets: dict[str, str]):
    worker = SERVICES["worker"]
    assert not {"container_name", "hostname", "ports", "init"} & worker.keys()
    assert int(filled(worker["deploy"]["replicas"], secrets)) >= 1
    assert filled(worker["deploy"]["replicas"], {"GATEWAY_WORKERS": "7"}) == "7"
    named_alike = variables_of("worker", {**secrets, "GATEWAY_WORKER_NAME": "one-for-all"})
    assert Environment.read(named_alike).worker_name == ""  # so each goes by its container's host name


def test_each_process_waits_for_what_it_needs():
    waits = {
        name: {of: row["condition"] for of, row in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    healthy, done = "service_healthy", "service_completed_successfully"
    assert waits["gateway"] == waits["worker"] == {"redis": healthy, "ledger": done}
    assert waits["insights"] == {"redis": healthy, "postgres": healthy}
    assert waits["ledger"] == {"redis": healthy}
    assert all("healthcheck" in SERVICES[of] for wait in waits.values() for of, how in wait.items() if how == healthy)


def test_everything_but_the_ledger_is_watched_and_started_again():
    assert SERVICES["ledger"]["restart"] == "no"
    for name in SERVICES.keys() - {"ledger"}:
        assert SERVICES[name]["restart"] == "unless-stopped", name
        assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_requests_may_finish_before_a_container_is_killed(name: str):
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= CONFIG.drain_seconds + 5


@pytest.mark.parametrize("name", sorted(gateway_services()))
def test_the_gateways_containers_can_change_nothing_but_their_own(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


async def test_each_process_accepts_its_environment(secrets: dict[str, str]):
    def read(name: str, *required: str) -> tuple[Environment, dict[str, Any]]:
        variables = variables_of(name, secrets)
        environment = Environment.read(variables)
        environment.require("REDIS_URL", *required)
        return environment, variables

    environment, variables = read("gateway", "ADMIN_TOKEN", "HMAC_SECRET")
    assert (environment.port, environment.events_port, environment.on_loopback) == (8081, 8088, False)
    create_door(environment, CONFIG, variables=variables)
    environment, variables = read("worker", "HMAC_SECRET")
    assert environment.metrics_port == 9100
    worker = WorkerProcess(environment, CONFIG, variables=variables)
    assert worker.name
    environment, variables = read("insights", "HMAC_SECRET")
    assert environment.database_url.endswith("@postgres:5432/gateway")
    InsightsProcess(environment, CONFIG, variables=variables)
    read("ledger")


def test_the_processes_name_the_servers_as_the_file_does_with_their_passwords(secrets: dict[str, str]):
    redis, postgres = (filled(SERVICES[name], secrets)["environment"] for name in ("redis", "postgres"))
    for name in gateway_services():
        assert variables_of(name, secrets)["REDIS_URL"] == f"redis://:{redis['REDISCLI_AUTH']}@redis:6379/0"
    expected = "postgresql://{POSTGRES_USER}:{POSTGRES_PASSWORD}@postgres:5432/{POSTGRES_DB}".format_map(postgres)
    assert variables_of("insights", secrets)["DATABASE_URL"] == expected


def test_the_front_door_gets_no_providers_key(secrets: dict[str, str]):
    assert "OPENAI_API_KEY" not in variables_of("gateway", {**secrets, "OPENAI_API_KEY": "key"})
    assert variables_of("worker", {**secrets, "OPENAI_API_KEY": "key"})["OPENAI_API_KEY"] == "key"
