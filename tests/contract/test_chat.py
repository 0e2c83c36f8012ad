import json
from typing import Any

import pytest

from model_gateway.dialects import ChatRequest, check_for
from model_gateway.dialects.chat import ChatReader, parse_chat
from model_gateway.dialects.strict_json import parse_json, unsupported
from model_gateway.errors import MAX_MESSAGE, MAX_PARAM, GatewayError
from model_gateway.settings import ModelRow

ROW = ModelRow(provider="echo", max_tokens=100)
HELLO = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatRequest:
    return parse_chat(json.dumps({"messages": HELLO} | fields).encode())


def with_parts(*parts: Any) -> ChatRequest:
    return chat(messages=[{"role": "user", "content": list(parts)}])


def refusal(body: bytes) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse_chat(body)
    return caught.value


def refused(fields: dict[str, Any]) -> tuple[str, str | None]:
    error = refusal(json.dumps({"messages": HELLO} | fields).encode())
    assert (error.status, error.type) == (400, "invalid_request_error")
    return error.code, error.param


# -- JSON by the strict rules


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} {"b":2}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":01}',
        b'{"a":tru}',
        b'{"a":"\t"}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":[{"b":{"c":1,"c":2}}]}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"[" * 1_000_000,
        b'{"a":1e400}',
        b'{"a":-1E+400}',
        b'{"a":[1e0400]}',
        b'{"a":' + b"9" * 400 + b".0}",
        b'{"a":9223372036854775808}',
        b'{"a":[-9223372036854775809]}',
        b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_no_strict_json_is_refused_as_such(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, "invalid_json", None)
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":9223372036854775807,"b":-9223372036854775808}', {"a": 2**63 - 1, "b": -(2**63)}),
        (b'{"a":1e308,"b":1e-400}', {"a": 1e308, "b": 0.0}),
        (b'{"a":0.1234567890123456789}', {"a": 0.1234567890123456789}),
        (b'{"a":"12345678901234567890 1e999"}', {"a": "12345678901234567890 1e999"}),
        (b'{"a":"\\ud83d\\udc4b","b":"\\u0000"}', {"a": "👋", "b": "\0"}),
        (b' {"a": {"b": 1}, "c": {"b": 1}} \n', {"a": {"b": 1}, "c": {"b": 1}}),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", None),
    ],
)
def test_strict_json_is_read_as_it_stands(body: bytes, value: Any) -> None:
    assert parse_json(body) == (value or json.loads(body))


# -- fields


@pytest.mark.parametrize("body", [b"null", b"[]", b'"messages"', b"1", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert (refusal(body).code, refusal(body).param) == ("invalid_type", None)


def test_a_missing_messages_is_named() -> None:
    error = refusal(b"{}")
    assert (error.status, error.code, error.param) == (400, "missing_required_parameter", "messages")


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        (None, "invalid_type", "messages"),
        ("hi", "invalid_type", "messages"),
        ({"role": "user"}, "invalid_type", "messages"),
        ([], "invalid_value", "messages"),
        (["hi"], "invalid_type", "messages[0]"),
        ([{}], "missing_required_parameter", "messages[0].role"),
        ([{"role": "robot", "content": "hi"}], "invalid_value", "messages[0].role"),
        ([{"role": True}], "invalid_value", "messages[0].role"),
        ([*HELLO, {"role": "user", "content": 5}], "invalid_type", "messages[1].content"),
        ([*HELLO, {"role": "user", "content": [5]}], "invalid_type", "messages[1].content[0]"),
        ([{"role": "user", "content": [{}]}], "missing_required_parameter", "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": 5}]}], "invalid_type", "messages[0].content[0].type"),
        ([{"role": "user", "content": "hi", "name": 5}], "invalid_type", "messages[0].name"),
        ([{"role": "assistant", "tool_calls": {}}], "invalid_type", "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [5]}], "invalid_type", "messages[0].tool_calls[0]"),
    ],
)
def test_a_bad_message_is_named_by_its_path(messages: Any, code: str, param: str) -> None:
    assert refused({"messages": messages}) == (code, param)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs"])
@pytest.mark.parametrize("value", [True, False, "5", 1.5, 1.0, [5], {}])
def test_an_integer_is_no_bool_no_text_and_no_fraction(name: str, value: Any) -> None:
    assert refused({name: value}) == ("invalid_type", name)


@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [True, "1", [1]])
def test_a_number_is_no_bool_and_no_text(name: str, value: Any) -> None:
    assert refused({name: value}) == ("invalid_type", name)


@pytest.mark.parametrize("name", ["stream", "logprobs"])
@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_a_switch_is_true_or_false(name: str, value: Any) -> None:
    assert refused({name: value}) == ("invalid_type", name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"user": 5}, "user"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": 5}]}, "tools[0].type"),
        ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refused(fields) == ("invalid_type", param)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("max_completion_tokens", 0),
        ("n", 0),
        ("n", -1),
        ("n", 17),
        ("n", 2**62),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("top_p", 1.1),
        ("presence_penalty", -2.1),
        ("frequency_penalty", 3),
        ("top_logprobs", 21),
    ],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: float) -> None:
    assert refused({name: value}) == ("invalid_value", name)


