import hashlib
import json
from typing import Any

import pytest

from model_gateway.dialects import DIALECTS, check_for
from model_gateway.dialects.chat import ChatRequest, parse_chat
from model_gateway.dialects.messages import MessagesRequest, parse_count_tokens, parse_messages
from model_gateway.dialects.naming import in_own_words
from model_gateway.dialects.request import Attachments
from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import KINDS, GatewayError
from model_gateway.settings import ModelRow

ROW = ModelRow(provider="echo", max_tokens=100)
HELLO = [{"role": "user", "content": "hi"}]
MARK = {"cache_control": {"type": "ephemeral"}}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
LINK = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
FOUND = {
    "type": "search_result",
    "title": "T",
    "source": "https://x.test",
    "content": [{"type": "text", "text": "r"}],
}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJDRA=="}}
NOTE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a note"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def result(content: Any, call: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


def user(*blocks: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def messages(**fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 10, "messages": HELLO} | fields
    return parse_messages(json.dumps(body).encode())


def chat(**fields: Any) -> dict[str, Any]:
    """The chat completion that a request becomes; it is one that the chat dialect itself takes."""
    made = messages(**fields).to_chat()
    assert parse_chat(json.dumps(made.payload).encode())
    return made.payload


def said(*turns: Any, **fields: Any) -> list[Any]:
    found: list[Any] = chat(messages=list(turns), **fields)["messages"]
    return found


def refused(**fields: Any) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as caught:
        check_for(messages(**fields), ROW)
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    return caught.value.code, caught.value.param


def unsaid(**fields: Any) -> tuple[str, str | None]:
    """What a chat completion can't say; a provider that speaks the dialect is asked nonetheless."""
    request = messages(**fields)
    check_for(request, ROW)
    with pytest.raises(GatewayError) as caught:
        request.to_chat()
    assert not caught.value.billed
    return caught.value.code, caught.value.param


# -- the body


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"max_tokens": None}, "invalid_type", "max_tokens"),
        ({"max_tokens": True}, "invalid_type", "max_tokens"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": 101}, "invalid_value", "max_tokens"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": user("hi")}, "invalid_type", "messages[0].content[0]"),
        ({"messages": user({"text": "hi"})}, "missing_required_parameter", "messages[0].content[0].type"),
        ({"messages": user(text(7))}, "invalid_type", "messages[0].content[0].text"),
        ({"messages": user(result([text(7)]))}, "invalid_type", "messages[0].content[0].content[0].text"),
        ({"system": 7}, "invalid_type", "system"),
        ({"system": [PNG]}, "invalid_value", "system[0].type"),
        ({"model": 7}, "invalid_type", "model"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"temperature": 1.1}, "invalid_value", "temperature"),
        ({"top_p": "all"}, "invalid_type", "top_p"),
        ({"top_k": -1}, "invalid_value", "top_k"),
        ({"stop_sequences": "x"}, "invalid_type", "stop_sequences"),
        ({"stop_sequences": [1]}, "invalid_type", "stop_sequences[0]"),
        ({"tools": [7]}, "invalid_type", "tools[0]"),
        ({"tools": [{"name": "f", "input_schema": 7}]}, "invalid_type", "tools[0].input_schema"),
        ({"tool_choice": "auto"}, "invalid_type", "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "invalid_value", "thinking.budget_tokens"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": 7}}},
            "invalid_type",
            "output_config.format.schema",
        ),
        ({"metadata": {"user_id": 7}}, "invalid_type", "metadata.user_id"),
    ],
)
def test_a_bad_field_is_refused_with_its_path(fields: dict[str, Any], code: str, param: str) -> None:
    assert refused(**fields) == (code, param)


