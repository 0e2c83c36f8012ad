import pytest

from model_gateway.envelope import front_door_secret
from model_gateway.environment import Environment, sender_secrets, weak
from model_gateway.settings import ConfigError, parse_config
from model_gateway.signing import Keyring

ADMIN, SECRET, PREVIOUS, AGENT = "canary-a" * 6, "canary-b" * 6, "canary-c" * 6, "canary-d" * 6
GOOD = {"REDIS_URL": "redis://:canary-p@127.0.0.1:6379/0", "ADMIN_TOKEN": ADMIN, "HMAC_SECRET": SECRET}
ALL = ("REDIS_URL", "ADMIN_TOKEN", "HMAC_SECRET")
DOCUMENTED = [
    "your-secure-token",
    "your-hmac-secret",
    "change-me-in-production",
    "development-token",
    "0123456789abcdef0123456789abcdef0123456789abcdef",
    "an-example-secret-that-must-be-replaced-0000",
]
CONFIG = parse_config(
    "models: {echo: {provider: echo, free: true}}\n"
    "agents: {one: {secret_env: ONE_SECRET}, two: {secret_env: TWO_SECRET}}"
)


def refusal(variables: dict[str, str], *names: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Environment.read(variables).require(*(names or ALL))
    return caught.value


def paths(error: ConfigError) -> list[str]:
    return [problem.partition(": ")[0] for problem in error.problems]


def test_good_secrets_and_a_redis_are_enough_to_start() -> None:
    Environment.read(GOOD).require(*ALL)
    Environment.read(GOOD | {"HMAC_SECRET_PREVIOUS": PREVIOUS}).require(*ALL)


def test_everything_that_is_missing_is_reported_at_once() -> None:
    assert refusal({}).problems == [f"{name}: is not set" for name in ALL]
    assert refusal(dict.fromkeys(ALL, "")).problems == [f"{name}: is not set" for name in ALL]


def test_only_what_is_asked_for_is_required() -> None:
    Environment.read({"HMAC_SECRET": SECRET}).require("HMAC_SECRET")
    assert paths(refusal({"ADMIN_TOKEN": "short"}, "HMAC_SECRET")) == ["HMAC_SECRET"]


@pytest.mark.parametrize("name", ["ADMIN_TOKEN", "HMAC_SECRET", "HMAC_SECRET_PREVIOUS"])
@pytest.mark.parametrize("secret", [*DOCUMENTED, "s", "s" * 31, "ü" * 15])
def test_a_short_or_documented_secret_is_refused_wherever_it_stands(name: str, secret: str) -> None:
    assert paths(refusal(GOOD | {name: secret})) == [name]


def test_length_counts_bytes() -> None:
    assert weak("NAME", "s" * 32) == weak("NAME", "ü" * 16) == weak("NAME", "\udcff" * 32) == []


def test_missing_short_and_documented_secrets_are_reported_together() -> None:
    found = refusal({"HMAC_SECRET": "short", "HMAC_SECRET_PREVIOUS": "your-hmac-secret"})
    assert sorted(paths(found)) == ["ADMIN_TOKEN", "HMAC_SECRET", "HMAC_SECRET_PREVIOUS", "REDIS_URL"]
    assert "documentation" in str(found)
    assert "shorter than 32 bytes" in str(found)


def test_no_secret_shows_in_a_repr() -> None:
    text = repr(Environment.read(GOOD | {"HMAC_SECRET_PREVIOUS": PREVIOUS}))
    assert "canary" not in text
    assert "GATEWAY" not in text
    assert "port=8081" in text


def test_no_secret_shows_in_an_error() -> None:
    bad = {"ADMIN_TOKEN": "canary-a", "HMAC_SECRET": "canary-b", "HMAC_SECRET_PREVIOUS": "canary-c"}
    agents = {"ONE_SECRET": "canary-d", "TWO_SECRET": SECRET}
    with pytest.raises(ConfigError) as caught:
        sender_secrets(CONFIG, Keyring((SECRET,)), agents)
    for error in (refusal(bad), caught.value):
        assert error.problems
        assert "canary" not in f"{error} {error!r} {error.__context__!r}"


@pytest.mark.parametrize("value", ["http", "8081.0", "-1", "65536", " 8081", "0x1f91", "٨٠٨١", "1_000"])
def test_a_port_that_is_no_number_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Environment.read({"GATEWAY_PORT": value})
    assert caught.value.problems == [f"GATEWAY_PORT: expected a whole number from 0 to 65535, got {value!r}"]


def test_all_bad_numbers_are_reported_at_once() -> None:
    names = ["GATEWAY_PORT", "GATEWAY_EVENTS_PORT", "GATEWAY_METRICS_PORT", "GATEWAY_WORKERS"]
    with pytest.raises(ConfigError) as caught:
        Environment.read(dict.fromkeys(names, "many"))
    assert paths(caught.value) == names


def test_there_is_at_least_one_worker() -> None:
    with pytest.raises(ConfigError, match="GATEWAY_WORKERS: expected a whole number from 1"):
        Environment.read({"GATEWAY_WORKERS": "0"})


def test_what_is_unset_or_empty_has_its_documented_default() -> None:
    for variables in ({}, dict.fromkeys(["GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_DATA_DIR", "GATEWAY_CONFIG"], "")):
        found = Environment.read(variables)
        assert (found.host, found.port, found.events_port, found.workers) == ("127.0.0.1", 8081, 8088, 1)
        assert (str(found.data_dir), str(found.config_path)) == (".gateway", "config/models.yaml")
        assert found.on_loopback


def test_an_address_that_others_can_reach_is_not_loopback() -> None:
    assert not Environment.read({"GATEWAY_HOST": "0.0.0.0"}).on_loopback
    assert Environment.read({"GATEWAY_HOST": "::1"}).on_loopback


def test_the_current_secret_signs_and_the_previous_one_still_verifies() -> None:
    assert Environment.read(GOOD).keyring.secrets == (SECRET,)
    both = Environment.read(GOOD | {"HMAC_SECRET_PREVIOUS": PREVIOUS}).keyring
    assert (both.signing, both.secrets) == (SECRET, (SECRET, PREVIOUS))


# -- whose envelopes verify with what


def test_each_sender_has_secrets_of_its_own() -> None:
    found = sender_secrets(CONFIG, Keyring((SECRET, PREVIOUS)), {"ONE_SECRET": ADMIN, "TWO_SECRET": AGENT})
    assert found == {
        "http": (front_door_secret(SECRET), front_door_secret(PREVIOUS)),
        "agent-one": (ADMIN,),
        "agent-two": (AGENT,),
    }


def test_every_bad_agent_secret_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        sender_secrets(CONFIG, Keyring((SECRET,)), {"ONE_SECRET": "short"})
    assert paths(caught.value) == ["ONE_SECRET", "TWO_SECRET"]
    assert "is not set (agent 'two')" in str(caught.value)


@pytest.mark.parametrize("shared", [SECRET, PREVIOUS])
def test_an_agent_may_not_have_the_gateways_secret(shared: str) -> None:
    with pytest.raises(ConfigError, match="TWO_SECRET: is the same secret as HMAC_SECRET"):
        sender_secrets(CONFIG, Keyring((SECRET, PREVIOUS)), {"ONE_SECRET": AGENT, "TWO_SECRET": shared})


def test_two_agents_may_not_have_the_same_secret() -> None:
    with pytest.raises(ConfigError, match="TWO_SECRET: is the same secret as ONE_SECRET"):
        sender_secrets(CONFIG, Keyring((SECRET,)), {"ONE_SECRET": AGENT, "TWO_SECRET": AGENT})
