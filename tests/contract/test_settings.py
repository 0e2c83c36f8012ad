from decimal import Decimal
from pathlib import Path

import pytest

from model_gateway.prices import load_prices
from model_gateway.settings import ConfigError, GatewayConfig, load_config, parse_config

PUBLISHED = """\
models:
  gpt-4o:
    provider: openai
    engine: gpt-4o
    input_cost: 0.0000025
    output_cost: 0.00001
    max_tokens: 8192
  o3-pro:
    provider: openai
    engine: o3-pro
    input_cost: 0.00002
    output_cost: 0.00008
    max_tokens: 4096
  gpt-4.5-preview:
    provider: openai
    engine: gpt-4.5-preview
    input_cost: 0.000075
    output_cost: 0.00015
    max_tokens: 32768

defaults:
  self_reflection: o3-pro
  self_reflection_frequent: gpt-4o
  vitals: gpt-4o
  experiment: o3-pro

budget:
  daily_limit_usd: 20
  hard_stop: true
  warning_threshold: 0.8
"""

ECHO = "models: {echo: {provider: echo, free: true}}\n"
"""The least that is a config; a test adds its own sections."""


def problems_of(text: str) -> list[str]:
    """Every mistake in a config, the unpriced models of one that is otherwise good included."""
    with pytest.raises(ConfigError) as caught:
        load_prices(parse_config(text))
    return caught.value.problems


def paths_of(text: str) -> list[str]:
    return sorted(problem.partition(": ")[0] for problem in problems_of(text))


def echo_row(settings: str) -> GatewayConfig:
    return parse_config(f"models: {{echo: {{provider: echo, {settings}}}}}")


# -- files that must load


def test_the_published_example_loads_as_it_stands() -> None:
    config = parse_config(PUBLISHED)
    assert list(config.models) == ["gpt-4o", "o3-pro", "gpt-4.5-preview"]
    assert {row.provider for row in config.models.values()} == {"openai"}
    assert [row.engine for row in config.models.values()] == list(config.models)
    assert [row.max_tokens for row in config.models.values()] == [8192, 4096, 32768]
    assert config.defaults == {
        "self_reflection": "o3-pro",
        "self_reflection_frequent": "gpt-4o",
        "vitals": "gpt-4o",
        "experiment": "o3-pro",
    }


def test_the_published_budget_is_exact() -> None:
    budget = parse_config(PUBLISHED).budget
    assert (budget.limit_nano, budget.hard_stop, budget.warning_nano) == (20_000_000_000, True, 16_000_000_000)


def test_the_published_prices_are_exact_to_the_digit() -> None:
    assert {name: str(price) for name, price in load_prices(parse_config(PUBLISHED)).items()} == {
        "gpt-4o": "input=2500,output=10000",
        "o3-pro": "input=20000,output=80000",
        "gpt-4.5-preview": "input=75000,output=150000",
    }


def test_the_projects_own_config_loads_with_a_price_for_every_model() -> None:
    config = load_config(Path(__file__).parents[2] / "config" / "models.yaml")
    assert load_prices(config).keys() == config.models.keys()
    assert config.resolve("demo") == "echo"


def test_a_row_can_take_its_settings_from_another() -> None:
    config = parse_config("models:\n  a: &a {provider: echo, free: true, timeout: 5}\n  b: {<<: *a, timeout: 7}\n")
    assert [(row.free, row.timeout) for row in config.models.values()] == [(True, 5), (True, 7)]


def test_what_is_left_out_has_a_default() -> None:
    config = parse_config(ECHO)
    assert (config.budget.daily_limit_usd, config.budget.hard_stop) == (20, True)
    assert config.worker.slots == 512
    assert config.queue.max_depth == 10_000
    assert config.drain_seconds == config.longest_delivery("echo") + 5 == 2 * (60 + 10) + 2 * 8 + 5


