"""What a row of ``models.yaml`` costs: its own prices, or those that its vendor has published."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices import Usage as PublishedUsage
from genai_prices import calc_price

from model_gateway.money import Price, Usage
from model_gateway.prices import load_prices, price_of
from model_gateway.settings import ConfigError, DeploymentRow, parse_config

OWN = "input_cost: 0.000002, output_cost: 0.000008"
EVERY_KIND = """\
models:
  every:
    provider: openai
    input_cost: 0.000002
    output_cost: 0.000008
    cached_input_cost: 0.0000005
    cache_write_cost: 0.0000025
    cache_write_1h_cost: 0.000004
    audio_input_cost: 0.00004
    audio_output_cost: 0.00008
    image_input_cost: 0.00001
    image_output_cost: 0.00003
    reasoning_cost: 0.000009
    cached_audio_cost: 0.000001
    service_tiers: {flex: 0.5, priority: 1.75}
"""
STEP = "long_context: [{above: 1000, input_cost: 0.000004, output_cost: 0.00001}]"


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_prices(parse_config(text))
    return caught.value.problems


def prices_of(text: str) -> dict[str, str]:
    return {name: str(price) for name, price in load_prices(parse_config(text)).items()}


def published(provider: str, engine: str, **settings: str) -> Price | None:
    return price_of(engine, DeploymentRow(provider=provider, **settings))


# -- a row's own prices


def test_every_setting_of_a_price_is_told_in_nano_dollars() -> None:
    assert prices_of(EVERY_KIND) == {
        "every": "input=2000,output=8000,cached=500,cache_write=2500,cache_write_1h=4000,audio_input=40000,"
        "audio_output=80000,image_input=10000,image_output=30000,reasoning=9000,cached_audio=1000;"
        "tier=flex,factor=0.5;tier=priority,factor=1.75"
    }


def test_steps_may_stand_in_any_order() -> None:
    steps = "[{above: 9, input_cost: 3e-9, output_cost: 3e-9}, {above: 5, input_cost: 2e-9, output_cost: 2e-9}]"
    found = prices_of(f"models: {{m: {{provider: openai, {OWN}, long_context: {steps}}}}}")
    assert found["m"] == "input=2000,output=8000;above=5,input=2,output=2;above=9,input=3,output=3"


def test_a_step_prices_every_kind_that_the_row_does() -> None:
    row = f"provider: openai, {OWN}, audio_output_cost: 0.00008, reasoning_cost: 0, {STEP}"
    assert problems_of(f"models: {{m: {{{row}}}}}") == [
        "models.m: long_context.0.audio_output_cost: is missing, as the model has one",
        "models.m: long_context.0.reasoning_cost: is missing, as the model has one",
    ]


def test_a_threshold_stands_once() -> None:
    step = "{above: 5, input_cost: 0, output_cost: 0}"
    assert problems_of(f"models: {{m: {{provider: openai, {OWN}, long_context: [{step}, {step}]}}}}") == [
        "models.m: long_context: the same threshold stands twice"
    ]


@pytest.mark.parametrize("tier", ["default", "standard"])
def test_the_usual_tier_has_no_factor(tier: str) -> None:
    assert problems_of(f"models: {{m: {{provider: openai, {OWN}, service_tiers: {{{tier}: 2}}}}}}") == [
        f"models.m: service_tiers.{tier}: is the usual tier, which costs what the other settings say"
    ]


@pytest.mark.parametrize("setting", ["input_cost: 1e-100", "service_tiers: {'a;b': 1}", "service_tiers: {a: 1e-100}"])
def test_what_could_not_be_reckoned_or_written_exactly_is_refused_with_its_path(setting: str) -> None:
    row = "{provider: openai, output_cost: 0, " + ("input_cost: 0, " if "tiers" in setting else "") + setting + "}"
    (problem,) = problems_of(f"models: {{good: {{provider: openai, {OWN}}}, m: {row}}}")
    assert problem.startswith("models.m: ")


@pytest.mark.parametrize("more", ["cached_input_cost: 0", STEP, "reasoning_cost: 0", "cached_audio_cost: 0"])
def test_a_price_that_is_published_is_taken_whole_or_not_at_all(more: str) -> None:
    assert "needs input_cost and output_cost" in problems_of(f"models: {{gpt-4o: {{provider: openai, {more}}}}}")[0]


@pytest.mark.parametrize("more", [OWN, "reasoning_cost: 0", "service_tiers: {flex: 0.5}", STEP])
def test_what_is_free_has_no_price_beside_it(more: str) -> None:
    problems = problems_of(f"models: {{m: {{provider: echo, free: true, {more}}}}}")
    assert problems[0] == "models.m: free: true stands beside a price"


# -- models that nobody has a price for


def test_a_deployment_without_a_price_is_refused_with_its_path_and_so_are_all_others() -> None:
    text = f"""\
models:
  alone: {{provider: echo}}
  fine: {{provider: echo, {OWN}}}
  several:
    deployments:
      - {{name: good, provider: echo, {OWN}}}
      - {{name: bad, provider: echo}}
      - {{name: server, provider: openai, engine: gpt-4o, api_base: "http://127.0.0.1:1/v1"}}
      - {{name: vendor, provider: openai, engine: gpt-4o}}
  falls-back: {{provider: echo, free: true, fallbacks: [fine, unpriced]}}
  unpriced: {{provider: echo}}
