"""Azure OpenAI: both surfaces, keys and tokens, its quirks, and the SDK as the oracle."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderInterface, ProviderSettings
from model_gateway.providers.factory import is_served, key_variables
from model_gateway.providers.openai import AzureProvider
from model_gateway.settings import ConfigError, DeploymentRow
from tests.providers.authority import Authority, running_authority
from tests.providers.openai_family import HELLO, KEY, TRANSPORTS, collect, everything_said, row, whole
from tests.upstream import Behaviour, Recorded, Upstream

VERSION = "2024-10-21"
SECRET = "planted-client-secret-0123456789"
TOKEN = "planted-static-token-0123456789"
RESPONSE = {"model": "my-gpt", "input": "hello there"}
V1 = {"options": {"surface": "v1"}}
APPLICATION = {"AZURE_TENANT_ID": "my-tenant", "AZURE_CLIENT_ID": "my-client", "AZURE_CLIENT_SECRET": SECRET}
Make = Callable[..., ProviderInterface]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    async with running_authority() as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
async def make(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one transport."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(**settings: Any) -> ProviderInterface:
            made.append(row("azure", upstream, session, **{"transport": request.param} | settings))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


def root(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.port}"


async def talk(provider: ProviderInterface) -> list[Any]:
    """One call of each kind, and all that came back."""
    told = [await whole(provider, "my-gpt", seed=7), *await collect(provider, "my-gpt", seed=7)]
    told += [await provider.embed(["one"], "my-emb", dimensions=4), await provider.native("responses", RESPONSE)]
    return told + [event async for event in provider.native_stream("responses", {**RESPONSE, "stream": True})]


def seen(request: Recorded) -> tuple[Any, ...]:
    names = ("authorization", "api-key", "content-type", "accept-encoding")
    return (request.path, request.json, *(request.headers.get(name) for name in names))


# where it is called


async def test_a_deployment_stands_in_the_path_and_the_version_in_the_query(make: Make, upstream: Upstream) -> None:
    await talk(make())
    assert [request.path for request in upstream.requests] == [
        f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}",
        f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}",
        f"/openai/deployments/my-emb/embeddings?api-version={VERSION}",
        "/openai/v1/responses",
        "/openai/v1/responses",
    ]
    assert upstream.requests[0].json == {"model": "my-gpt", "messages": HELLO, "seed": 7}


@pytest.mark.parametrize(("version", "query"), [({}, ""), ({"api_version": "preview"}, "?api-version=preview")])
async def test_the_newer_surface_has_neither(
    make: Make, upstream: Upstream, version: dict[str, str], query: str
) -> None:
    dated = {"AZURE_OPENAI_API_VERSION": "2025-01-01-preview"}
    await talk(make(options={"surface": "v1", **version}, environment=dated))
    assert [request.path for request in upstream.requests] == [
        f"/openai/v1/chat/completions{query}",
        f"/openai/v1/chat/completions{query}",
        f"/openai/v1/embeddings{query}",
        f"/openai/v1/responses{query}",
        f"/openai/v1/responses{query}",
    ]


@pytest.mark.parametrize(
    ("settings", "version"),
    [
        ({}, VERSION),
        ({"environment": {"OPENAI_API_VERSION": "b"}}, "b"),
        ({"environment": {"OPENAI_API_VERSION": "b", "AZURE_OPENAI_API_VERSION": "a"}}, "a"),
        ({"environment": {"AZURE_OPENAI_API_VERSION": "a"}, "options": {"api_version": "own"}}, "own"),
    ],
)
async def test_the_version_is_the_rows_or_the_environments(
    make: Make, upstream: Upstream, settings: dict[str, Any], version: str
) -> None:
    await whole(make(**settings))
    assert upstream.requests[0].path.partition("?")[2] == f"api-version={version}"


@pytest.mark.parametrize("ending", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
async def test_an_endpoint_may_be_given_with_some_of_its_path(make: Make, upstream: Upstream, ending: str) -> None:
    await whole(make(api_base=root(upstream) + ending, **V1))
    assert upstream.requests[0].path == "/openai/v1/chat/completions"


async def test_the_endpoint_comes_from_the_environment_where_the_row_has_none(make: Make, upstream: Upstream) -> None:
    await whole(make(api_base="", environment={"AZURE_OPENAI_ENDPOINT": root(upstream)}))
    assert upstream.calls == 1


@pytest.mark.parametrize(("engine", "segment"), [("my gpt", "my%20gpt"), ("a/b?c=d&e#f", "a%2Fb%3Fc%3Dd%26e%23f")])
async def test_a_deployments_name_does_not_lead_anywhere_else(upstream: Upstream, engine: str, segment: str) -> None:
    async with aiohttp.ClientSession() as session:
        await whole(row("azure", upstream, session), engine)
    assert upstream.requests[0].path == f"/openai/deployments/{segment}/chat/completions?api-version={VERSION}"


# who calls


async def test_a_key_goes_out_in_its_own_header(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.setenv(name, "not-this-one")
    await talk(make())
    for request in upstream.requests:
        assert (request.headers["api-key"], request.headers.get("authorization")) == (KEY, None)
        assert "not-this-one" not in str(request.headers)


async def test_a_static_token_goes_out_as_a_bearer(make: Make, upstream: Upstream) -> None:
    await talk(make(api_key="", environment={"AZURE_OPENAI_AD_TOKEN": TOKEN, "AZURE_OPENAI_API_KEY": KEY}))
    for request in upstream.requests:
        assert (request.headers["authorization"], request.headers.get("api-key")) == (f"Bearer {TOKEN}", None)


async def test_an_applications_token_is_fetched_once_and_goes_out_as_a_bearer(
    make: Make, upstream: Upstream, authority: Authority
) -> None:
    await talk(make(api_key="", environment={**APPLICATION, "AZURE_AUTHORITY_HOST": f"{authority.url}/"}))
    for request in upstream.requests:
        assert (request.headers["authorization"], request.headers.get("api-key")) == ("Bearer token-1", None)
        assert SECRET not in str(request.headers)
    form = {
        "grant_type": "client_credentials",
        "client_id": "my-client",
        "client_secret": SECRET,
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    assert authority.forms == [("/my-tenant/oauth2/v2.0/token", form)]


async def test_a_row_names_its_own_authority_and_scope(make: Make, upstream: Upstream, authority: Authority) -> None:
    options = {"authority": authority.url, "scope": "https://ai.azure.com/.default"}
    await whole(make(api_key="", options=options, environment=APPLICATION))
    assert authority.forms[0][1]["scope"] == "https://ai.azure.com/.default"


async def test_a_token_that_is_refused_is_fetched_anew_for_the_next_call(
    make: Make, upstream: Upstream, authority: Authority
) -> None:
    provider = make(api_key="", environment={**APPLICATION, "AZURE_AUTHORITY_HOST": authority.url})
    upstream.next(Behaviour(status=401, body=b"{}"))
    with pytest.raises(GatewayError, match="HTTP 401"):
        await whole(provider)
    await whole(provider)
    assert [request.headers["authorization"] for request in upstream.requests] == ["Bearer token-1", "Bearer token-2"]


async def test_without_a_token_nobody_is_called(make: Make, upstream: Upstream, authority: Authority) -> None:
    authority.answers = [(400, {"error": "invalid_client", "error_description": SECRET})]
    provider = make(api_key="", environment={**APPLICATION, "AZURE_AUTHORITY_HOST": authority.url})
    with pytest.raises(GatewayError, match="invalid_client") as caught:
        await whole(provider)
    assert (caught.value.code, caught.value.billed, upstream.calls) == ("upstream_unauthorized", False, 0)
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"api_key": KEY}, KEY),
        ({"api_key": "", "environment": {"AZURE_OPENAI_AD_TOKEN": TOKEN}}, TOKEN),
        ({"api_key": "", "environment": APPLICATION}, "token-1"),
    ],
)
async def test_an_error_does_not_repeat_what_lets_a_call_in(
    make: Make, upstream: Upstream, authority: Authority, settings: dict[str, Any], secret: str
) -> None:
    upstream.next(Behaviour(status=400, body=orjson.dumps({"error": {"message": f"no {secret}", "param": secret}})))
    with pytest.raises(GatewayError) as caught:
        await whole(make(options={"authority": authority.url}, **settings))
    assert caught.value.code == "upstream_rejected"
    assert secret not in everything_said(caught.value)


ENDPOINT = "https://my-resource.openai.azure.com"


@pytest.mark.parametrize("variable", ["AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "AZURE_CLIENT_SECRET"])
@pytest.mark.parametrize("base", ["", ENDPOINT])
def test_a_row_is_served_where_any_way_in_is_set(base: str, variable: str) -> None:
    deployment = DeploymentRow(provider="azure", api_base=base)
    assert variable in key_variables(deployment)
    assert is_served(deployment, {variable: "x"})
    assert not is_served(deployment, {"OPENAI_API_KEY": KEY})


async def test_the_factory_hands_over_the_secret_as_what_it_is(upstream: Upstream, authority: Authority) -> None:
    environment = {**APPLICATION, "AZURE_AUTHORITY_HOST": authority.url, "MY_KEY": KEY}
    async with aiohttp.ClientSession() as session:
        for own in (None, "MY_KEY"):
            deployment = DeploymentRow(provider="azure", api_base=root(upstream), api_key_env=own)
            await whole(ProviderFactory.create("my-row", deployment, session, environment))
    first, second = upstream.requests
    assert (first.headers["authorization"], "api-key" in first.headers) == ("Bearer token-1", False)
    assert ("authorization" in second.headers, second.headers["api-key"]) == (False, KEY)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"api_base": ""}, "neither is AZURE_OPENAI_ENDPOINT"),
        ({"api_key": ""}, "none of AZURE_OPENAI_AD_TOKEN, AZURE_OPENAI_API_KEY, AZURE_CLIENT_SECRET is set"),
        ({"options": {"surface": "v2"}}, "options.surface: is not one of deployments, v1"),
        ({"options": {"version": "x"}}, "options.version: the provider 'azure' has no such option"),
        (
            {"api_key": "", "environment": {"AZURE_CLIENT_SECRET": SECRET}},
            "AZURE_CLIENT_SECRET needs AZURE_TENANT_ID and AZURE_CLIENT_ID",
        ),
        ({"api_key": f"{KEY}\n"}, "no HTTP header can carry"),
    ],
)
def test_settings_that_can_not_work_are_refused_at_the_start(settings: dict[str, Any], problem: str) -> None:
    given = {"name": "my-row", "provider": "azure", "api_base": ENDPOINT, "api_key": KEY}
    with pytest.raises(ConfigError) as caught:
        AzureProvider(ProviderSettings(**given | settings))
    assert problem in str(caught.value)
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)


# what it says


async def test_what_the_filters_found_comes_out_as_sent(make: Make, upstream: Upstream) -> None:
    filters = {"hate": {"filtered": False, "severity": "safe"}}
    prompt = [{"prompt_index": 0, "content_filter_results": filters}]
    delta = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None, "content_filter_results": filters}
    last = {"index": 0, "delta": {}, "finish_reason": "content_filter", "content_filter_results": filters}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    members: list[dict[str, Any]] = [
        {"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": prompt},
        {"id": "1", "choices": [delta]},
        {"id": "1", "choices": [last]},
        {"id": "1", "choices": [], "usage": usage},
    ]
    events = tuple(orjson.dumps(one) for one in members)
    upstream.next(Behaviour(events=events))
    provider = make()
    chunks = await collect(provider)
    assert tuple(chunks) == events

    reader = ChatReader(provider.chat_usage)
    reader.chunk(members[0])
    assert (reader.complete, reader.finishing) == (False, False)
    for chunk in members[1:]:
        reader.chunk(chunk)
    assert (reader.complete, reader.finish_reason, reader.text) == (True, "content_filter", "hi")
    assert reader.usage
    assert (reader.usage.input, reader.usage.output) == (3, 1)


async def test_a_prompt_that_the_filters_refuse_is_a_rejection(make: Make, upstream: Upstream) -> None:
    error = {"code": "content_filter", "param": "prompt", "message": "The response was filtered", "status": 400}
    upstream.next(Behaviour(status=400, body=orjson.dumps({"error": error})))
    with pytest.raises(GatewayError, match="The response was filtered") as caught:
        await collect(make())
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("upstream_rejected", "prompt", False)


def test_it_speaks_responses_and_bounds_the_output_as_openai_does() -> None:
    provider = AzureProvider(ProviderSettings(provider="azure", api_base=ENDPOINT, api_key=KEY))
    assert (provider.speaks, provider.max_tokens_field) == (frozenset({"responses"}), "max_completion_tokens")
    older = AzureProvider(ProviderSettings(api_base=ENDPOINT, api_key=KEY, max_tokens_field="max_tokens"))
    assert older.max_tokens_field == "max_tokens"
    assert ProviderFactory.find("azure") is AzureProvider


# the SDK as the oracle


@pytest.mark.parametrize("surface", ["deployments", "v1"])
@pytest.mark.parametrize("environment", [{"AZURE_OPENAI_API_KEY": KEY}, {"AZURE_OPENAI_AD_TOKEN": TOKEN}])
async def test_both_transports_send_and_read_the_same(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, surface: str, environment: dict[str, str]
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_VERSION", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.setenv(name, "elsewhere")
    told = []
    async with aiohttp.ClientSession() as session:
        for transport in TRANSPORTS:
            settings = {"api_key": "", "environment": environment, "options": {"surface": surface}}
            provider = row("azure", upstream, session, transport=transport, **settings)
            told.append(await talk(provider))
            await provider.close()
    requests = list(upstream.requests)
    assert len(requests) == 10
    assert [seen(request) for request in requests[:5]] == [seen(request) for request in requests[5:]]
    assert told[0] == told[1]
    assert all("elsewhere" not in str((request.headers, request.path)) for request in requests)


async def _typed(client: AsyncOpenAI, *, responses: bool) -> None:
    """The same calls as ``talk``, by the SDK's own methods."""
    fields: dict[str, Any] = {"model": "my-gpt", "messages": HELLO, "seed": 7}
    await client.chat.completions.create(**fields)
    await client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    await client.embeddings.create(model="my-emb", input=["one"], dimensions=4, encoding_format="float")
    if responses:
        await client.responses.create(**RESPONSE)
        await client.responses.create(**RESPONSE, stream=True)
    await client.close()


async def test_the_sdks_typed_methods_call_a_deployment_as_we_do(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        await talk(row("azure", upstream, session))
    client = AsyncAzureOpenAI(azure_endpoint=root(upstream), api_version=VERSION, api_key=KEY, max_retries=0)
    await _typed(client, responses=False)
    _same([*upstream.requests][:3], [*upstream.requests][5:], "api-key")


async def test_the_sdks_typed_methods_call_the_newer_surface_as_we_do(upstream: Upstream) -> None:
    environment = {"AZURE_OPENAI_AD_TOKEN": TOKEN}
    async with aiohttp.ClientSession() as session:
        await talk(row("azure", upstream, session, api_key="", environment=environment, **V1))
    client = AsyncOpenAI(base_url=f"{root(upstream)}/openai/v1/", api_key=TOKEN, max_retries=0)
    await _typed(client, responses=True)
    _same([*upstream.requests][:5], [*upstream.requests][5:], "authorization")


def _same(ours: list[Recorded], theirs: list[Recorded], credential: str) -> None:
    for our, their in zip(ours, theirs, strict=True):
        their.json.pop("encoding_format", None)  # the method sets it by itself
        assert (our.path, our.json) == (their.path, their.json)
        assert our.headers[credential] == their.headers[credential]