def test_by_default_a_stopping_process_waits_as_long_as_the_slowest_request_can_take() -> None:
    row = "{provider: echo, free: true, timeout: 300, fallbacks: [echo]}"
    slow = f"models: {{echo: {{provider: echo, free: true}}, slow: {row}}}\n"
    config = parse_config(slow)
    assert config.drain_seconds == (300 + 10) + (60 + 10) + 2 * 8 + (300 + 10) + 5
    assert parse_config(slow + "worker: {drain_seconds: 7}").drain_seconds == 7


def test_what_a_model_does_not_say_of_clients_that_leave_the_gateway_says() -> None:
    row = "provider: echo, free: true"
    models = f"models: {{a: {{{row}}}, b: {{{row}, disconnect: {{whole: cancel}}}}}}\n"

    def policies(config: GatewayConfig) -> list[bool]:
        return [config.cancels_on_leaving(model, streamed=streamed) for model in "ab" for streamed in (True, False)]

    assert policies(parse_config(models)) == [True, False, True, True]
    assert policies(parse_config(models + "disconnect: {streamed: finish}")) == [False, False, False, True]
    assert policies(parse_config(models + "disconnect: {whole: cancel}")) == [True, True, True, True]
    assert paths_of(models + "disconnect: {whole: stop}") == ["disconnect.whole"]


# -- prices


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0.0000025", "2500"),
        ("7.5e-8", "75"),
        ("1.23e-05", "12300"),
        ("1.23E-05", "12300"),
        ("1e-9", "1"),
        ("'0.1'", "100000000"),
        ("0.000_000_1", "100"),
        ("0.123456789012345678901", "123456789.012345678901"),
        ("0", "0"),
        ("1", "1000000000"),
    ],
)
def test_a_price_keeps_its_digits_in_every_form_that_yaml_has(text: str, nano: str) -> None:
    config = echo_row(f"input_cost: {text}, output_cost: {text}, cached_input_cost: {text}")
    assert str(load_prices(config)["echo"]) == f"input={nano},output={nano},cached={nano}"


def test_the_budgets_digits_survive_too() -> None:
    budget = parse_config(ECHO + "budget: {daily_limit_usd: 0.123456789, warning_threshold: 0.1}").budget
    assert budget.limit_nano == 123_456_789
    assert budget.warning_threshold == Decimal("0.1")
    assert budget.warning_nano == 12_345_679


@pytest.mark.parametrize("text", ["-1", "-0.5", ".inf", ".nan", "nan", "Infinity", "cheap", "true", "[1]", "1.0e+999"])
def test_what_is_no_price_is_refused_with_its_path(text: str) -> None:
    assert paths_of(f"models: {{echo: {{provider: echo, input_cost: {text}, output_cost: 1}}}}") == [
        "models.echo.input_cost"
    ]


def test_a_model_that_nobody_has_a_price_for_is_refused_with_its_path() -> None:
    text = "models: {echo: {provider: echo}, mine: {provider: openai}, gpt-4o: {provider: openai}}"
    assert paths_of(text) == ["models.echo", "models.mine"]


def test_a_model_that_says_that_it_is_free_costs_nothing() -> None:
    assert str(load_prices(parse_config(ECHO))["echo"]) == "input=0,output=0"


def test_a_model_without_a_price_of_its_own_takes_the_published_one() -> None:
    config = parse_config("models: {fast: {provider: openai, engine: gpt-4o-mini}, gpt-4o-mini: {provider: openai}}")
    prices = load_prices(config)
    assert prices["fast"] == prices["gpt-4o-mini"]
    assert prices["fast"].rates.output > prices["fast"].rates.input > 0


def test_a_compatible_server_does_not_take_the_vendors_prices() -> None:
    text = "models: {gpt-4o: {provider: openai, api_base: 'http://127.0.0.1:8000/v1'}}"
    assert paths_of(text) == ["models.gpt-4o"]


