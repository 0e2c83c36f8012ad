"""The vendors of vendors.yaml: where they are called, what is sent to each, and how their usage is read."""

from collections.abc import AsyncIterator, Callable
from importlib.metadata import entry_points
from typing import Any

import aiohttp
import orjson
import pytest

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.money import Usage
from model_gateway.providers import ProviderFactory, ProviderInterface, ProviderSettings
from model_gateway.providers.factory import ENTRY_POINTS, is_served, key_variables
from model_gateway.providers.openai import OpenAIProvider
from model_gateway.providers.openai.vendors import find_vendor, parse_vendors, vendors
from model_gateway.settings import ConfigError, DeploymentRow
from tests.providers.openai_family import HELLO, KEY, TRANSPORTS, collect, failure, row, whole
from tests.upstream import Behaviour, Upstream

COMPATIBLE = sorted(set(vendors()) - {"openai"})
LOCAL = ("llamacpp", "lmstudio", "ollama", "vllm")
Make = Callable[..., ProviderInterface]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
async def make(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one transport, by name."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(name: str, **settings: Any) -> ProviderInterface:
            made.append(row(name, upstream, session, **{"transport": request.param} | settings))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


# the rows


def test_every_vendor_is_a_row_and_an_entry_point_to_the_same_class() -> None:
    names = {"deepseek", "groq", "llamacpp", "lmstudio", "mistral", "ollama", "openrouter", "together", "vllm", "xai"}
    assert set(COMPATIBLE) == names
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    assert all(points[name].load() is OpenAIProvider for name in names)


@pytest.mark.parametrize(
    ("name", "base", "variables"),
    [
        ("deepseek", "https://api.deepseek.com", ("DEEPSEEK_API_KEY",)),
        ("groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
        ("llamacpp", "http://localhost:8080/v1", ()),
        ("lmstudio", "http://localhost:1234/v1", ()),
        ("mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
        ("ollama", "http://localhost:11434/v1", ()),
        ("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        ("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
        ("together", "https://api.together.ai/v1", ("TOGETHER_API_KEY",)),
        ("vllm", "http://localhost:8000/v1", ()),
        ("xai", "https://api.x.ai/v1", ("XAI_API_KEY",)),
    ],
)
def test_a_vendor_has_its_own_server_and_key_variable(name: str, base: str, variables: tuple[str, ...]) -> None:
    assert find_vendor(name).api_base == base
    assert OpenAIProvider.key_variables(name) == variables
    assert key_variables(DeploymentRow(provider=name)) == variables
    assert is_served(DeploymentRow(provider=name), {}) == (name in LOCAL)
    assert is_served(DeploymentRow(provider=name), {"OPENAI_API_KEY": KEY}) == (name in (*LOCAL, "openai"))


def test_a_vendors_key_does_not_go_to_another_server() -> None:
    assert key_variables(DeploymentRow(provider="mistral", api_base="http://elsewhere.invalid/v1")) == ()


def test_a_provider_of_another_name_speaks_as_an_openai_compatible_server() -> None:
    provider = OpenAIProvider(ProviderSettings(provider="of-a-plug-in", api_base="http://localhost/v1"))
    assert (provider.max_tokens_field, provider.speaks) == ("max_tokens", frozenset())


def test_a_mistake_in_a_row_is_told_with_its_path() -> None:
    text = "x: {api_base: ftp://x, max_tokens_field: tokens, chat: {refuse: [n]}}\ny: {}"
    with pytest.raises(ConfigError) as caught:
        parse_vendors(text)
    paths = {problem.partition(":")[0] for problem in caught.value.problems}
    assert paths == {"x.api_base", "x.max_tokens_field", "x.chat.refuse", "y.api_base", "y.max_tokens_field"}
    with pytest.raises(ConfigError, match="is not YAML"):
        parse_vendors("x: [")


# what goes out


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("groq", "/openai/v1/chat/completions"),
        ("mistral", "/v1/chat/completions"),
        ("openrouter", "/api/v1/chat/completions"),
    ],
)
async def test_a_request_goes_to_the_vendors_path_with_its_key(
    make: Make, upstream: Upstream, name: str, path: str
) -> None:
    await whole(make(name))
    assert upstream.requests[0].path == path
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", COMPATIBLE)
async def test_both_transports_send_and_read_the_same(upstream: Upstream, name: str) -> None:
    told = []
    async with aiohttp.ClientSession() as session:
        for transport in TRANSPORTS:
            provider = row(name, upstream, session, transport=transport)
            told.append([await whole(provider, seed_of_tomorrow=1), *await collect(provider)])
            await provider.close()
    first, second, third, fourth = ((one.path, one.json, one.headers["authorization"]) for one in upstream.requests)
    assert (first, second) == (third, fourth)
    assert told[0] == told[1]


@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("name", COMPATIBLE)
async def test_an_output_bound_goes_out_in_a_field_that_binds_the_vendor(
    make: Make, upstream: Upstream, name: str, given: str
) -> None:
    provider = make(name)
    await whole(provider, **{given: 3})
    known = {"vllm": given, "openrouter": given}.get(name, provider.max_tokens_field)
    assert {field: value for field, value in upstream.requests[0].json.items() if "tokens" in field} == {known: 3}


@pytest.mark.parametrize(
    ("name", "field"), [("mistral", "max_tokens"), ("groq", "max_completion_tokens"), ("xai", "max_completion_tokens")]
)
def test_the_gateways_own_bound_goes_into_the_vendors_field(name: str, field: str) -> None:
    assert OpenAIProvider(ProviderSettings(provider=name)).max_tokens_field == field


async def test_the_operator_knows_better_which_field_binds(make: Make, upstream: Upstream) -> None:
    provider = make("ollama", max_tokens_field="max_completion_tokens")
    await whole(provider, max_tokens=3)
    assert provider.max_tokens_field == "max_completion_tokens"
    sent = upstream.requests[0].json
    assert (sent.get("max_completion_tokens"), sent.get("max_tokens")) == (3, None)


async def test_two_fields_that_become_one_are_refused(make: Make, upstream: Upstream) -> None:
    error = await failure(whole, make("mistral"), max_tokens=3, max_completion_tokens=5)
    assert (error.code, error.param, upstream.calls) == ("unsupported_parameter", "max_completion_tokens", 0)


async def test_mistrals_seed_has_its_own_name(make: Make, upstream: Upstream) -> None:
    await whole(make("mistral"), seed=7)
    sent = upstream.requests[0].json
    assert (sent["random_seed"], "seed" in sent) == (7, False)


@pytest.mark.parametrize(
    ("name", "role"),
    [(name, "developer" if name in ("groq", "openrouter", "xai") else "system") for name in COMPATIBLE],
)
async def test_a_developers_message_is_the_systems_where_the_vendor_knows_no_other(
    make: Make, upstream: Upstream, name: str, role: str
) -> None:
    messages = [{"role": "developer", "content": "be brief"}, *HELLO]
    await make(name).complete(messages, "m")
    assert upstream.requests[0].json["messages"] == [{"role": role, "content": "be brief"}, *HELLO]
    assert messages[0]["role"] == "developer"


REFUSED = [
    ("mistral", "logprobs", True, "logprobs"),
    ("mistral", "top_logprobs", 2, "top_logprobs"),
    ("mistral", "logit_bias", {"1": 1}, "logit_bias"),
    ("mistral", "user", "someone", "user"),
    ("mistral", "service_tier", "flex", "service_tier"),
    ("groq", "n", 2, "n"),
    ("groq", "logprobs", True, "logprobs"),
    ("deepseek", "n", 2, "n"),
    ("deepseek", "seed", 0, "seed"),
    ("deepseek", "parallel_tool_calls", False, "parallel_tool_calls"),
    ("deepseek", "response_format", {"type": "json_schema", "json_schema": {}}, "response_format.type"),
    ("xai", "logit_bias", {"1": 1}, "logit_bias"),
    ("xai", "search_parameters", {"mode": "on"}, "search_parameters"),
    ("together", "logprobs", True, "logprobs"),
    ("openrouter", "models", ["another"], "models"),
    ("openrouter", "plugins", [{"id": "web"}], "plugins"),
    ("ollama", "n", 2, "n"),
    ("ollama", "tool_choice", "required", "tool_choice"),
    ("lmstudio", "logprobs", True, "logprobs"),
]


@pytest.mark.parametrize(("name", "field", "value", "param"), REFUSED)
async def test_what_a_vendor_does_not_have_is_refused_by_its_name(
    make: Make, upstream: Upstream, name: str, field: str, value: Any, param: str
) -> None:
    for call in (whole, collect):
        error = await failure(call, make(name), **{field: value})
        assert (error.code, error.param, error.status, error.billed) == ("unsupported_parameter", param, 400, False)
    assert upstream.calls == 0


@pytest.mark.parametrize(("name", "field", "value", "param"), REFUSED)
async def test_and_left_out_where_the_row_says_so(
    make: Make, upstream: Upstream, name: str, field: str, value: Any, param: str
) -> None:
    await whole(make(name, drop_params=True), **{field: value}, temperature=0.5)
    assert upstream.requests[0].json == {"model": "gpt-x", "messages": HELLO, "temperature": 0.5}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mistral", {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "user": None, "service_tier": "auto"}),
        ("groq", {"n": 1, "logprobs": None}),
        ("deepseek", {"parallel_tool_calls": True, "modalities": ["text"]}),
        ("ollama", {"tool_choice": "auto", "n": 1}),
    ],
)
async def test_a_value_that_asks_for_nothing_is_no_reason_to_refuse(
    make: Make, upstream: Upstream, name: str, fields: dict[str, Any]
) -> None:
    await whole(make(name), **fields)
    assert upstream.requests[0].json == {"model": "gpt-x", "messages": HELLO}


