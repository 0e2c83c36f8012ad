"""Chat fields to the Messages API and back, as pure functions."""

import base64
import copy
from typing import Any

import pytest
from openai.lib.streaming._deltas import accumulate_delta

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.money import Usage, usage_from_openai
from model_gateway.providers.anthropic.reply import BadReplyError, MessageMapper, completion
from model_gateway.providers.anthropic.request import message_body
from model_gateway.providers.anthropic.terms import Terms
from tests.upstream_anthropic import JSON, events, message, usage_of

HELLO = [{"role": "user", "content": "hello"}]
MARK = {"type": "ephemeral", "ttl": "1h"}
FUNCTION = {"name": "weather", "description": "tells", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOL = {"type": "function", "function": FUNCTION}
PDF = "data:application/pdf;base64,JVBERi0="
TEXT = {"type": "text", "text": "hello"}
THOUGHT = {"type": "thinking", "thinking": "let me see", "signature": "c2lnbmVk"}
HIDDEN = {"type": "redacted_thinking", "data": "b3BhcXVl"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
OTHER = {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}}


def body(messages: list[JSON] | None = None, terms: Terms | None = None, **fields: Any) -> JSON:
    made = message_body(messages or HELLO, "claude-x", {"max_tokens": 100, **fields}, terms or Terms())
    assert made.pop("model") == "claude-x"
    return made


def fields_of(**fields: Any) -> JSON:
    """What some fields become, the turns and the bound aside."""
    made = body(**fields)
    return {name: value for name, value in made.items() if name not in ("messages", "max_tokens")}


def turns(*messages: JSON, terms: Terms | None = None) -> list[JSON]:
    made: list[JSON] = body(list(messages), terms)["messages"]
    return made


def refusal(messages: list[JSON] | None = None, terms: Terms | None = None, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        body(messages, terms, **fields)
    assert (caught.value.status, caught.value.billed) == (400, False)
    return caught.value


def part_of(part: JSON) -> JSON:
    [turn] = turns({"role": "user", "content": [part]})
    [block] = turn["content"]
    return dict(block)


def assistant(**members: Any) -> JSON:
    return {"role": "assistant", **members}


def call_of(arguments: Any, call_id: str = "call_1", **members: Any) -> JSON:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}, **members}


# the conversation


def test_system_and_developer_messages_become_the_system_prompt_wherever_they_stand() -> None:
    made = body(
        [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            {"role": "user", "content": "hello"},
            {"role": "system", "content": "three"},
        ]
    )
    assert made["system"] == [{"type": "text", "text": text} for text in ("one", "two", "three")]
    assert made["messages"] == [{"role": "user", "content": [TEXT]}]


def test_messages_of_one_side_become_one_turn() -> None:
    user, answer = {"role": "user", "content": "hello"}, assistant(content="hello")
    assert turns(user, user, answer, answer, user) == [
        {"role": "user", "content": [TEXT, TEXT]},
        {"role": "assistant", "content": [TEXT, TEXT]},
        {"role": "user", "content": [TEXT]},
    ]


def test_parallel_calls_and_their_results_become_one_turn_each_with_the_results_first() -> None:
    made = turns(
        {"role": "user", "content": "hello"},
        assistant(content="hello", tool_calls=[call_of('{"city":"Köln"}'), call_of("", "call_2")]),
        {"role": "tool", "tool_call_id": "call_1", "content": "hello", "name": "weather"},
        {"role": "user", "content": "hello"},
        {"role": "tool", "tool_call_id": "call_2", "content": [TEXT], "is_error": True},
    )
    assert made[1]["content"] == [
        TEXT,
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
    ]
    assert made[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [TEXT]},
        {"type": "tool_result", "tool_use_id": "call_2", "content": [TEXT], "is_error": True},
        TEXT,
    ]


def test_an_empty_result_is_a_result_and_an_empty_text_is_none() -> None:
    made = turns(
        {"role": "user", "content": ""},
        assistant(content="", tool_calls=[call_of("{}")]),
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
    )
    assert [turn["role"] for turn in made] == ["assistant", "user"]
    assert made[1]["content"] == [{"type": "tool_result", "tool_use_id": "call_1"}]


@pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "NaN", '{"a":1,"a":2}', 5])
def test_arguments_that_are_no_json_object_are_refused(arguments: Any) -> None:
    error = refusal([*HELLO, assistant(tool_calls=[call_of(arguments)])])
    assert (error.code, error.param) == ("invalid_value", "messages[1].tool_calls[0].function.arguments")