def test_half_a_price_is_refused() -> None:
    assert paths_of("models: {gpt-4o: {provider: openai, input_cost: 1}}") == ["models.gpt-4o"]


# -- mistakes


def test_every_mistake_is_reported_at_once_with_its_path() -> None:
    text = """\
models:
  gpt-4o: {provider: openai, input_cost: dear, max_token: 5}
  no-provider: {timeout: 0, max_tokens: 1.5, api_base: ftp://host, api_key_env: 'NOT A NAME'}
  "bad name": {provider: echo, transport: pigeon, options: 5}
defaults: {vitals: nothing, gpt-4o: gpt-4o, list: [gpt-4o]}
budget: {daily_limit_usd: 9000001, hard_stop: perhaps, warning_threshold: 80}
agents:
  UPPER: {secret_env: A_SECRET}
  one: {secret_env: SAME}
  two: {secret_env: SAME}
  three: {isolated: true}
worker: {slots: 0, lease_seconds: -1}
redelivery: {max_attempts: 0}
retention: {requests: {seconds: 1}}
limits: {choices: 1000}
budgt: {}
"""
    assert paths_of(text) == sorted(
        [
            "models.gpt-4o.input_cost",
            "models.gpt-4o.max_token",
            "models.no-provider.provider",
            "models.no-provider.timeout",
            "models.no-provider.max_tokens",
            "models.no-provider.api_base",
            "models.no-provider.api_key_env",
            "models.bad name.[key]",
            "models.bad name.transport",
            "models.bad name.options",
            "defaults.vitals",
            "defaults.gpt-4o",
            "defaults.list",
            "budget.daily_limit_usd",
            "budget.hard_stop",
            "budget.warning_threshold",
            "agents.UPPER.[key]",
            "agents.two.secret_env",
            "agents.three.secret_env",
            "worker.slots",
            "worker.lease_seconds",
            "redelivery.max_attempts",
            "retention.requests.bytes",
            "limits.choices",
            "budgt",
        ]
    )


@pytest.mark.parametrize(
    "variable",
    [
        *("HMAC_SECRET", "ADMIN_TOKEN", "REDIS_URL", "GATEWAY_REDIS_PASSWORD", "AGENT_OTHER_REDIS_PASSWORD"),
        *("OPENAI_API_KEY", "OUR_KEY", "METRICS_TOKEN"),
    ],
)
def test_an_agents_secret_may_not_be_a_variable_with_another_purpose(variable: str) -> None:
    text = f"""
models: {{echo: {{provider: echo, free: true, api_key_env: OUR_KEY}}}}
agents: {{demo: {{secret_env: {variable}}}}}
metrics: {{token: METRICS_TOKEN}}
"""
    assert paths_of(text) == ["agents.demo.secret_env"]


def test_an_isolated_agents_bounds_are_refused_where_nobody_would_keep_them() -> None:
    agent = "secret_env: A_SECRET, max_unfinished: 3, per_minute: 10"
    text = f"models: {{echo: {{provider: echo, free: true}}}}\nagents: {{demo: {{{agent}, isolated: %s}}}}"
    found = parse_config(text % "true").agents["demo"]
    assert (found.isolated, found.max_unfinished, found.per_minute) == (True, 3, 10)
    assert paths_of(text % "false") == ["agents.demo"]


def test_an_error_names_its_file_and_counts_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models: {echo: {provider: echo, timeout: 0, max_tokens: 0}}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: 2 problem(s)\n  models.echo.")


def test_a_misspelt_setting_gets_a_suggestion() -> None:
    assert problems_of("models: {echo: {provider: echo, free: true, max_token: 5}}") == [
        "models.echo.max_token: unknown setting; did you mean 'max_tokens'?"
    ]
    assert problems_of(ECHO + "budgt: {}") == ["budgt: unknown setting; did you mean 'budget'?"]