async def test_a_value_that_the_vendor_has_goes_out(make: Make, upstream: Upstream) -> None:
    await whole(make("deepseek"), response_format={"type": "json_object"})
    assert upstream.requests[0].json["response_format"] == {"type": "json_object"}


async def test_groq_takes_no_name_of_a_message(make: Make, upstream: Upstream) -> None:
    named = [*HELLO, {"role": "user", "content": "again", "name": "bob"}]
    with pytest.raises(GatewayError) as caught:
        await make("groq").complete(named, "m")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages[1].name")
    await make("groq", drop_params=True).complete(named, "m")
    assert upstream.requests[0].json["messages"] == [*HELLO, {"role": "user", "content": "again"}]


@pytest.mark.parametrize("name", COMPATIBLE)
async def test_usage_of_a_stream_is_asked_for_where_the_vendor_can_be_asked(
    make: Make, upstream: Upstream, name: str
) -> None:
    await collect(make(name), stream_options={"include_usage": False})
    asked = None if name in ("mistral", "together") else {"include_usage": True}
    assert upstream.requests[0].json.get("stream_options") == asked


# embeddings and responses


async def test_mistrals_embeddings_have_their_own_name_for_dimensions(make: Make, upstream: Upstream) -> None:
    assert await make("mistral").embed(["x"], "mistral-embed", dimensions=4)
    assert upstream.requests[0].json == {"model": "mistral-embed", "input": ["x"], "output_dimension": 4}


