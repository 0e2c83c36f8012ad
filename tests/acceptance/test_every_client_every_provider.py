"""Every dialect's official SDK as a client of every provider, through the whole gateway and back over TCP."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from tests.invariants import check_idle
from tests.processes import ADMIN_TOKEN, wait_until
from tests.upstream import Upstream, openai_speech
from tests.upstream_anthropic import anthropic_speech
from tests.upstream_anthropic import encoded as anthropic_encoded
from tests.upstream_anthropic import events as anthropic_events
from tests.upstream_anthropic import message as anthropic_message
from tests.upstream_anthropic import usage_of as anthropic_usage
from tests.upstream_google import encoded as google_encoded
from tests.upstream_google import google_speech
from tests.upstream_google import reply as google_reply
from tests.upstream_google import usage_of as google_usage
from tests.upstream_replies import ERROR, Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
LIMIT = 20_000_000_000
ROW = "input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100, timeout: 5, api_key_env: UPSTREAM_KEY"
CONFIG = (
    """
models:
  echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}}
  openai: {{ROW, provider: openai, api_base: "{base_url}"}}
  openai-native: {{ROW, provider: openai, api_base: "{base_url}", options: {{responses: true}}}}
  openai-sdk: {{ROW, provider: openai, api_base: "{base_url}", transport: sdk}}
  azure: {{ROW, provider: azure, api_base: "{base_url}/azure"}}
  anthropic: {{ROW, provider: anthropic, api_base: "{base_url}"}}
  anthropic-sdk: {{ROW, provider: anthropic, api_base: "{base_url}", transport: sdk}}
  google: {{ROW, provider: google, api_base: "{base_url}"}}
  vertex: {{ROW, provider: vertex, api_base: "{base_url}", options: {{project: p, location: europe-west1}}}}
  google-sdk: {{ROW, provider: google, api_base: "{base_url}", transport: sdk}}
"""
    + "".join(
        f'  {vendor}: {{{{ROW, provider: {vendor}, api_base: "{{base_url}}"}}}}\n'
        for vendor in (
            *("mistral", "groq", "deepseek", "xai", "together"),
            *("openrouter", "ollama", "vllm", "llamacpp", "lmstudio"),
        )
    )
    + """
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
routing: {{retries: 0, breaker: {{enabled: false}}}}
"""
).replace("ROW", ROW)

SPEAKERS = {
    "openai": ["openai", "openai-native", "openai-sdk", "azure"],
    "compatible": [
        *("mistral", "groq", "deepseek", "xai", "together", "openrouter", "ollama", "vllm", "llamacpp", "lmstudio"),
    ],
    "anthropic": ["anthropic", "anthropic-sdk"],
    "google": ["google", "google-sdk", "vertex"],
}
MODELS = ["echo", *(model for models in SPEAKERS.values() for model in models)]
UNASKED = ["mistral", "together"]
"""Vendors that tell a stream's usage whether they are asked or not, and are not asked."""

CALLERS = ["openai", "anthropic", "anthropic-sdk", "google", "google-sdk", "vertex", "xai", "mistral"]
"""Models whose upstream is told to call a tool."""

