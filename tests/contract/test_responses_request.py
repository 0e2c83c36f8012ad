import base64
import json
import time
from typing import Any, get_type_hints

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from model_gateway.dialects import DIALECTS, ChatRequest, check_for
from model_gateway.dialects.naming import in_own_words
from model_gateway.dialects.responses import ResponsesRequest, parse_responses
from model_gateway.dialects.responses.sealing import seal, unseal
from model_gateway.dialects.responses.turns import messages_of
from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import GatewayError
from model_gateway.settings import ModelRow

ROW = ModelRow(provider="echo", max_tokens=100)
PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,BBBB"
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sun"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "sh", "input": "ls"}


def ask(**fields: Any) -> ResponsesRequest:
    return parse_responses(json.dumps({"input": "hi"} | fields).encode())


def chat(**fields: Any) -> dict[str, Any]:
    return ask(**fields).to_chat().payload


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    return chat(input=list(items), **fields)["messages"]


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def refused(fields: dict[str, Any], *, in_chat: bool = False) -> tuple[str, str | None]:
    """The error's code and param: of the body, or only of its translation, which the body itself passes."""
    with pytest.raises(GatewayError) as caught:
        if in_chat:
            request = ask(**fields)
            request.to_chat()
        else:
            ask(**fields)
    error = caught.value
    assert (error.status, error.type) == (400, "invalid_request_error")
    return error.code, error.param


# -- the body


def test_it_is_known_by_its_operation() -> None:
    request = DIALECTS["responses"].parse(b'{"input":"hi","model":"m","stream":true}')
    assert isinstance(request, ResponsesRequest)
    assert (request.operation, request.model, request.stream) == ("responses", "m", True)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (5, "invalid_type", "input"),
        (None, "invalid_type", "input"),
        ({}, "invalid_type", "input"),
        ([], "invalid_value", "input"),
        (["hi"], "invalid_type", "input[0]"),
        ([{}], "missing_required_parameter", "input[0].type"),
        ([{"type": 5}], "invalid_type", "input[0].type"),
        ([{"role": "robot", "content": "x"}], "invalid_value", "input[0].role"),
        ([{"role": "user"}], "missing_required_parameter", "input[0].content"),
        ([{"role": "user", "content": 5}], "invalid_type", "input[0].content"),
        ([{"role": "user", "content": [5]}], "invalid_type", "input[0].content[0]"),
        ([{"role": "user", "content": [{}]}], "missing_required_parameter", "input[0].content[0].type"),
        ([user({"type": "input_text"})], "missing_required_parameter", "input[0].content[0].text"),
        ([user({"type": "input_image", "image_url": {"url": "x"}})], "invalid_type", "input[0].content[0].image_url"),
        ([user({"type": "input_audio", "input_audio": {}})], "missing_required_parameter", None),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "missing_required_parameter", "input[0].call_id"),
        ([{**CALL, "arguments": {}}], "invalid_type", "input[0].arguments"),
        ([{**RESULT, "output": 5}], "invalid_type", "input[0].output"),
        ([{"type": "function_call_output", "output": ""}], "missing_required_parameter", "input[0].call_id"),
        ([{"type": "reasoning", "summary": [{"text": 5}]}], "invalid_type", "input[0].summary[0].text"),
        ([{"type": "reasoning", "encrypted_content": 5}], "invalid_type", "input[0].encrypted_content"),
    ],
)
def test_a_bad_input_is_named_by_its_path(given: Any, code: str, param: str | None) -> None:
    found = refused({"input": given})
    assert found[0] == code
    assert param is None or found[1] == param