def test_ids_of_another_vendor_s_calls_are_made_fit_and_still_tell_each_other_apart() -> None:
    made = turns(
        assistant(tool_calls=[call_of("{}", "weather:0"), call_of("{}", "weather.0")]),
        {"role": "tool", "tool_call_id": "weather:0", "content": "a"},
        {"role": "tool", "tool_call_id": "weather.0", "content": "b"},
    )
    called = [block["id"] for block in made[0]["content"]]
    assert called == [block["tool_use_id"] for block in made[1]["content"]] == ["weather-3a-0", "weather-2e-0"]


def test_thinking_goes_back_in_front_and_unchanged() -> None:
    [turn] = turns(
        assistant(content="hello", thinking_blocks=[THOUGHT, HIDDEN], reasoning_content="let me see", refusal=None)
    )
    assert turn["content"] == [THOUGHT, HIDDEN, TEXT]


@pytest.mark.parametrize("block", [{"type": "thinking", "thinking": "unsigned"}, {"type": "text", "text": "x"}, "x"])
def test_thinking_that_is_not_a_reply_s_is_refused(block: Any) -> None:
    error = refusal([*HELLO, assistant(thinking_blocks=[block])])
    assert (error.code, error.param) == ("invalid_value", "messages[1].thinking_blocks")


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "hello", "cache_control": MARK}, {**TEXT, "cache_control": MARK}),
        (
            {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,AAAA", "detail": "auto"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}, "cache_control": MARK},
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}, "cache_control": MARK},
        ),
        (
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "a.pdf",
            },
        ),
        (
            {
                "type": "file",
                "file": {"file_data": f"data:text/plain;base64,{base64.b64encode('ä'.encode()).decode()}"},
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "ä"}},
        ),
    ],
)
def test_each_kind_of_part_is_said_as_a_block(part: JSON, block: JSON) -> None:
    assert part_of(part) == block


@pytest.mark.parametrize(
    ("part", "code", "where"),
    [
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, "unsupported_parameter", ".type"),
        ({"type": "image_url", "image_url": {"url": "ftp://x"}}, "invalid_value", ".image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,AA"}}, "invalid_value", ".image_url.url"),
        (
            {"type": "image_url", "image_url": {"url": "https://x", "detail": "high"}},
            "unsupported_parameter",
            ".image_url.detail",
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, "unsupported_parameter", ".file.file_id"),
        ({"type": "file", "file": {"file_data": "JVBERi0="}}, "invalid_value", ".file.file_data"),
        (
            {"type": "file", "file": {"file_data": "data:application/zip;base64,AA"}},
            "unsupported_parameter",
            ".file.file_data",
        ),
        ({"type": "text", "text": "x", "extra": 1}, "unsupported_parameter", ".extra"),
        ({"type": "text", "text": 5}, "invalid_value", ".text"),
    ],
)
def test_a_part_that_can_t_be_said_is_refused_by_its_path(part: JSON, code: str, where: str) -> None:
    error = refusal([{"role": "user", "content": [part]}])
    assert (error.code, error.param) == (code, f"messages[0].content[0]{where}")


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": "x", "name": "bob"}, "messages[0].name"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]},
            "messages[0].content",
        ),
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "messages[0].tool_calls[0].type"),
    ],
)
def test_a_message_that_can_t_be_said_is_refused_by_its_path(sent: JSON, param: str) -> None:
    error = refusal([sent, *HELLO])
    assert (error.code, error.param) == ("unsupported_parameter", param)


def test_a_mark_on_a_message_marks_its_last_block() -> None:
    made = body(
        [
            {"role": "system", "content": "hello", "cache_control": MARK},
            {"role": "user", "content": [TEXT, TEXT], "cache_control": MARK},
        ],
        tools=[{**TOOL, "cache_control": MARK}],
        cache_control=MARK,
    )
    assert made["system"] == [{**TEXT, "cache_control": MARK}]
    assert made["messages"][0]["content"] == [TEXT, {**TEXT, "cache_control": MARK}]
    assert made["tools"][0]["cache_control"] == made["cache_control"] == MARK


# the other fields