async def test_what_a_vendors_embeddings_do_not_have_is_refused(make: Make, upstream: Upstream) -> None:
    with pytest.raises(GatewayError) as caught:
        await make("together").embed(["x"], "m", dimensions=4)
    assert (caught.value.code, caught.value.param, upstream.calls) == ("unsupported_parameter", "dimensions", 0)


@pytest.mark.parametrize("name", ["deepseek", "groq", "xai"])
async def test_a_vendor_without_embeddings_says_so(make: Make, upstream: Upstream, name: str) -> None:
    with pytest.raises(GatewayError, match=f"'{name}' does not offer embeddings") as caught:
        await make(name).embed(["x"], "m")
    assert (caught.value.code, caught.value.billed, upstream.calls) == ("unsupported_operation", False, 0)


@pytest.mark.parametrize("name", COMPATIBLE)
async def test_responses_are_spoken_natively_where_the_row_says_so(make: Make, upstream: Upstream, name: str) -> None:
    provider = make(name)
    assert provider.speaks == ({"responses"} if name in ("groq", "lmstudio", "ollama", "vllm") else frozenset())
    if provider.speaks:
        assert orjson.loads(await provider.native("responses", {"model": "m", "input": "hi"}))["object"] == "response"
        assert upstream.requests[0].path.endswith("/responses")