def test_a_missing_input_is_named() -> None:
    with pytest.raises(GatewayError) as caught:
        parse_responses(b"{}")
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "input")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"instructions": 5}, "instructions"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"max_tool_calls": "5"}, "max_tool_calls"),
        ({"temperature": "1"}, "temperature"),
        ({"top_logprobs": 1.5}, "top_logprobs"),
        ({"stream": 1}, "stream"),
        ({"store": 0}, "store"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": 5}]}, "tools[0].type"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": 5}}, "tool_choice.type"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"include": [5]}, "include[0]"),
        ({"metadata": {"a": 5}}, "metadata.a"),
        ({"prompt_cache_options": {"ttl": 5}}, "prompt_cache_options.ttl"),
        ({"stream_options": {"include_obfuscation": 1}}, "stream_options.include_obfuscation"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refused(fields) == ("invalid_type", param)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_output_tokens", 0), ("temperature", 2.1), ("top_p", -0.1), ("top_logprobs", 21), ("max_tool_calls", 0)],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: float) -> None:
    assert refused({name: value}) == ("invalid_value", name)


@pytest.mark.parametrize("field", ["input", "tools", "include"])
def test_a_long_list_of_wrong_items_is_refused_at_its_first(field: str) -> None:
    wrong = b"[" + b",".join([b"1"] * 300_000) + b"]"
    body = b"{" if field == "input" else b'{"input":"x",'
    with pytest.raises(GatewayError) as caught:
        parse_responses(body + b'"' + field.encode() + b'":' + wrong + b"}")
    assert caught.value.__context__.error_count() == 1


# -- no state


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"background_options": {"completion_window": "2h"}}, "background_options"),
        ({"store": True}, "store"),
        ({"prompt_cache_options": {"comparison_response_id": "r"}}, "prompt_cache_options.comparison_response_id"),
        ({"input": ["", {"type": "item_reference", "id": "msg_1"}][1:]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ],
)
def test_what_needs_a_kept_response_is_refused_and_says_what_to_do(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError, match="keeps no responses; send the whole input") as caught:
        ask(**fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": None, "conversation": None, "prompt": None},
        {"background": False, "store": False},
        {"store": None},
        {"context_management": []},
    ],
)
def test_asking_for_nothing_to_be_kept_is_fine(fields: dict[str, Any]) -> None:
    assert chat(**fields) == {"messages": [{"role": "user", "content": "hi"}]}


def test_a_provider_of_its_own_dialect_is_told_to_store_nothing() -> None:
    assert ask().native_body("gpt", 100)["store"] is False
    assert ask(store=None).native_body("gpt", 100)["store"] is False
    assert ask(store=False).native_body("gpt", 100)["store"] is False


def test_the_body_goes_to_such_a_provider_as_it_came_but_for_model_bound_and_store() -> None:
    sent = {
        "model": "mine",
        "input": [{"role": "user", "content": "x", "new": [1, None]}],
        "tomorrow": {"a": 1.5},
        "moderation": {"model": "omni"},
        "truncation": "auto",
    }
    added = {"model": "gpt", "store": False}
    assert ask(**sent).native_body("gpt", 100) == sent | added | {"max_output_tokens": 100}
    assert ask(**sent, max_output_tokens=7).native_body("gpt", 100) == sent | added | {"max_output_tokens": 7}
    assert ask(**sent, max_output_tokens=None).native_body("gpt", 9)["max_output_tokens"] == 9


# -- money


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "code_interpreter", "container": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl"),
        (
            {"input": [user({"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"ttl": "12h"}})]},
            "input[0].content[0].prompt_cache_breakpoint.ttl",
        ),
        ({"input": [user({"type": "input_video"})]}, "input[0].content[0].type"),
        ({"input": [{**RESULT, "output": [{"type": "video"}]}]}, "input[0].output[0].type"),
        ({"input": [{"type": "compaction_trigger"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, "input[0].type"),
        ({"input": [{"type": "additional_tools", "role": "developer", "tools": []}]}, "input[0].type"),
    ],
)
def test_what_changes_the_price_or_has_no_bound_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(fields) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("given", "tier"),
    [(None, ""), ("auto", "auto"), ("default", ""), ("flex", "flex"), ("priority", "priority"), ("fast", "priority")],
)
def test_a_service_tier_is_one_that_the_model_prices(given: str | None, tier: str) -> None:
    request = ask(service_tier=given)
    assert request.service_tier == tier
    check_for(request, ModelRow(provider="echo", service_tiers={"flex": "0.5", "priority": "2", "auto": "2"}))
    if tier:
        with pytest.raises(GatewayError) as caught:
            check_for(request, ROW)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "service_tier")


def test_audio_needs_a_price() -> None:
    request = ask(input=[user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})])
    assert request.priced == {"input[0].content[0].type": "audio_input_cost"}
    with pytest.raises(GatewayError):
        check_for(request, ROW)
    check_for(request, ModelRow(provider="echo", audio_input_cost="0.1"))


def test_an_output_bound_beyond_the_models_is_refused_by_its_name() -> None:
    check_for(ask(max_output_tokens=100), ROW)
    with pytest.raises(GatewayError) as caught:
        check_for(ask(max_output_tokens=101), ROW)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "max_output_tokens")