def test_how_many_choices_are_too_many_is_a_setting() -> None:
    body = json.dumps({"messages": HELLO, "n": 3}).encode()
    assert parse_chat(body, max_choices=3).choices == 3
    with pytest.raises(GatewayError, match="n is 3, at most 2"):
        parse_chat(body, max_choices=2)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_output_bound_beyond_the_models_is_refused(name: str) -> None:
    check_for(chat(**{name: 100}), ROW)
    with pytest.raises(GatewayError) as caught:
        check_for(chat(**{name: 101}), ROW)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", name)


# -- what the gateway takes out of a request


def test_unknown_fields_pass_through_untouched() -> None:
    sent = {
        "model": "echo",
        "messages": [
            {"role": "system", "content": "a", "x_note": {"deep": [1, 2.5, None, "ü"]}},
            {"role": "user", "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "new": True}]},
            {"role": "tool", "tool_call_id": "t", "content": "c"},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "reasoning_effort": "high",
        "logit_bias": {"50256": -100},
        "tomorrows_field": [{"a": 1e-7, "b": 9007199254740993}],
        "seed": -1,
        "stop": ["x"],
    }
    assert parse_chat(json.dumps(sent).encode()).payload == sent


def test_every_role_is_understood() -> None:
    roles = ["system", "developer", "user", "assistant", "tool", "function"]
    assert len(chat(messages=[{"role": role, "content": "hi"} for role in roles]).messages) == len(roles)


def test_what_is_null_counts_as_left_out() -> None:
    names = ["model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature", "tools"]
    request = chat(**dict.fromkeys(names))
    assert (request.model, request.stream, request.include_usage) == ("", False, False)
    assert (request.output_bound, request.choices) == (None, 1)


def test_a_stream_with_usage_is_understood() -> None:
    request = chat(model="echo", stream=True, stream_options={"include_usage": True}, n=2)
    assert (request.model, request.stream, request.include_usage, request.choices) == ("echo", True, True, 2)


def test_the_larger_of_two_output_bounds_is_the_one_to_reserve() -> None:
    assert chat(max_tokens=5).output_bound == 5
    assert chat(max_completion_tokens=7, max_tokens=5).output_bound == 7
    assert chat(max_completion_tokens=5, max_tokens=7).output_bound == 7


def test_all_text_is_found_for_counting() -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "no"}, {"type": "text", "text": 5}]
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": parts}, {"role": "assistant"}]
    assert list(chat(messages=messages).text()) == ["a", "b"]


def test_images_are_counted_and_their_inline_bytes_are_no_text() -> None:
    inline, remote = "data:image/png;base64,AAAA", "https://host/a.png"
    request = with_parts(
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": inline}},
        {"type": "image_url", "image_url": {"url": remote}},
        {"type": "image_url", "image_url": inline},
        {"type": "image_url"},
    )
    assert (request.attachments.images, request.attachments.data_bytes) == (4, 2 * len(inline))


def test_no_more_bytes_are_taken_off_for_an_image_than_it_has() -> None:
    for url in ("data:image/png;base64,ÄÄÄÄ", 'data:"\\/', "data:\n"):
        sent = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
        for text in (json.dumps(sent), json.dumps(sent, ensure_ascii=False)):
            assert parse_chat(text.encode()).attachments.data_bytes <= len(url)
    assert with_parts({"type": "image_url", "image_url": {"url": "data:ÄÄÄÄ"}}).attachments.data_bytes == 0


@pytest.mark.parametrize("field", ["messages", "stop", "tools"])
def test_a_long_list_of_wrong_items_is_refused_at_its_first(field: str) -> None:
    wrong = b"[" + b",".join([b"1"] * 300_000) + b"]"
    body = b'{"messages":[{"role":"user","content":"x"}],' if field != "messages" else b"{"
    with pytest.raises(GatewayError) as caught:
        parse_chat(body + b'"' + field.encode() + b'":' + wrong + b"}")
    assert caught.value.__context__.error_count() <= 2


def test_everything_that_is_said_counts_wherever_it_stands() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "b"}]
    custom = {"type": "custom", "custom": {"name": "d", "input": "e"}}
    said = {"content": parts, "reasoning": "c", "tool_calls": [custom, "x"]}
    reader = ChatReader()
    reader.chunk({"choices": [{"index": None, "delta": said, "finish_reason": "stop"}]})
    assert (reader.text, reader.complete) == ("abcde", True)


@pytest.mark.parametrize("odd", [{"index": []}, {"delta": {"tool_calls": 5}}])
def test_an_odd_chunk_is_passed_on_all_the_same(odd: dict[str, Any]) -> None:
    ChatReader().chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"} | odd]})


def test_an_error_is_no_longer_than_its_reader_s_patience() -> None:
    error = unsupported("k" * 10_000, "is " + "x" * 10_000)
    assert (len(error.message), len(error.param or "")) == (MAX_MESSAGE, MAX_PARAM)