@pytest.mark.parametrize(
    "text",
    [
        "models: {echo: {provider: echo, free: true}, echo: {provider: echo, free: true}}",
        "models: {echo: {provider: echo, free: true, free: true}}",
        ECHO + ECHO,
        ECHO + "defaults: {a: echo, 'a': echo}",
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str) -> None:
    (problem,) = problems_of(text)
    assert "stands twice" in problem
    assert f"line {text.strip().count(chr(10)) + 1}:" in problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "models",
        "models: [",
        "models: {}",
        "models:",
        "a: 1\n---\nb: 2",
        "? [models]\n: echo",
        "models: !!python/object/apply:os.getcwd []",
        "models: \x00",
    ],
)
def test_what_is_no_config_is_refused_and_nothing_in_it_is_run(text: str) -> None:
    assert problems_of(text)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"models: \xff")
    for name in ("missing.yaml", "latin.yaml", "."):
        with pytest.raises(ConfigError, match="can't be read"):
            load_config(tmp_path / name)


@pytest.mark.parametrize("setting", ["max_tokens", "timeout", "max_concurrency", "input_cost", "engine"])
@pytest.mark.parametrize("value", ["true", "no"])
def test_true_and_false_are_no_numbers_and_no_names(setting: str, value: str) -> None:
    assert paths_of(f"models: {{echo: {{provider: echo, free: true, {setting}: {value}}}}}") == [
        f"models.echo.{setting}"
    ]


@pytest.mark.parametrize("value", ["1", "'true'", "0", "null"])
def test_only_true_and_false_switch_the_hard_stop(value: str) -> None:
    assert paths_of(ECHO + f"budget: {{hard_stop: {value}}}") == ["budget.hard_stop"]
    assert parse_config(ECHO + "budget: {hard_stop: false}").budget.hard_stop is False


# -- limits, tasks, agents


@pytest.mark.parametrize("limit", ["9000001", "9000000.000000001", "1.0e+15", "-1"])
def test_a_limit_that_a_script_could_not_compare_exactly_is_refused(limit: str) -> None:
    assert paths_of(ECHO + f"budget: {{daily_limit_usd: {limit}}}") == ["budget.daily_limit_usd"]


def test_a_limit_of_nine_million_dollars_and_one_of_nothing_are_good() -> None:
    assert parse_config(ECHO + "budget: {daily_limit_usd: 9000000}").budget.limit_nano == 9_000_000_000_000_000
    assert parse_config(ECHO + "budget: {daily_limit_usd: 0}").budget.limit_nano == 0


def test_a_task_stands_for_its_model_and_a_model_for_itself() -> None:
    config = parse_config(PUBLISHED)
    assert config.resolve("vitals") == config.resolve("gpt-4o") == "gpt-4o"
    assert config.resolve("nothing") is None


def test_a_task_that_hides_a_model_is_refused() -> None:
    assert problems_of(ECHO + "defaults: {echo: echo}") == ["defaults.echo: a model has this name already"]


def test_a_task_without_a_model_is_refused() -> None:
    assert problems_of(ECHO + "defaults: {vitals: gpt-5}") == ["defaults.vitals: there is no model 'gpt-5'"]


def test_two_agents_with_one_secret_are_refused() -> None:
    text = ECHO + "agents: {one: {secret_env: S}, two: {secret_env: S}, three: {secret_env: T}}"
    assert problems_of(text) == ["agents.two.secret_env: agent 'one' uses S already"]


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "a:b", "a" * 57])
def test_an_agents_name_that_could_collide_in_a_stream_or_key_is_refused(name: str) -> None:
    assert paths_of(ECHO + f"agents: {{'{name}': {{secret_env: S}}}}") == [f"agents.{name}.[key]"]


def test_a_redaction_that_is_no_regular_expression_is_refused_with_its_path() -> None:
    assert paths_of(ECHO + "insights: {redact: ['fine', '(']}") == ["insights.redact.1"]