def test_attachments_are_counted_wherever_they_are_and_their_inline_bytes_are_no_text() -> None:
    image = {"type": "input_image", "image_url": PNG}
    request = ask(
        input=[
            user(image, {"type": "input_image", "image_url": "https://host/a.png"}, {"type": "input_image"}),
            user({"type": "input_file", "file_data": PDF}, {"type": "input_file", "file_url": "https://host/a.pdf"}),
            user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
            {**RESULT, "output": [image]},
        ]
    )
    found = request.attachments
    assert (found.images, found.files, found.audios) == (4, 2, 1)
    assert found.data_bytes == 2 * len(PNG) + len(PDF) + len("AAAA")


def test_all_text_is_found_for_counting() -> None:
    tools = [{"type": "function", "name": "t"}]
    request = ask(
        instructions="be brief",
        input=[
            {"role": "user", "content": "a"},
            user({"type": "input_text", "text": "b"}, {"type": "input_image", "image_url": PNG}),
            CALL,
            {**RESULT, "output": [{"type": "input_text", "text": "c"}]},
            CUSTOM,
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "d"}]},
        ],
        tools=tools,
        text={"format": {"type": "json_object"}},
    )
    *said, told, form = request.texts()
    assert said == ["be brief", "a", "b", "f{}", "c", "shls", "d"]
    assert json.loads(told) == tools
    assert json.loads(form) == {"type": "json_object"}
    assert list(ask().texts()) == ["hi"]


# -- as a chat completion: the input


def test_it_becomes_a_chat_request_with_the_same_bounds() -> None:
    request = ask(model="m", stream=True, max_output_tokens=7, input=[user({"type": "input_image", "image_url": PNG})])
    asked = request.to_chat()
    assert isinstance(asked, ChatRequest)
    assert (asked.model, asked.stream, asked.include_usage, asked.output_bound) == ("m", True, True, 7)
    assert asked.attachments == request.attachments
    assert not {"max_tokens", "max_completion_tokens", "max_output_tokens"} & asked.payload.keys()


def test_instructions_come_first() -> None:
    assert chat(instructions="be brief")["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


def test_messages_of_every_role_and_part_are_said() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    told = messages(
        {"type": "message", "role": "developer", "content": "rules"},
        {"role": "system", "content": [{"type": "input_text", "text": "more"}], "status": "completed"},
        user(
            {"type": "input_text", "text": "look", **mark},
            {"type": "input_image", "image_url": PNG, "detail": "high"},
            {"type": "input_image", "image_url": PNG, "detail": "auto", "file_id": None},
            {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
            {"type": "input_file", "file_id": "file-1"},
            audio,
        ),
    )
    assert told == [
        {"role": "developer", "content": "rules"},
        {"role": "system", "content": "more"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look", **mark},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                {"type": "image_url", "image_url": {"url": PNG}},
                {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                audio,
            ],
        },
    ]


def test_the_models_turn_is_joined_and_its_results_follow() -> None:
    said = {"type": "output_text", "text": "wait", "annotations": [], "logprobs": []}
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]}
    told = messages({"role": "user", "content": "weather?"}, answer, CALL, {**CALL, "call_id": "c3"}, RESULT, CUSTOM)
    assert told[1:] == [
        {"role": "assistant", "content": "wait", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c3"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
        },
    ]


def test_two_messages_of_the_model_stay_two() -> None:
    told = messages({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"})
    assert told == [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_nothing_comes_between_calls_and_their_results() -> None:
    late = {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]}
    told = messages({"role": "assistant", "content": "a"}, CALL, late, RESULT)
    assert [message["role"] for message in told] == ["assistant", "tool"]
    assert told[0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_a_refusal_of_the_models_is_said_as_one() -> None:
    told = messages({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]})
    assert told == [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]


def test_a_result_may_have_parts() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PNG}]
    [told] = messages({**RESULT, "output": parts, "id": "fco_1", "status": "completed"})
    assert told["content"] == [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]