def test_the_output_bound_is_required() -> None:
    with pytest.raises(GatewayError) as caught:
        parse_messages(json.dumps({"model": "m", "messages": HELLO}).encode())
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "max_tokens")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "container_1"}, "container"),
        ({"mcp_servers": [{"type": "url", "url": "https://x.test"}]}, "mcp_servers"),
        ({"fallbacks": [{"model": "other"}]}, "fallbacks"),
        ({"thread": {"id": "thread_1"}}, "thread"),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "tools[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits[0].type"),
        ({"messages": user({"type": "container_upload", "file_id": "f"})}, "messages[0].content[0].type"),
        ({"messages": user(result([{"type": "tool_reference"}]))}, "messages[0].content[0].content[0].type"),
        (
            {"messages": user({"type": "document", "source": {"type": "content", "content": [{"type": "new"}]}})},
            "messages[0].content[0].source.content[0].type",
        ),
    ],
)
def test_what_changes_the_price_and_has_none_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"speed": "standard"},
        {"speed": None},
        {"inference_geo": "global"},
        {"mcp_servers": []},
        {"container": None},
        {"tools": [{**TOOL, "type": "custom"}]},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
    ],
)
def test_what_changes_no_price_passes(fields: dict[str, Any]) -> None:
    request = messages(**fields)
    check_for(request, ROW)
    assert request.to_chat().messages == HELLO


def test_attachments_are_counted_at_any_depth_and_their_data_is_no_text() -> None:
    within = {"type": "document", "source": {"type": "content", "content": [PNG, text("x")]}}
    request = messages(messages=user(text("hi"), PNG, LINK, PDF, NOTE, result([PNG, PDF]), within))
    assert request.attachments == Attachments(images=4, files=2, data_bytes=3 * 4 + 2 * 8)


def test_everything_that_the_model_reads_is_counted() -> None:
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hmm", "signature": "s"}, USE]},
        *user(result([text("sun"), NOTE]), text("and"), {**NOTE, "title": "T", "context": "C"}),
    ]
    within = {"type": "document", "source": {"type": "content", "content": [text("deep")]}}
    turns += user(within, FOUND)
    config = {"format": FORMAT}
    request = messages(system=[text("be"), text("brief")], messages=turns, tools=[TOOL], output_config=config)
    assert list(request.texts()) == [
        "bebrief",
        "first",
        'hmmweather{"city":"Ulm"}',
        "suna noteandTCa note",
        "deepThttps://x.testr",
        json.dumps(TOOL, separators=(",", ":")),
        json.dumps(config["format"], separators=(",", ":")),
    ]


def test_a_provider_that_speaks_it_gets_the_clients_body_but_for_the_model() -> None:
    fields = {"new_knob": [1, None], "top_k": 4, "messages": user(text("hi", **MARK)), "stream": True}
    request = messages(**fields)
    assert request.native_body("claude-x", 99) == {"model": "claude-x", "max_tokens": 10, **fields}


def test_the_bound_and_the_stream_are_known() -> None:
    request = messages(stream=True)
    assert (request.operation, request.model, request.stream, request.choices) == ("messages", "m", True, 1)
    assert (request.output_bound, request.bound_param) == (10, "max_tokens")


# -- counting


def test_a_count_needs_no_bound_and_no_price() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    body = json.dumps({"model": "m", "messages": HELLO, "tools": [tool], "speed": "fast"}).encode()
    request = parse_count_tokens(body)
    check_for(request, ROW)
    assert (request.operation, request.output_bound, request.stream) == ("count_tokens", None, False)
    assert request.native_body("claude-x", 5)["model"] == "claude-x"


def test_a_count_is_not_streamed() -> None:
    with pytest.raises(GatewayError) as caught:
        parse_count_tokens(json.dumps({"model": "m", "messages": HELLO, "stream": True}).encode())
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "stream")


# -- as a chat completion: fields