"""
    said = "no price; set input_cost and output_cost, or free: true"
    assert problems_of(text) == [
        f"models.alone: {said}",
        f"models.several.deployments.bad: {said}",
        f"models.several.deployments.server: {said}",
        f"models.unpriced: {said}",
    ]


def test_a_deployment_has_its_models_price_unless_it_sets_its_own() -> None:
    text = f"""\
models:
  m:
    provider: openai
    input_cost: 0.000002
    output_cost: 0.000008
    deployments: [{{name: a, api_base: "http://127.0.0.1:1/v1"}}, {{name: b, input_cost: 0.000001}}]
  free: {{deployments: [{{name: a, provider: echo, free: true}}, {{name: b, provider: echo, {OWN}}}]}}
"""
    assert prices_of(text) == {
        "m#a": "input=2000,output=8000",
        "m#b": "input=1000,output=8000",
        "free#a": "input=0,output=0",
        "free#b": "input=2000,output=8000",
    }


# -- published prices


def test_a_published_price_has_the_vendors_kinds_and_steps() -> None:
    assert str(published("anthropic", "claude-sonnet-4-5")) == (
        "input=3000,output=15000,cached=300,cache_write=3750,cache_write_1h=6000;"
        "above=200000,input=6000,output=22500,cached=600,cache_write=7500,cache_write_1h=12000"
    )
    assert str(published("google", "gemini-2.5-flash")) == (
        "input=300,output=2500,cached=30,audio_input=1000,cached_audio=100"
    )
    assert str(published("google", "gemini-2.5-flash-image")) == "input=300,output=2500,image_output=30000"


@pytest.mark.parametrize(("ours", "theirs"), [("vertex", "google"), ("xai", "x-ai"), ("azure", "openai")])
def test_a_provider_by_another_name_has_its_vendors_prices(ours: str, theirs: str) -> None:
    engine = {"vertex": "gemini-2.5-pro", "xai": "grok-4", "azure": "gpt-4o"}[ours]
    assert published(ours, engine) == published(theirs, engine) is not None


@pytest.mark.parametrize("provider", ["my-openai", "openai-compatible", "notgoogle", "echo"])
def test_a_provider_whose_name_only_resembles_a_vendors_has_no_published_price(provider: str) -> None:
    assert published(provider, "gpt-4o") is None
    assert published(provider, "gemini-2.5-pro") is None


@pytest.mark.parametrize(
    ("provider", "engine"),
    [
        ("perplexity", "sonar"),  # each request costs something too
        ("perplexity", "sonar-deep-research"),  # citations do
        ("openai", "gpt-image-1"),  # cached images have a price of their own
        ("openai", "tts-1"),  # characters
        ("groq", "whisper-large-v3"),  # hours
        ("openai", "no-such-model"),
    ],
)
def test_a_model_that_costs_more_than_its_tokens_by_kind_has_no_price_that_could_be_kept(
    provider: str, engine: str
) -> None:
    assert published(provider, engine) is None


def test_embeddings_are_not_sold_by_the_token_that_comes_out() -> None:
    assert str(published("openai", "text-embedding-3-small")) == "input=20,output=0"
    assert str(published("google", "gemini-embedding-001")) == "input=150,output=0"


def test_a_price_that_changes_with_the_hour_is_taken_at_its_dearest() -> None:
    found = published("deepseek", "deepseek-chat")
    assert found is not None
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    usage = PublishedUsage(input_tokens=10**6, output_tokens=10**6, cache_read_tokens=400_000)
    asked = [
        calc_price(
            usage, "deepseek-chat", provider_id="deepseek", genai_request_timestamp=midnight + timedelta(hours=h)
        )
        for h in range(24)
    ]
    bills = {int(bill.total_price * 10**9) for bill in asked}
    assert len(bills) > 1
    assert found.cost(Usage(input=10**6, output=10**6, cached=400_000)) == max(bills)


def test_a_row_may_add_tiers_to_a_published_price() -> None:
    text = "models: {gpt-4o: {provider: openai, service_tiers: {priority: 1.7}}}"
    assert prices_of(text) == {"gpt-4o": "input=2500,output=10000,cached=1250;tier=priority,factor=1.7"}


# -- servers


@pytest.mark.parametrize(
    ("provider", "priced"), [("azure", True), ("openai", False), ("mistral", False), ("nobody", False)]
)
def test_published_prices_hold_at_a_server_of_ones_own_only_where_the_vendor_runs_it(
    provider: str, priced: bool
) -> None:
    engine = {"mistral": "mistral-large-latest"}.get(provider, "gpt-4o")
    found = published(provider, engine, api_base="https://mine.example.com")
    assert (found is not None) is priced
    assert found is None or found == published("openai", engine)


def test_knowing_prices_loads_no_provider() -> None:
    code = (
        "import sys; from model_gateway.prices import load_prices; from model_gateway.settings import parse_config;"
        "load_prices(parse_config('models: {gpt-4o: {provider: openai}}'));"
        "sys.exit(any(name.startswith('model_gateway.providers') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_published_price_keeps_every_digit() -> None:
    found = published("openrouter", "deepseek/deepseek-chat")
    bill = calc_price(
        PublishedUsage(input_tokens=3, output_tokens=7), "deepseek/deepseek-chat", provider_id="openrouter"
    )
    assert found is not None
    assert found.rates.input * 3 + found.rates.output * 7 == bill.total_price * 10**9 != Decimal(0)