@pytest.mark.parametrize(
    ("fields", "members"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1, "top_p": 1.0}, {}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"user": "u1", "safety_identifier": "s1"}, {"metadata": {"user_id": "s1"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"reasoning_effort": "minimal"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ({"reasoning_effort": "xhigh"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        ({"thinking": {"type": "between_tools"}}, {"thinking": {"type": "between_tools"}}),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}, "reasoning_effort": "low"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        ({"response_format": {"type": "text"}}, {}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "description": "d", "schema": {"type": "object"}},
                },
                "reasoning_effort": "high",
            },
            {
                "thinking": {"type": "adaptive"},
                "output_config": {
                    "effort": "high",
                    "format": {"type": "json_schema", "schema": {"description": "d", "type": "object"}},
                },
            },
        ),
    ],
)
def test_each_field_has_its_place(fields: JSON, members: JSON) -> None:
    assert fields_of(**fields) == members


@pytest.mark.parametrize(
    ("choice", "parallel", "made"),
    [
        (None, None, None),
        (None, True, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "weather"}}, None, {"type": "tool", "name": "weather"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            False,
            {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tools_and_the_choice_among_them_are_said(choice: Any, parallel: bool | None, made: JSON | None) -> None:
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    found = body(tools=[TOOL, strict], tool_choice=choice, parallel_tool_calls=parallel)
    assert found["tools"] == [
        {"name": "weather", "description": "tells", "input_schema": FUNCTION["parameters"]},
        {"name": "now", "input_schema": {"type": "object"}, "strict": True},
    ]
    assert found.get("tool_choice") == made


def test_a_choice_among_no_tools_is_none() -> None:
    assert fields_of(tools=[], tool_choice="auto", parallel_tool_calls=False) == {}


@pytest.mark.parametrize(
    ("fields", "bound"),
    [({"max_completion_tokens": 7}, 7), ({"max_tokens": 7, "max_completion_tokens": 7}, 7), ({}, 4096)],
)
def test_there_is_always_a_bound_on_the_output(fields: JSON, bound: int) -> None:
    assert message_body(HELLO, "claude-x", fields, Terms())["max_tokens"] == bound


REFUSED: list[tuple[str, Any]] = [
    ("n", 2),
    ("logprobs", True),
    ("top_logprobs", 3),
    ("seed", 0),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -1),
    ("logit_bias", {"50256": -100}),
    ("audio", {"voice": "alloy"}),
    ("modalities", ["text", "audio"]),
    ("prediction", {"type": "content", "content": "x"}),
    ("web_search_options", {"search_context_size": "low"}),
    ("store", True),
    ("metadata", {"a": "b"}),
    ("verbosity", "low"),
    ("functions", [FUNCTION]),
    ("function_call", {"name": "weather"}),
    ("prompt_cache_key", "k"),
    ("service_tier", "flex"),
    ("temperature", 1.5),
    ("reasoning_effort", "extreme"),
    ("max_completion_tokens", 50),
    ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}),
    ("tools", [{"type": "custom", "custom": {"name": "x"}}]),
    ("response_format", {"type": "json_object"}),
    ("inference_geo", "us"),
    ("speed", "fast"),
    ("nobody_knows_this", 0),
]
_PARAMS = {"max_completion_tokens": "max_tokens", "tools": "tools[0].type"}


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_the_messages_api_can_t_do_is_refused_by_its_name(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert (error.code, error.param) == ("unsupported_parameter", _PARAMS.get(name, name))


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[name for name, _ in REFUSED])
def test_it_is_left_out_where_the_row_says_so(name: str, value: Any) -> None:
    plain = {**body(), "max_tokens": 50 if name == "max_completion_tokens" else 100}
    assert body(terms=Terms(drop_params=True), **{name: value}) == plain


def test_values_that_ask_for_nothing_are_no_reason_to_refuse() -> None:
    nothing = {
        **{name: None for name, _ in REFUSED if name != "max_completion_tokens"},
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "modalities": ["text"],
        "store": False,
        "metadata": {},
        "verbosity": "medium",
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }
    assert body(**nothing) == body()


def test_a_schema_that_is_none_is_refused() -> None:
    error = refusal(response_format={"type": "json_schema", "json_schema": {"name": "n"}})
    assert (error.code, error.param) == ("invalid_value", "response_format.json_schema.schema")


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.5), ("top_p", 0.9), ("top_k", 1)])
def test_the_newer_version_does_not_sample(name: str, value: float) -> None:
    newer = Terms(version="2026-10-21")
    assert refusal(terms=newer, **{name: value}).param == name
    assert body(terms=newer, temperature=1, top_p=1) == body()


