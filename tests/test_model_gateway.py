"""A tour of what the Model Gateway promises its users; each promise has its own tests in the folders beside this.

Runs alone: ``pytest tests/test_model_gateway.py -v``.
"""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from model_gateway.prices import load_prices
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.settings import ModelRow, parse_config
from model_gateway.signing import ChunkChain, Keyring, seal_reply, verify_reply, verify_signature, verify_stream

SECRET = "a-secret-of-this-test-and-of-nothing-else"
MESSAGES = [{"role": "user", "content": "Hello, gateway!"}]

PUBLISHED_CONFIG = """\
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


# -- configuration


def test_the_published_config_loads_as_it_stands() -> None:
    config = parse_config(PUBLISHED_CONFIG)
    assert config.resolve("self_reflection") == "o3-pro"
    assert config.budget.limit_nano == 20 * 10**9


def test_its_prices_are_exact() -> None:
    prices = load_prices(parse_config(PUBLISHED_CONFIG))
    assert str(prices["gpt-4o"]) == "input=2500,output=10000"  # nano-dollars per token


# -- signatures


def test_verify_signature_is_hmac_sha256_over_the_text() -> None:
    data = '{"content": "Grüße"}'
    signature = hmac.new(SECRET.encode(), data.encode(), hashlib.sha256).hexdigest()
    assert verify_signature(data, signature, SECRET)
    assert not verify_signature(data.replace("G", "g"), signature, SECRET)
    assert not verify_signature(data, "not a signature: ü", SECRET)


def test_a_signed_reply_verifies_with_the_published_function_alone() -> None:
    reply = seal_reply(b'{"id":"chatcmpl-1"}', Keyring((SECRET,)), "req_1", "0" * 64).decode()
    data, _, rest = reply.rpartition(',"signature":"')
    assert verify_signature(data + "}", rest[:64], SECRET)
    assert verify_reply(reply, SECRET, request_id="req_1")
    assert not verify_reply(reply, SECRET, request_id="req_2")


def test_a_signed_stream_verifies_only_whole_and_in_order() -> None:
    chain = ChunkChain(Keyring((SECRET,)), "req_1", "0" * 64)
    first, second, last = chain.seal(b'{"n":1}'), chain.seal(b'{"n":2}'), chain.seal(b'{"n":3}', final=True)
    assert verify_stream([first, second, last], SECRET, request_id="req_1")
    for broken in ([first, last], [second, first, last], [first, second], [first, second, second, last]):
        assert not verify_stream(broken, SECRET, request_id="req_1")


# -- providers


class ParrotProvider(ProviderInterface):
    """A provider of somebody else's, with the published signatures."""

    async def complete(self, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": messages[-1]["content"]}
        return {"model": model, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    async def stream(self, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[dict[str, Any]]:
        for word in messages[-1]["content"].split():
            yield {"model": model, "choices": [{"index": 0, "delta": {"content": word}}]}

    def count_tokens(self, text: str, model: str) -> int:
        return len(text.split())


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> type[ProviderFactory]:
    """The factory, with a registry that is put back afterwards."""
    monkeypatch.setattr(ProviderFactory, "_providers", dict(ProviderFactory._providers))
    return ProviderFactory


async def make(provider: str) -> ProviderInterface:
    """A provider as a worker makes it, out of a row of the config."""
    async with aiohttp.ClientSession() as http:
        return ProviderFactory.create("demo", ModelRow(provider=provider, free=True), http)


async def text_of(provider: ProviderInterface) -> tuple[str, str]:
    """What a provider answers, whole and streamed."""
    whole = as_object(await provider.complete(MESSAGES, "demo"))
    chunks = [as_object(chunk) async for chunk in provider.stream(MESSAGES, "demo")]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    return whole["choices"][0]["message"]["content"], "".join(said)


def as_object(answer: Any) -> Any:
    """A provider answers with an object or with its text."""
    return json.loads(answer) if isinstance(answer, bytes) else answer


async def test_the_echo_provider_answers_whole_and_streamed() -> None:
    assert await text_of(await make("echo")) == ("Hello, gateway!", "Hello, gateway!")


async def test_a_provider_put_into_the_published_registry_is_used(factory: type[ProviderFactory]) -> None:
    factory._providers["parrot"] = ParrotProvider
    provider = await make("parrot")
    assert isinstance(provider, ParrotProvider)
    assert await text_of(provider) == ("Hello, gateway!", "Hello,gateway!")
    assert provider.count_tokens("Hello, gateway!", "demo") == 2


async def test_a_provider_can_be_registered_by_name(factory: type[ProviderFactory]) -> None:
    factory.register("parrot", ParrotProvider)
    assert isinstance(await make("parrot"), ParrotProvider)


def test_a_provider_that_nobody_registered_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no provider 'parrot'; installed are .*echo.*openai"):
        ProviderFactory.find("parrot")