SAID = "hello there"
CITY = {"city": "Ulm"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def speech(path):
    """One server for every vendor, by its paths."""
    return anthropic_speech(path) or google_speech(path) or openai_speech(path)


@module_fixture
async def upstream():
    async with Upstream(speech=speech) as running:
        yield running


@module_fixture
async def anthropic(house):
    async with AsyncAnthropic(base_url=house.url, api_key=ADMIN_TOKEN, max_retries=0) as client:
        yield client


class Client:
    """One dialect's way to ask, and what came: text, tool calls as (name, arguments), input and output tokens."""

    def __init__(self, openai, anthropic):
        self.openai, self.anthropic = openai, anthropic

    async def chat(self, model, tools):
        more = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]} if tools else {}
        reply = await self.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": SAID}], max_tokens=50, **more
        )
        message = reply.choices[0].message
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
        return message.content or "", calls, reply.usage.prompt_tokens, reply.usage.completion_tokens

    async def chat_streamed(self, model, tools):
        more = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]} if tools else {}
        stream = self.openai.chat.completions.stream(
            model=model,
            messages=[{"role": "user", "content": SAID}],
            max_tokens=50,
            stream_options={"include_usage": True},
            **more,
        )
        async with stream as events:
            reply = await events.get_final_completion()
        message = reply.choices[0].message
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
        return message.content or "", calls, reply.usage.prompt_tokens, reply.usage.completion_tokens

    async def responses(self, model, tools):
        more = {"tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}]} if tools else {}
        reply = await self.openai.responses.create(model=model, input=SAID, max_output_tokens=50, **more)
        return _of_response(reply)

    async def responses_streamed(self, model, tools):
        more = {"tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}]} if tools else {}
        stream = self.openai.responses.stream(model=model, input=SAID, max_output_tokens=50, **more)
        async with stream as events:
            return _of_response(await events.get_final_response())

    async def messages(self, model, tools):
        more = {"tools": [{"name": "weather", "input_schema": SCHEMA}]} if tools else {}
        reply = await self.anthropic.messages.create(
            model=model, max_tokens=50, messages=[{"role": "user", "content": SAID}], **more
        )
        return _of_message(reply)

    async def messages_streamed(self, model, tools):
        more = {"tools": [{"name": "weather", "input_schema": SCHEMA}]} if tools else {}
        stream = self.anthropic.messages.stream(
            model=model, max_tokens=50, messages=[{"role": "user", "content": SAID}], **more
        )
        async with stream as events:
            return _of_message(await events.get_final_message())


WAYS = [name for name in vars(Client) if not name.startswith("_")]


def _of_response(reply):
    calls = [(item.name, json.loads(item.arguments)) for item in reply.output if item.type == "function_call"]
    return reply.output_text, calls, reply.usage.input_tokens, reply.usage.output_tokens


def _of_message(reply):
    text = "".join(block.text for block in reply.content if block.type == "text")
    calls = [(block.name, block.input) for block in reply.content if block.type == "tool_use"]
    return text, calls, reply.usage.input_tokens, reply.usage.output_tokens


@pytest.fixture
def client(openai, anthropic):
    return Client(openai, anthropic)


def calling(model, *, streamed):
    """An upstream that calls a tool, in its own words."""
    if model.startswith("anthropic"):
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": CITY}
        if streamed:
            return Behaviour(events=anthropic_encoded(anthropic_events([block], "tool_use", anthropic_usage(5, 7))))
        return Behaviour(body=json.dumps(anthropic_message([block], "tool_use", anthropic_usage(5, 7))).encode())
    if model.startswith(("google", "vertex")):
        whole = google_reply([{"functionCall": {"name": "weather", "args": CITY}}], usage=google_usage(5, 7))
        return Behaviour(events=google_encoded(whole)) if streamed else Behaviour(body=json.dumps(whole).encode())
    return Behaviour(events=_chunks()) if streamed else Behaviour(body=_completion())


def _completion():
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(CITY)}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return json.dumps(head | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}).encode()


def _chunks():
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    deltas = [{"role": "assistant", "content": None, "tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in ('{"city"', ': "Ulm"}')]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})
    return tuple(json.dumps(head | chunk).encode() for chunk in chunks)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
async def test_text_comes_back_and_is_paid_as_the_provider_counted(client, upstream, journal, house, model, way):
    if model in UNASKED:
        upstream.next(Behaviour(unasked_usage=True))
    text, calls, tokens_in, tokens_out = await getattr(client, way)(model, False)
    assert (text, calls) == (SAID, [])
    [end] = await journal.ended()
    assert (end["input_tokens"], end["output_tokens"]) == (tokens_in, tokens_out)
    assert tokens_in > 0 < tokens_out
    assert end["usd_nano"] == tokens_in * 1000 + tokens_out * 2000
    assert not end["estimated"]
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize(
    ("model", "way"),
    [
        *(("openai", way) for way in WAYS if way != "chat"),
        *(("anthropic", way) for way in WAYS if not way.startswith("messages")),
        *(("google", way) for way in WAYS),
    ],
)
async def test_usage_that_the_provider_does_not_tell_is_counted_told_and_paid(client, upstream, journal, model, way):
    """Where the provider's own bytes are passed on, they are, without usage."""
    upstream.next(Behaviour(usage=False))
    text, _, tokens_in, tokens_out = await getattr(client, way)(model, False)
    [end] = await journal.ended()
    assert text == SAID
    assert end["estimated"]
    assert (end["input_tokens"], end["output_tokens"]) == (tokens_in, tokens_out)
    assert end["usd_nano"] == tokens_in * 1000 + tokens_out * 2000 > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", CALLERS)
async def test_a_tools_call_comes_back_and_the_tool_went_out(client, upstream, journal, model, way):
    upstream.next(calling(model, streamed=way.endswith("streamed")))
    _, calls, _, _ = await getattr(client, way)(model, True)
    assert calls == [("weather", CITY)]
    [sent] = journal.calls
    assert "weather" in json.dumps(sent.json["tools"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", [model for model in MODELS if model != "echo"])
async def test_a_providers_failure_is_an_error_of_the_sdks_own_that_shows_no_key(client, upstream, journal, model, way):
    upstream.next(Behaviour(status=500, body=ERROR))
    with pytest.raises(Exception, match="failed") as caught:
        await getattr(client, way)(model, False)
    assert caught.value.status_code == 502
    assert "canary" not in f"{caught.value!r} {caught.value.response.text}"
    [end] = await journal.ended()
    assert (end["status"], end["error_code"], end["usd_nano"]) == ("failed", "upstream_error", 0)


async def test_no_key_stands_in_any_log_or_event(house, client):
    await wait_until(lambda: all(part.log.exists() for part in house.parts))
    logs = "".join(part.log.read_text() for part in house.parts)
    events = await house.redis.xrange("agent.events")
    assert logs
    assert events
    assert "canary" not in logs + str(events)