def test_reasoning_itself_goes_back_and_its_summary_does_not() -> None:
    summary = [{"type": "summary_text", "text": "for people"}]
    content = [{"type": "reasoning_text", "text": "th"}, {"type": "reasoning_text", "text": "ought"}]
    item = {"type": "reasoning", "id": "rs_1", "summary": summary}
    assert messages(item, CALL) == [{"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}]
    assert messages({**item, "content": content}, CALL)[0]["reasoning_content"] == "thought"


def test_what_was_sealed_here_goes_back_and_what_another_encrypted_does_not() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": seal({"thinking_blocks": [block]})}
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
    told = messages(sealed, {"role": "assistant", "content": "a"}, sealed, CALL, RESULT, foreign, CALL)
    assert told[0] == {
        "role": "assistant",
        "content": "a",
        "thinking_blocks": [block, block],
        "tool_calls": [CHAT_CALL],
    }
    assert told[2] == {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}


def test_reasoning_belongs_to_what_follows_it_and_else_to_nothing() -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"text": "x"}]}
    a, b = {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}
    told = messages(a, thought, b, thought, {"role": "user", "content": "c"}, a)
    assert [message.get("reasoning_content") for message in told] == [None, "x", None, None]


@pytest.mark.parametrize(
    "members",
    [b"", b"[]", b"{", b'{"role":"system"}', b'{"thinking_blocks":"x"}', b'{"reasoning_content":5}', None],
)
def test_sealed_reasoning_that_was_changed_is_refused(members: bytes | None) -> None:
    text = "gateway.1." + ("%" if members is None else base64.b64encode(members).decode())
    with pytest.raises(GatewayError) as caught:
        unseal(text, "input[0].encrypted_content")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input[0].encrypted_content")


# -- as a chat completion: the fields


def test_tools_and_their_choice_are_said() -> None:
    schema = {"type": "object", "properties": {}}
    function = {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": True}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
    told = chat(
        tools=[
            {**function, "allowed_callers": ["direct"], "defer_loading": False, "output_schema": None},
            {"type": "custom", "name": "sh", "format": grammar},
            {"type": "custom", "name": "t", "format": {"type": "text"}},
            {"type": "function", "name": "g", "parameters": None, "strict": None},
        ],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
    )
    custom = {"name": "sh", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}}
    assert told["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}},
        {"type": "custom", "custom": custom},
        {"type": "custom", "custom": {"name": "t", "format": {"type": "text"}}},
        {"type": "function", "function": {"name": "g"}},
    ]
    assert told["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert told["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "custom", "name": "sh"}, {"type": "custom", "custom": {"name": "sh"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
    ],
)
def test_every_choice_of_a_tool_is_said(given: Any, told: Any) -> None:
    assert chat(tools=[{"type": "function", "name": "f"}], tool_choice=given)["tool_choice"] == told


def test_without_tools_what_says_how_to_use_them_says_nothing() -> None:
    assert chat(tools=[], tool_choice="auto", parallel_tool_calls=True).keys() == {"messages"}
    assert chat(tool_choice="required")["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {}),
        ({"format": {"type": "text"}, "verbosity": "low"}, {"verbosity": "low"}),
        ({"format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_the_form_of_the_answer_is_said(given: Any, told: dict[str, Any]) -> None:
    payload = chat(text=given)
    del payload["messages"]
    assert payload == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning_effort": "high"}),
        ({"reasoning": {"summary": "detailed", "mode": "standard", "context": "auto"}}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 0, "include": []}, {}),
        ({"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]}, {}),
        ({"truncation": "disabled", "stream_options": {"include_obfuscation": False}, "max_tool_calls": 3}, {}),
        ({"metadata": {"a": "b"}, "image": {"context_compression": "auto"}}, {}),
    ],
)
def test_the_other_fields_are_said(fields: dict[str, Any], told: dict[str, Any]) -> None:
    payload = chat(**fields)
    del payload["messages"]
    assert payload == told


def test_fields_of_the_same_name_keep_it() -> None:
    same = {
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u",
        "safety_identifier": "s",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "explicit"},
    }
    payload = chat(**same)
    del payload["messages"]
    assert payload == same


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tomorrow": 1}, "tomorrow"),
        ({"moderation": {"model": "omni"}}, "moderation"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs"),
        ({"truncation": "auto"}, "truncation"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"image": {"context_compression": "enabled"}}, "image.context_compression"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"tomorrow": 1}}, "reasoning.tomorrow"),
        ({"include": ["reasoning.encrypted_content", "tomorrow"]}, "include[1]"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "x": 1}}}, "text.format.x"),
        ({"text": {"x": 1}}, "text.x"),
        ({"tools": [{"type": "function", "name": "f", "output_schema": {"a": 1}}]}, "tools[0].output_schema"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{"type": "function", "name": "f", "async": True}]}, "tools[0].async"),
        ({"tools": [{"type": "custom", "name": "f", "format": {"type": "x"}}]}, "tools[0].format.type"),
        (
            {"tools": [{"type": "function", "name": "f", "allowed_callers": ["programmatic"]}]},
            "tools[0].allowed_callers",
        ),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]}}, "tool_choice.tools[0].type"),
        ({"input": [{"role": "assistant", "content": "x", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{"role": "user", "content": "x", "tomorrow": 1}]}, "input[0].tomorrow"),
        ({"input": [user({"type": "input_image", "file_id": "f"})]}, "input[0].content[0].file_id"),
        ({"input": [user({"type": "input_image"})]}, "input[0].content[0]"),
        ({"input": [user({"type": "input_file", "file_url": "https://x"})]}, "input[0].content[0].file_url"),
        ({"input": [user({"type": "input_file", "file_data": PDF, "detail": "low"})]}, "input[0].content[0].detail"),
        ({"input": [user({"type": "input_text", "text": "x", "tomorrow": 1})]}, "input[0].content[0].tomorrow"),
        ({"input": [{**CALL, "caller": {"type": "program", "caller_id": "p"}}]}, "input[0].caller"),
        ({"input": [{**CALL, "namespace": "n"}]}, "input[0].namespace"),
        ({"input": [{**RESULT, "async": True}]}, "input[0].async"),
    ],
)
def test_what_a_chat_can_not_say_is_refused_and_not_dropped(fields: dict[str, Any], param: str) -> None:
    ask(**fields)
    assert refused(fields, in_chat=True) == ("unsupported_parameter", param)


