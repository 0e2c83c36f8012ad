import asyncio
import base64
import math
import struct
import subprocess
import sys
from typing import Any

import orjson
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderSettings
from model_gateway.providers.echo import DIMENSIONS, MAX_NUMBERS, EchoProvider
from model_gateway.settings import ConfigError

HELLO = [{"role": "user", "content": "hello there, gateway"}]


def echo(**options: Any) -> EchoProvider:
    return EchoProvider(ProviderSettings(name="echo", options=options))


async def complete(messages: list[dict[str, Any]], provider: EchoProvider | None = None, **fields: Any) -> Any:
    return orjson.loads(await (provider or echo()).complete(messages, "echo", **fields))


async def stream(messages: list[dict[str, Any]], provider: EchoProvider | None = None, **fields: Any) -> list[Any]:
    return [orjson.loads(chunk) async for chunk in (provider or echo()).stream(messages, "echo", **fields)]


async def embed(inputs: list[Any], provider: EchoProvider | None = None, **fields: Any) -> Any:
    return orjson.loads(await (provider or echo()).embed(inputs, "echo", **fields))


async def vectors(*inputs: Any, **fields: Any) -> list[list[float]]:
    return [item["embedding"] for item in (await embed(list(inputs), **fields))["data"]]


def joined(chunks: list[Any], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_it_is_found_by_its_name() -> None:
    assert ProviderFactory.find("echo") is EchoProvider


async def test_the_answer_is_the_last_user_message() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "sec"}, {"type": "text", "text": "ond"}]},
        {"role": "assistant", "content": "third"},
    ]
    reply = await complete(messages)
    assert reply["choices"][0]["message"]["content"] == "second"
    assert reply["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": None}],
        [{"role": "system", "content": "be brief"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    ],
)
async def test_a_request_without_user_text_is_answered_too(messages: list[dict[str, Any]]) -> None:
    assert (await complete(messages))["choices"][0]["message"]["content"] == "(empty)"
    assert joined(await stream(messages)) == "(empty)"


async def test_replies_have_the_shape_of_openais() -> None:
    ChatCompletion.model_validate(await complete(HELLO, n=2), strict=True)
    for chunk in await stream(HELLO, n=2):
        ChatCompletionChunk.model_validate(chunk, strict=True)


async def test_the_same_request_gets_the_same_bytes() -> None:
    assert await echo().complete(HELLO, "echo") == await echo().complete(HELLO, "echo")
    assert await stream(HELLO) == await stream(HELLO)
    assert (await complete(HELLO))["id"] != (await complete([{"role": "user", "content": "else"}]))["id"]


async def test_a_stream_says_what_the_whole_reply_says() -> None:
    text = 'tab\t, "quotes", ünïcödé and 😀' * 20
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": text}]
    whole, chunks = await complete(messages, n=2), await stream(messages, n=2)

    assert joined(chunks) == joined(chunks, 1) == text
    assert {chunk["id"] for chunk in chunks} == {whole["id"]}
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"] == []
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-3:-1]] == ["stop", "stop"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_never_passes_the_bound(name: str) -> None:
    messages = [{"role": "user", "content": "äöü😀" * 10}]
    for most in range(1, 30):
        reply, chunks = await complete(messages, **{name: most}), await stream(messages, **{name: most})
        said = reply["choices"][0]["message"]["content"]
        assert messages[0]["content"].startswith(said)
        assert joined(chunks) == said
        assert reply["usage"]["completion_tokens"] == echo().count_tokens(said, "echo") <= most
        assert reply["choices"][0]["finish_reason"] == ("stop" if said == messages[0]["content"] else "length")


async def test_usage_counts_every_message_and_every_choice() -> None:
    messages = [{"role": "system", "content": "12345"}, {"role": "user", "content": "1234"}]
    usage = (await complete(messages, n=3))["usage"]
    assert usage == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


async def test_usage_can_be_left_out() -> None:
    provider = echo(usage=False)
    assert "usage" not in await complete(HELLO, provider)
    assert not any(chunk["usage"] for chunk in await stream(HELLO, provider))


async def test_chunks_have_the_size_that_was_set() -> None:
    chunks = await stream(HELLO, echo(chunk_chars=7))
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-2]]
    assert pieces == ["hello t", "here, g", "ateway"]