def test_a_plain_request_becomes_a_plain_chat() -> None:
    made = messages().to_chat()
    assert isinstance(made, ChatRequest)
    assert made.payload == {"messages": HELLO}
    assert (made.model, made.stream, made.output_bound) == ("m", False, 10)
    assert messages(stream=True).to_chat().stream
    assert messages(messages=user(text("look"), PNG)).to_chat().attachments == Attachments(images=1, data_bytes=4)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        ({"metadata": {"user_id": "u" * 65}}, {"user": hashlib.sha256(b"u" * 65).hexdigest()}),
        ({"metadata": {}}, {}),
        ({"cache_control": {"type": "ephemeral"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4_096}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4_097}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16_385}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"top_k": None, "new_knob": None, "diagnostics": {}}, {}),
    ],
)
def test_a_field_is_said_in_a_chats_words(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert chat(**fields) == {"messages": HELLO, **expected}


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_a_schema_for_the_answer_is_strict(place: str) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    made = chat(**{place: {"format": wanted} if place == "output_config" else wanted})
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert made["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_tools_and_the_choice_among_them_are_said() -> None:
    more = {"type": "custom", "description": "d", "strict": True, "eager_input_streaming": True, **MARK}
    made = chat(tools=[TOOL, {**TOOL, **more, "allowed_callers": ["direct"]}])
    function = {"name": "weather", "parameters": TOOL["input_schema"]}
    assert made["tools"] == [
        {"type": "function", "function": function},
        {"type": "function", "function": {**function, "description": "d", "strict": True}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
    ],
)
def test_a_choice_of_tools_is_said(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    made = chat(tools=[TOOL], tool_choice=choice)
    del made["tools"], made["messages"]
    assert made == expected


def test_there_is_nothing_to_choose_without_tools() -> None:
    assert chat(tools=[], tool_choice={"type": "auto"}) == {"messages": HELLO}
    assert unsaid(tool_choice={"type": "any"}) == ("invalid_value", "tool_choice")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_k": 4}, "top_k"),
        ({"new_knob": 0}, "new_knob"),
        ({"diagnostics": {"previous_message_id": "m"}}, "diagnostics"),
        ({"metadata": {"user_id": "u", "team": "t"}}, "metadata.team"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "output_config.effort"),
        ({"thinking": {"type": "adaptive", "new": 1}}, "thinking.new"),
        ({"output_config": {"task_budget": 9}}, "output_config.task_budget"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]}, "tools[0].allowed_callers"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "new": 1}}, "tool_choice.new"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0].type",
        ),
        ({"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]}, "messages[1].role"),
        ({"messages": [{**HELLO[0], "name": "x"}]}, "messages[0].name"),
        ({"messages": user(text("hi", new=1))}, "messages[0].content[0].new"),
        ({"messages": user({**PNG, "new": 1})}, "messages[0].content[0].new"),
        ({"messages": user({**LINK, "source": {**LINK["source"], "new": 1}})}, "messages[0].content[0].source.new"),
        ({"messages": user({**PNG, "source": {**PNG["source"], "new": 1}})}, "messages[0].content[0].source.new"),
        ({"messages": user({**PDF, "new": 1})}, "messages[0].content[0].new"),
        ({"messages": user({**NOTE, "source": {**NOTE["source"], "new": 1}})}, "messages[0].content[0].source.new"),
        (
            {"messages": user({**NOTE, "source": {"type": "content", "content": [], "new": 1}})},
            "messages[0].content[0].source.new",
        ),
        ({"messages": user({**FOUND, "new": 1})}, "messages[0].content[0].new"),
        ({"messages": user(result("sun", toolset_name="browser"))}, "messages[0].content[0].toolset_name"),
        ({"context_management": {"new": 1}}, "context_management.new"),
        ({"output_config": {"format": {**FORMAT, "new": 1}}}, "output_config.format.new"),
        ({"messages": user({**PDF, "citations": {"enabled": True}})}, "messages[0].content[0].citations"),
        (
            {"messages": user({**PNG, "transformations": {"oversized_image": "error"}})},
            "messages[0].content[0].transformations",
        ),
        (
            {"messages": user({"type": "image", "source": {"type": "file", "file_id": "f"}})},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": user({"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}})},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": user(result([{"type": "image", "source": {"type": "file", "file_id": "f"}}]))},
            "messages[0].content[0].content[0].source.type",
        ),
        ({"messages": [{"role": "system", "content": [PNG]}, *HELLO]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": [PNG]}, *HELLO]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "assistant", "content": [{**USE, "caller": {"type": "code"}}]}, *HELLO]},
            "messages[0].content[0].caller",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**USE, "toolset_name": "browser"}]}, *HELLO]},
            "messages[0].content[0].toolset_name",
        ),
    ],
)
def test_what_a_chat_cannot_say_is_refused_with_its_path(fields: dict[str, Any], param: str) -> None:
    assert unsaid(**fields) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"name": "f"}]}, "tools[0]"),
        ({"output_config": {"format": FORMAT}, "output_format": FORMAT}, "output_format"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        ({"messages": user({"type": "text"})}, "messages[0].content[0].text"),
        ({"messages": user({"type": "image"})}, "messages[0].content[0].source"),
        ({"messages": user({"type": "tool_result"})}, "messages[0].content[0].tool_use_id"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}, *HELLO]},
            "messages[0].content[0].name",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(fields: dict[str, Any], param: str) -> None:
    assert unsaid(**fields) == ("invalid_value", param)