def test_no_field_of_the_sdks_is_dropped_in_silence() -> None:
    """Each is said, refused, or among the few whose leaving out is described."""
    left_out = {"max_tool_calls", "metadata", "store", "background", "context_management"}
    said = {
        "model", "input", "instructions", "max_output_tokens", "stream_options", "tools", "tool_choice", "text",
        "parallel_tool_calls", "reasoning", "include", "top_logprobs", "truncation", "image", "temperature", "top_p",
        "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options",
    }  # fmt: skip
    for name in get_type_hints(ResponseCreateParamsBase).keys() - said - left_out:
        with pytest.raises(GatewayError) as caught:
            chat(**{name: {"id": "x"}})
        assert (caught.value.code, caught.value.param) in (
            ("unsupported_parameter", name),
            ("invalid_type", name),
        )


def test_a_choice_among_tools_that_are_no_list_is_refused() -> None:
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    fields = {"tools": tools, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": 5}}
    assert refused(fields, in_chat=True) == ("invalid_value", "tool_choice.tools")


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "reasoning", "encrypted_content": seal({"thinking_blocks": [1]})}],
        [{"type": "reasoning", "encrypted_content": seal({"thinking_blocks": [1]})}, CALL],
        [{"role": "assistant", "content": "x"}],
    ],
    ids=["sealed", "before calls", "after calls"],
)
def test_the_work_of_joining_a_turn_grows_with_its_items_and_not_with_their_square(items: list[Any]) -> None:
    few, many = _seconds([CALL, *items * 2_000], times=3), _seconds([CALL, *items * 80_000], times=1)
    assert many < few * 150


def _seconds(items: list[Any], times: int) -> float:
    """Of the processor alone; the least of a few."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        messages_of({"input": items})
        found.append(time.process_time() - begun)
    return min(found)


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("reasoning_effort", "reasoning.effort"),
        ("verbosity", "text.verbosity"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("tools[2].function.parameters", "tools[2].parameters"),
        ("tools[0].type", "tools[0].type"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("tool_choice.allowed_tools.tools[1].function.name", "tool_choice.tools[1].name"),
        ("max_completion_tokens", "max_output_tokens"),
        ("top_logprobs", "include"),
        ("messages[0].content", "instructions"),
        ("messages[1].content[0].image_url.url", "input"),
        ("user", "user"),
    ],
)
def test_an_error_about_the_chat_names_the_clients_own_field(param: str, own: str) -> None:
    error = in_own_words(ask(instructions="i"), unsupported(param, "is not known"))
    assert (error.param, error.message) == (own, f"{own} is not known")
