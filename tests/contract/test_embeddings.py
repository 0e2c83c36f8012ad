import json
from typing import Any

import pytest

from model_gateway.dialects import DIALECTS, check_for
from model_gateway.dialects.embeddings import EmbeddingsReader, EmbeddingsRequest, parse_embeddings
from model_gateway.errors import GatewayError
from model_gateway.money import Usage
from model_gateway.settings import ModelRow


def ask(given: Any = "hi", **fields: Any) -> EmbeddingsRequest:
    return parse_embeddings(json.dumps({"input": given} | fields).encode())


def refused(body: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as caught:
        parse_embeddings(json.dumps(body).encode())
    assert caught.value.status == 400
    return caught.value.code, caught.value.param


@pytest.mark.parametrize(
    ("given", "inputs", "texts", "tokens"),
    [
        ("a", ["a"], ["a"], 0),
        (["a", "b"], ["a", "b"], ["a", "b"], 0),
        ([1, 2, 3], [[1, 2, 3]], [], 3),
        ([[1, 2], [3]], [[1, 2], [3]], [], 3),
        ([2**31 - 1], [[2**31 - 1]], [], 1),
    ],
)
def test_each_form_of_input_is_understood(given: Any, inputs: list[Any], texts: list[str], tokens: int) -> None:
    request = ask(given)
    assert (request.inputs, list(request.texts()), request.token_inputs()) == (inputs, texts, tokens)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (5, "invalid_type", "input"),
        (None, "invalid_type", "input"),
        ({"a": 1}, "invalid_type", "input"),
        ([], "invalid_value", "input"),
        ([None], "invalid_type", "input[0]"),
        ([True], "invalid_type", "input[0]"),
        ([1.5], "invalid_type", "input[0]"),
        (["a", 1], "invalid_type", "input[1]"),
        ([1, "a"], "invalid_type", "input[1]"),
        ([1, True], "invalid_type", "input[1]"),
        ([1, -1], "invalid_value", "input[1]"),
        ([1, 2**31], "invalid_value", "input[1]"),
        ([[]], "invalid_value", "input[0]"),
        ([[1], "a"], "invalid_type", "input[1]"),
        ([[1], [2, "a"]], "invalid_type", "input[1][1]"),
        ([[[1]]], "invalid_type", "input[0][0]"),
        (["a"] * 2049, "invalid_value", "input"),
        ([[1]] * 2049, "invalid_value", "input"),
    ],
)
def test_a_bad_input_is_named_by_its_path(given: Any, code: str, param: str) -> None:
    assert refused({"input": given}) == (code, param)


def test_a_missing_input_is_named() -> None:
    assert refused({"model": "m"}) == ("missing_required_parameter", "input")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"dimensions": "8"}, "invalid_type", "dimensions"),
        ({"dimensions": True}, "invalid_type", "dimensions"),
        ({"user": 5}, "invalid_type", "user"),
        ({"model": 5}, "invalid_type", "model"),
        ({"stream": True}, "unsupported_parameter", "stream"),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    assert refused({"input": "x"} | fields) == (code, param)


@pytest.mark.parametrize("item", [b'"a"', b"1", b"null"])
def test_a_long_list_of_wrong_items_is_refused_at_its_first(item: bytes) -> None:
    first = b"1" if item != b"1" else b'"a"'
    with pytest.raises(GatewayError) as caught:
        parse_embeddings(b'{"input":[' + first + b"," + b",".join([item] * 300_000) + b"]}")
    assert caught.value.__context__.error_count() == 1


def test_the_provider_gets_every_field_but_those_that_are_the_gateways() -> None:
    request = ask(model="mine", encoding_format="base64", dimensions=8, user=None, new={"a": 1}, stream=False)
    assert request.fields == {"encoding_format": "base64", "dimensions": 8, "new": {"a": 1}}


def test_it_has_no_output_bound_and_no_translation() -> None:
    request = ask(model="mine")
    check_for(request, ModelRow(provider="echo", max_tokens=1))
    with pytest.raises(GatewayError) as caught:
        request.to_chat()
    assert (caught.value.code, caught.value.billed) == ("unsupported_operation", False)


def test_it_is_known_by_its_operation_and_passed_on_untouched() -> None:
    request = DIALECTS["embeddings"].parse(b'{"input":"hi","model":"m"}')
    assert (request.operation, request.model, request.stream) == ("embeddings", "m", False)
    text = b'{"object": "list", "data": [1e-7]}'
    assert request.native_writer().reply(json.loads(text), text) == text


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        ({"usage": {"prompt_tokens": 5, "total_tokens": 5}}, Usage(input=5)),
        ({"usage": {"prompt_tokens": "5"}}, None),
        ({"usage": None}, None),
        ({}, None),
    ],
)
def test_what_it_costs_is_read(reply: dict[str, Any], usage: Usage | None) -> None:
    reader = EmbeddingsReader()
    reader.reply(reply)
    assert reader.usage == usage