# -- as a chat completion: the conversation


def test_the_system_prompt_is_one_message_in_front() -> None:
    expected = [{"role": "system", "content": "be\n\nbrief"}, *HELLO]
    assert said(*HELLO, system=[text("be", **MARK), text(""), text("brief")]) == expected
    assert said(*HELLO, system="be\n\nbrief") == expected
    assert said(*HELLO, system="") == HELLO


def test_a_system_message_stays_where_it_stands() -> None:
    assert said(*HELLO, {"role": "system", "content": [text("now")]}, *HELLO) == [
        *HELLO,
        {"role": "system", "content": "now"},
        *HELLO,
    ]


def test_a_users_blocks_become_parts() -> None:
    [made] = said(*user(text("look", citations=None), PNG, LINK, {**PDF, "title": "a.pdf", "context": "old"}, PDF))
    assert made["content"] == [
        text("look"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        text("old"),
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJDRA=="}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,QUJDRA=="}},
    ]


def test_a_text_alone_is_a_plain_content() -> None:
    assert said(*user(text("hi", **MARK))) == HELLO


def test_documents_of_text_and_search_results_are_read_as_text() -> None:
    blocks = {"type": "document", "source": {"type": "content", "content": [text("b1"), PNG]}}
    [made] = said(*user({**NOTE, "title": "N", "context": "C"}, blocks, FOUND))
    texts = [part.get("text", "image") for part in made["content"]]
    assert texts == ["N", "C", "a note", "b1", "image", "T\nhttps://x.test", "r"]


def test_an_assistants_turn_is_one_text_and_its_calls_without_its_thinking() -> None:
    thinking = [
        {"type": "thinking", "thinking": "hmm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
    ]
    cited = text("b.", citations=[{"type": "char_location", "cited_text": "b"}])
    blocks = [*thinking, text("a, "), cited, {**USE, "caller": {"type": "direct"}, **MARK}]
    found = said(*HELLO, {"role": "assistant", "content": blocks}, *user(result("sun")))
    assert found[1] == {"role": "assistant", "content": "a, b.", "tool_calls": [CALL]}
    assert said(*HELLO, {"role": "assistant", "content": thinking}, *HELLO) == [*HELLO, *HELLO]
    assert said(*HELLO, {"role": "assistant", "content": "yes"}, *HELLO)[1] == {"role": "assistant", "content": "yes"}


def test_tool_results_come_first_in_order_and_then_what_the_user_says() -> None:
    turn = user(text("and now?"), result("sun", "a"), result([text("rain"), text("wind")], "b"), result(None, "c"))
    assert said(*turn) == [
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": "rain\n\nwind"},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": "and now?"},
    ]