# usage


def usage(provider: str, **members: Any) -> Usage | None:
    return OpenAIProvider(ProviderSettings(provider=provider)).chat_usage(members)


def test_deepseeks_cached_tokens_stand_in_a_field_of_their_own() -> None:
    told = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_cache_hit_tokens": 64,
        "prompt_cache_miss_tokens": 36,
    }
    assert usage("deepseek", usage=told) == Usage(input=100, output=20, cached=64)
    both = {**told, "prompt_tokens_details": {"cached_tokens": 63}}
    assert usage("deepseek", usage=both) == Usage(input=100, output=20, cached=63)
    assert usage("openai", usage=told) == Usage(input=100, output=20)


def test_xais_reasoning_is_added_to_the_output_that_leaves_it_out() -> None:
    # A real reply's figures: 10,120 + 1,499 + 2,809 = 14,428.
    told = {
        "prompt_tokens": 10_120,
        "completion_tokens": 1_499,
        "total_tokens": 14_428,
        "prompt_tokens_details": {"cached_tokens": 128},
        "completion_tokens_details": {"reasoning_tokens": 2_809},
    }
    assert usage("xai", usage=told) == Usage(input=10_120, output=4_308, cached=128, reasoning=2_809)


def test_and_is_not_added_twice_should_the_total_say_that_it_is_in_there() -> None:
    told = {
        "prompt_tokens": 500,
        "completion_tokens": 500,
        "total_tokens": 1_000,
        "completion_tokens_details": {"reasoning_tokens": 200},
    }
    assert usage("xai", usage=told) == Usage(input=500, output=500, reasoning=200)


def test_groqs_usage_is_found_under_its_own_member() -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 5}
    assert usage("groq", x_groq={"id": "req_1", "usage": told}) == Usage(input=10, output=5)
    assert usage("groq", usage=None, x_groq={"usage": told}) == Usage(input=10, output=5)
    assert usage("groq", usage={**told, "prompt_tokens": 11}, x_groq={"usage": told}) == Usage(input=11, output=5)
    assert usage("groq", x_groq={"id": "req_1"}) is None


@pytest.mark.parametrize("made_up", [None, [], "x", {"prompt_tokens": "1"}, {"prompt_tokens": -1}, {}])
@pytest.mark.parametrize("name", [*COMPATIBLE, "openai"])
def test_usage_that_makes_no_sense_is_none(name: str, made_up: Any) -> None:
    assert usage(name, usage=made_up, x_groq=made_up) is None


async def test_usage_in_a_streams_last_chunk_is_read_unasked(make: Make, upstream: Upstream) -> None:
    last = orjson.dumps(
        {
            "choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
    )
    upstream.next(Behaviour(events=(b'{"choices":[{"index":0,"delta":{"content":"hi"}}]}', last)))
    provider = make("mistral")
    reader = ChatReader(provider.chat_usage)
    for chunk in await collect(provider):
        reader.chunk(orjson.loads(chunk))
    assert (reader.usage, reader.text, reader.complete) == (Usage(input=3, output=1), "hi!", True)


async def test_openrouters_comments_are_passed_over_and_its_error_in_a_chunk_is_an_error(
    make: Make, upstream: Upstream
) -> None:
    first = b'{"choices":[{"index":0,"delta":{"content":"hi"}}]}'
    error = orjson.dumps(
        {
            "id": "gen-1",
            "error": {"code": "server_error", "message": "Provider disconnected"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        }
    )
    sse = b": OPENROUTER PROCESSING\n\ndata: %b\n\n: OPENROUTER PROCESSING\n\ndata: %b\n\ndata: [DONE]\n\n"
    upstream.next(Behaviour(body=sse % (first, error)))
    chunks = []
    with pytest.raises(GatewayError, match="Provider disconnected") as caught:
        async for chunk in make("openrouter").stream(HELLO, "m"):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert (chunks, caught.value.code, caught.value.billed) == ([first], "upstream_error", True)


def test_vendors_are_found_by_the_factory() -> None:
    assert all(ProviderFactory.find(name) is OpenAIProvider for name in COMPATIBLE)