async def test_delays_come_before_the_answer_and_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    provider = echo(delay_ms=250, chunk_delay_ms=50, chunk_chars=10)
    await complete(HELLO, provider)
    assert slept == [0.25]
    chunks = await stream(HELLO, provider)
    assert slept[1:] == [0.25] + [0.05] * (len(chunks) - 1)


async def test_a_field_named_as_a_parameter_of_ours_is_refused_as_any_other() -> None:
    with pytest.raises(GatewayError) as caught:
        await complete(HELLO, self=1)
    assert caught.value.param == "self"


async def test_fields_that_change_nothing_are_taken() -> None:
    reply = await complete(HELLO, temperature=0.5, seed=7, top_p=0.1, user="u", tools=[])
    assert reply["choices"][0]["message"]["content"] == "hello there, gateway"


async def test_embeddings_have_the_shape_of_openais() -> None:
    reply = await embed(["a", "b"], user="u")
    CreateEmbeddingResponse.model_validate(reply, strict=True)
    assert [item["index"] for item in reply["data"]] == [0, 1]


async def test_equal_inputs_have_equal_embeddings_and_others_do_not() -> None:
    a, b, again, tokens = await vectors("a", "b", "a", [97])
    assert a == again
    assert len({tuple(vector) for vector in (a, b, tokens)}) == 3
    assert [a] == await vectors("a")


@pytest.mark.parametrize("size", [1, 2, 64, 1536])
async def test_an_embedding_has_the_dimensions_asked_for_and_length_one(size: int) -> None:
    [vector] = await vectors("a", dimensions=size)
    assert len(vector) == size
    assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-6)


async def test_an_embedding_has_64_dimensions_where_nothing_is_said() -> None:
    [vector] = await vectors("a")
    assert len(vector) == DIMENSIONS == 64


async def test_base64_holds_the_same_numbers() -> None:
    [numbers], [text] = await vectors("a"), await vectors("a", encoding_format="base64")
    assert isinstance(text, str)
    assert list(struct.unpack("<64f", base64.b64decode(text))) == numbers
    assert await vectors("a", encoding_format="float") == [numbers]


async def test_embeddings_cost_the_tokens_that_went_in() -> None:
    assert (await embed(["12345", "1", [7, 8, 9]]))["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert "usage" not in await embed(["a"], echo(usage=False))


async def test_more_numbers_than_one_reply_may_have_are_refused() -> None:
    assert await embed(["a"], dimensions=MAX_NUMBERS)
    with pytest.raises(GatewayError) as caught:
        await embed(["a", "b"], dimensions=MAX_NUMBERS // 2 + 1)
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("invalid_value", "dimensions", False)


def test_every_wrong_option_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        echo(delay_ms=-1, chunk_chars=0, delay=3)
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {
        "models.echo.options.delay_ms",
        "models.echo.options.chunk_chars",
        "models.echo.options.delay",
    }


def test_it_loads_neither_an_encoding_nor_the_sdk() -> None:
    script = (
        "import sys, model_gateway.providers.echo as echo\n"
        "echo.EchoProvider().count_tokens('x', 'echo')\n"
        "assert not {'bpe_openai', 'openai', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("logit_bias", {"1": 1}),
        ("new_knob", 1),
    ],
)
async def test_what_an_echo_can_not_do_is_refused_or_left_out_where_the_row_says_so(field, value):
    with pytest.raises(GatewayError) as caught:
        await EchoProvider().complete(HELLO, "echo", **{field: value})
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("unsupported_parameter", field, False)
    assert await EchoProvider(ProviderSettings(drop_params=True)).complete(HELLO, "echo", **{field: value})


async def test_it_stops_where_it_is_told_to():
    said = [{"role": "user", "content": "one two three"}]
    reply = orjson.loads(await EchoProvider().complete(said, "echo", stop=["three", " two"]))
    assert reply["choices"][0]["message"]["content"] == "one"
    assert reply["choices"][0]["finish_reason"] == "stop"
