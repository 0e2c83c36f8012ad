"""Secrets that nobody set are made once, kept to the owner, and never replace what was set."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from gateway_cli.secret_store import SecretStore, redis_password_name, secret_names
from model_gateway.settings import ConfigError, parse_config

CONFIG = parse_config("""
models: {echo: {provider: echo, free: true}}
agents: {night-watch: {secret_env: NIGHT_SECRET}}
""")


def test_every_secret_that_is_missing_is_made_and_used_again(tmp_path: Path):
    names = secret_names(CONFIG)
    made = SecretStore(tmp_path).complete(names, {})
    assert set(made) == {
        "ADMIN_TOKEN",
        "HMAC_SECRET",
        "GATEWAY_REDIS_PASSWORD",
        "GATEWAY_POSTGRES_PASSWORD",
        "NIGHT_SECRET",
        "AGENT_NIGHT_WATCH_REDIS_PASSWORD",
    }
    assert len(set(made.values())) == 6
    assert all(len(bytes.fromhex(value)) == 32 for value in made.values())
    assert SecretStore(tmp_path).complete(names, {}) == made


def test_only_the_owner_can_read_the_file(tmp_path: Path):
    store = SecretStore(tmp_path)
    store.complete(["ADMIN_TOKEN"], {})
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.env"]


def test_what_the_environment_sets_wins_and_is_not_written_down(tmp_path: Path):
    store = SecretStore(tmp_path)
    found = store.complete(["ADMIN_TOKEN", "HMAC_SECRET"], {"ADMIN_TOKEN": "from-outside", "HMAC_SECRET": ""})
    assert found["ADMIN_TOKEN"] == "from-outside"
    assert len(found["HMAC_SECRET"]) == 64
    assert "from-outside" not in store.path.read_text()
    assert "ADMIN_TOKEN" not in store.read()


def test_a_new_agents_secret_is_added_and_the_rest_stays_as_it_was(tmp_path: Path):
    store = SecretStore(tmp_path)
    store.complete(["ADMIN_TOKEN"], {})
    with store.path.open("a") as file:
        file.write("# a note of the operator's\nOPENAI_API_KEY='sk two words'\n")
    before = store.path.read_text()
    found = store.complete(["ADMIN_TOKEN", "AGENT_SECRET"], {})
    assert store.path.read_text().startswith(before)
    assert found["OPENAI_API_KEY"] == "sk two words"
    assert len(found["AGENT_SECRET"]) == 64


def test_a_shell_can_source_the_file(tmp_path: Path):
    store = SecretStore(tmp_path)
    made = store.complete(["ADMIN_TOKEN"], {})
    script = f'. "{store.path}"; printf %s "$ADMIN_TOKEN"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == made["ADMIN_TOKEN"]


def test_a_file_that_others_may_read_is_refused(tmp_path: Path):
    store = SecretStore(tmp_path)
    store.complete(["ADMIN_TOKEN"], {})
    store.path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.read()


@pytest.mark.parametrize("line", ["ADMIN_TOKEN", "ADMIN_TOKEN = x", "KEY='open", "2KEY=x"])
def test_a_line_that_is_no_assignment_is_refused_by_its_number_and_not_shown(tmp_path: Path, line: str):
    store = SecretStore(tmp_path)
    store.complete(["HMAC_SECRET"], {})
    with store.path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError) as refused:
        store.read()
    assert refused.value.problems == ["line 3: expected KEY=value"]


def test_no_two_agents_share_a_redis_password():
    assert redis_password_name("a-b") == "AGENT_A_B_REDIS_PASSWORD"
    assert redis_password_name("a-b") != redis_password_name("ab")