@pytest.mark.parametrize(
    ("effort", "most", "budget"),
    [("minimal", 9_000, 1_024), ("low", 9_000, 2_048), ("medium", 9_000, 8_192), ("high", 9_000, 8_999)],
)
def test_models_that_take_a_budget_get_one_below_the_bound(effort: str, most: int, budget: int) -> None:
    made = body(terms=Terms(thinking="budget"), reasoning_effort=effort, max_tokens=most)
    assert made["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in made


def test_a_bound_that_leaves_no_room_to_think_is_said() -> None:
    assert refusal(terms=Terms(thinking="budget"), reasoning_effort="low", max_tokens=1024).param == "reasoning_effort"


# replies


def streamed(*sequence: JSON) -> list[JSON]:
    mapper = MessageMapper(1)
    return [chunk for event in sequence for chunk in mapper.chunks(event)]


def gathered(chunks: list[JSON]) -> JSON:
    """The message that OpenAI's SDK puts together, without the places in its lists."""
    said: JSON = {"content": ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            said = accumulate_delta(said, copy.deepcopy(choice["delta"]))
    return {name: unnumbered(value) if isinstance(value, list) else value for name, value in said.items()}


def unnumbered(entries: list[JSON]) -> list[JSON]:
    return [{name: value for name, value in entry.items() if name != "index"} for entry in entries]


def test_all_that_a_message_can_hold_is_told_whole_and_streamed_alike() -> None:
    blocks, usage = [THOUGHT, HIDDEN, TEXT, CALL, OTHER], usage_of(10, 5)
    whole = completion(message(blocks, "tool_use", usage), 1)
    chunks = streamed(*events(blocks, "tool_use", usage))

    [choice] = whole["choices"]
    function = {"name": "weather", "arguments": choice["message"]["tool_calls"][0]["function"]["arguments"]}
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "hello",
            "refusal": None,
            "reasoning_content": "let me see",
            "thinking_blocks": [THOUGHT, HIDDEN],
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": function},
                {"id": "toolu_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    told = gathered(chunks)
    for made in (told, choice["message"]):
        [sent] = turns(assistant(**{name: value for name, value in made.items() if name != "role"}))
        assert sent["content"] == [THOUGHT, HIDDEN, TEXT, CALL, OTHER]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:-1]] == ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks} == {("msg_upstream", "claude-x", 1)}


def test_calls_are_numbered_among_themselves_and_their_arguments_come_in_pieces() -> None:
    chunks = streamed(*events([TEXT, CALL, OTHER], "tool_use"))
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [delta["index"] for delta in deltas if "id" in delta] == [0, 1]
    assert len([delta for delta in deltas if delta["index"] == 0]) > 3
    assert [delta["function"] for delta in deltas if delta["index"] == 1] == [
        {"name": "time", "arguments": ""},
        {"arguments": "{}"},
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("a_new_reason", "a_new_reason"),
    ],
)
def test_each_way_to_end_has_its_name(reason: str, finish: str) -> None:
    assert completion(message([TEXT], reason, None), 1)["choices"][0]["finish_reason"] == finish
    assert streamed(*events([TEXT], reason))[-1]["choices"][0]["finish_reason"] == finish


def test_what_a_refusal_explains_is_told() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "not that"}
    whole = completion(message([], "refusal", None, stop_details=details), 1)
    assert whole["choices"][0]["message"]["refusal"] == "not that"
    sequence = events([], "refusal")
    sequence[-2]["delta"]["stop_details"] = details
    assert gathered(streamed(*sequence))["refusal"] == "not that"


def test_citations_are_told() -> None:
    cited, citation = {**TEXT, "citations": [{"type": "char_location"}]}, {"type": "page_location"}
    assert completion(message([cited], "end_turn", None), 1)["choices"][0]["message"]["citations"] == cited["citations"]
    sequence = events([TEXT])
    sequence.insert(
        4, {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}}
    )
    sequence.insert(4, sequence[4])
    assert gathered(streamed(*sequence))["citations"] == [citation, citation]


def test_thinking_blocks_go_back_without_the_index_that_a_stream_gave_them() -> None:
    numbered = [{"index": 0, **THOUGHT}, {"index": 1, **HIDDEN}]
    [_, turn] = turns(*HELLO, assistant(content="hello", thinking_blocks=numbered, citations=[{"type": "x"}]))
    assert turn["content"] == [THOUGHT, HIDDEN, TEXT]