def test_a_failed_tools_result_says_so() -> None:
    assert said(*user(result("no such city", is_error=True)))[0]["content"] == "Error: no such city"
    assert said(*user(result("sun", is_error=False)))[0]["content"] == "sun"


def test_what_a_tool_shows_besides_text_is_shown_by_the_user() -> None:
    assert said(*user(result([text("a map"), PNG]), text("go"))) == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "a map"},
        {
            "role": "user",
            "content": [
                text("Attached to the result of toolu_1:"),
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                text("go"),
            ],
        },
    ]


# -- errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_value", "invalid_request_error"),
        ("unsupported_parameter", "invalid_request_error"),
        ("upstream_rejected", "invalid_request_error"),
        ("cancelled", "invalid_request_error"),
        ("method_not_allowed", "invalid_request_error"),
        ("invalid_api_key", "authentication_error"),
        ("forbidden", "permission_error"),
        ("model_not_found", "not_found_error"),
        ("request_too_large", "request_too_large"),
        ("rate_limit_exceeded", "rate_limit_error"),
        ("model_overloaded", "rate_limit_error"),
        ("budget_exceeded", "billing_error"),
        ("queue_full", "overloaded_error"),
        ("upstream_unavailable", "overloaded_error"),
        ("ledger_lost", "api_error"),
        ("internal_error", "api_error"),
        ("upstream_error", "api_error"),
        ("upstream_truncated", "api_error"),
        ("upstream_timeout", "timeout_error"),
        ("request_timeout", "timeout_error"),
    ],
)
def test_an_error_has_anthropics_shape_and_the_gateways_code(code: str, kind: str) -> None:
    assert code in KINDS
    error = GatewayError(code, "it failed", param="model")
    details = {"error_code": code, "param": "model"}
    expected = {"type": "error", "error": {"type": kind, "message": "it failed", "details": details}}
    for operation in ("messages", "count_tokens"):
        dialect = DIALECTS[operation]
        assert dialect.error(error) == dialect.stream_error(error) == expected


@pytest.mark.parametrize("kind", [[], {}, 5])
def test_a_block_within_a_document_whose_type_is_no_text_is_refused(kind: Any) -> None:
    inner = {"type": "document", "source": {"type": "content", "content": [{"type": kind, "text": "x"}]}}
    request = messages(messages=user(inner))
    assert "messages[0].content[0].source.content[0].type" in request.priced
    with pytest.raises(GatewayError):
        request.to_chat()


@pytest.mark.parametrize("content", [["said"], 5, None, [None]])
def test_a_document_s_content_that_is_no_block_is_refused_and_not_dropped(content: Any) -> None:
    inner = {"type": "document", "source": {"type": "content", "content": content}}
    assert unsaid(messages=user(inner)) == ("invalid_value", "messages[0].content[0].source.content")


TURNS = [*user(text("a")), {"role": "assistant", "content": [USE]}, *user(result("x"), result("y", "toolu_2"))]


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("reasoning_effort", "thinking"),
        ("stop", "stop_sequences"),
        ("user", "metadata.user_id"),
        ("response_format", "output_format"),
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        ("tools[1].function.parameters", "tools[1].input_schema"),
        ("tools[1].function.name", "tools[1].name"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("temperature", "temperature"),
        ("messages[0].content", "system"),
        ("messages[1].content", "messages[0]"),
        ("messages[4].tool_call_id", "messages[2]"),
    ],
)
def test_an_error_about_the_chat_names_the_clients_own_field(param: str, own: str) -> None:
    error = in_own_words(messages(system="s", messages=TURNS), unsupported(param, "is not known"))
    assert (error.param, error.message) == (own, f"{own} is not known")