@pytest.mark.parametrize("parameters", ["zz", 5, True, ["city"]])
def test_parameters_that_are_no_schema_are_refused_before_anything_is_sent(parameters: Any) -> None:
    error = refusal(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert (error.code, error.param) == ("invalid_value", "tools[0].function.parameters")


def test_thinking_blocks_that_are_no_list_are_refused() -> None:
    error = refusal([*HELLO, assistant(content="hello", thinking_blocks=5)])
    assert (error.code, error.param) == ("invalid_value", "messages[1].thinking_blocks")


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_a_block_whose_type_is_no_text_makes_the_reply_invalid(kind: Any) -> None:
    with pytest.raises(BadReplyError):
        completion(message([{**TEXT, "type": kind}], "end_turn", None), 1)


USAGE = usage_of(
    7,
    50,
    cache_read_input_tokens=100,
    cache_creation_input_tokens=30,
    cache_creation={"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10},
    output_tokens_details={"thinking_tokens": 40},
)
COUNTED = Usage(input=137, output=50, cached=100, cache_write=30, cache_write_1h=20, reasoning=40)


def test_usage_counts_the_cache_as_input_and_tells_each_kind() -> None:
    whole = completion(message([TEXT], "end_turn", {**USAGE, "service_tier": "priority"}), 1)
    assert whole["service_tier"] == "priority"
    assert usage_from_openai(whole["usage"], "standard") == COUNTED


def test_a_stream_s_usage_is_the_start_s_with_the_end_s_sums() -> None:
    sequence = events([TEXT], "end_turn", USAGE)
    details = {"output_tokens": 60, "input_tokens": None, "cache_read_input_tokens": 200}
    sequence[-2]["usage"] = {**details, "output_tokens_details": {"thinking_tokens": 41}}
    reader = ChatReader()
    for chunk in streamed(*sequence):
        reader.chunk(chunk)
    assert reader.usage == Usage(input=237, output=60, cached=200, cache_write=30, cache_write_1h=20, reasoning=41)
    assert (reader.complete, reader.finish_reason, reader.text) == (True, "stop", "hello")


def test_usage_is_told_only_once_it_is_final() -> None:
    cut = events([TEXT], "end_turn", USAGE)[:-2]
    assert not any("usage" in chunk for chunk in streamed(*cut))
    assert "usage" not in completion(message([TEXT], "end_turn", {"input_tokens": 5}), 1)


def test_a_stream_without_a_stop_reason_has_no_finish() -> None:
    assert not any(choice["finish_reason"] for chunk in streamed(*events([TEXT], None)) for choice in chunk["choices"])


def test_events_that_are_not_known_are_passed_over() -> None:
    plain = events([TEXT])
    assert streamed(plain[0], {"type": "a_new_event", "x": 1}, *plain[1:]) == streamed(*plain)


def test_no_content_is_an_empty_text() -> None:
    assert completion(message([], "end_turn", None), 1)["choices"][0]["message"]["content"] == ""


START, BEGUN, DELTA = events([TEXT])[0], events([TEXT])[2], events([TEXT])[3]


@pytest.mark.parametrize(
    "sequence",
    [
        [{}],
        [{"type": 5}],
        [{"type": "message_start"}],
        [{"type": "message_start", "message": {"type": "completion"}}],
        [BEGUN],
        [START, DELTA],
        [START, {**BEGUN, "content_block": {"type": "server_tool_use"}}],
        [START, {**BEGUN, "content_block": None}],
        [START, {**BEGUN, "index": "0"}],
        [START, BEGUN, {**DELTA, "delta": {"type": "a_new_delta"}}],
        [START, BEGUN, {**DELTA, "delta": {"type": "text_delta"}}],
        [START, BEGUN, {**DELTA, "delta": {"type": "input_json_delta", "partial_json": "{"}}],
        [START, BEGUN, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}],
    ],
    ids=str,
)
def test_what_makes_no_sense_is_never_told_as_an_answer(sequence: list[JSON]) -> None:
    with pytest.raises(BadReplyError):
        streamed(*sequence)


@pytest.mark.parametrize("block", [{"type": "web_search_tool_result"}, {"type": "text"}, {}, "x", None])
def test_a_whole_message_with_an_unknown_block_is_no_answer(block: Any) -> None:
    with pytest.raises(BadReplyError):
        completion(message([block], "end_turn", None), 1)


def test_thinking_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_gateway.providers.anthropic.reply.MAX_KEPT", 8)
    with pytest.raises(BadReplyError, match="more than 8"):
        streamed(*events([THOUGHT]))


def test_a_conversation_goes_on_here_after_another_vendor_s_model_answered() -> None:
    signed = {"google": {"thought_signature": "c2ln"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}
    [turn] = turns(assistant(content="hello", reasoning_content="theirs", extra_content=signed, tool_calls=[call]))
    assert [block["type"] for block in turn["content"]] == ["text", "tool_use"]
    assert "c2ln" not in str(turn)
