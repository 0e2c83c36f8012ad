"""What the Gemini API is asked, and what its answers become: pure functions."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.money import usage_from_openai
from model_gateway.providers import ProviderSettings
from model_gateway.providers.google.embeddings import embedding_body, embeddings
from model_gateway.providers.google.reply import BadReplyError, ReplyMapper
from model_gateway.providers.google.request import content_body
from model_gateway.providers.google.terms import Terms, base_of, option_problems
from model_gateway.providers.google.turns import UNSIGNED
from model_gateway.providers.google.usage import usage_of as tokens_of
from tests.upstream_google import reply, usage_of

JSON = dict[str, Any]
HELLO: list[JSON] = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f"}}
PNG = "data:image/png;base64,iVBORw0KGgo="
NEW, OLD, OLDEST = "gemini-3.5-flash", "gemini-2.5-flash", "gemini-2.0-flash"


def body_of(fields: Mapping[str, Any], model: str = NEW, messages: list[JSON] = HELLO, **terms: Any) -> JSON:
    return content_body(messages, model, fields, Terms(**terms))


def config_of(fields: Mapping[str, Any], model: str = NEW, **terms: Any) -> JSON:
    config: JSON = body_of(fields, model, **terms).get("generationConfig", {})
    return config


def contents_of(*messages: JSON, model: str = NEW, **terms: Any) -> list[JSON]:
    contents: list[JSON] = body_of({}, model, list(messages), **terms)["contents"]
    return contents


def refusal(*messages: JSON, model: str = NEW, terms: Terms | None = None, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        content_body(list(messages) or HELLO, model, fields, terms or Terms())
    assert caught.value.billed is False
    return caught.value


def mapper() -> ReplyMapper:
    return ReplyMapper("chatcmpl-1", 1700000000, "gemini-x", "")


def completion(answer: JSON) -> JSON:
    return mapper().completion(answer)


def message_of(*parts: JSON, reason: str = "STOP", **candidate: Any) -> JSON:
    message: JSON = completion(reply(list(parts), reason, **candidate))["choices"][0]["message"]
    return message


def streamed(*events: JSON) -> list[JSON]:
    one = mapper()
    chunks = [chunk for event in events for chunk in one.chunks(event)]
    return [*chunks, *one.end()]


def put_together(chunks: list[JSON], index: int = 0) -> JSON:
    """A choice as a client makes it of its chunks: texts are joined, lists are filled by their ``index``."""
    message: JSON = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            for name, value in choice["delta"].items():
                message[name] = message[name] + value if name in message and name != "role" else value
    return message


# what goes out: fields


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"max_tokens": 9}, {"maxOutputTokens": 9}),
        ({"max_completion_tokens": 9, "max_tokens": 9}, {"maxOutputTokens": 9}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0, "topP": 0.5, "topK": 3}),
        ({"seed": 0}, {"seed": 0}),
        ({"stop": "END"}, {"stopSequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"n": 3}, {"candidateCount": 3}),
        ({"presence_penalty": 0.5, "frequency_penalty": -1}, {"presencePenalty": 0.5, "frequencyPenalty": -1}),
        ({"logprobs": True}, {"responseLogprobs": True}),
        ({"logprobs": True, "top_logprobs": 4}, {"responseLogprobs": True, "logprobs": 4}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
    ],
)
def test_a_field_has_its_counterpart(fields: JSON, config: JSON) -> None:
    assert config_of(fields) == config


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logprobs": False, "top_logprobs": 0, "stop": []},
        {"logit_bias": {}, "user": None, "metadata": {}, "store": False, "modalities": ["text"], "audio": None},
        {
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "service_tier": "auto",
            "verbosity": "medium",
        },
        {"response_format": {"type": "text"}, "stream": True, "stream_options": {"include_usage": True}},
        {
            "function_call": "none",
            "functions": [],
            "seed": None,
            "reasoning_effort": None,
            "parallel_tool_calls": False,
        },
    ],
)
def test_what_says_nothing_is_neither_sent_nor_refused(fields: JSON) -> None:
    assert body_of(fields) == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"user": "u"}, "user"),
        ({"safety_identifier": "u"}, "safety_identifier"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"store": True}, "store"),
        ({"verbosity": "low"}, "verbosity"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"parallel_tool_calls": False, "tools": [TOOL]}, "parallel_tool_calls"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]}, "tools[0].cache_control"),
        ({"tool_choice": {"type": "custom"}, "tools": [TOOL]}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"reasoning_effort": "none"}, "reasoning_effort"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"made_up": 0}, "made_up"),
    ],
)
def test_what_can_not_be_said_is_refused_by_name_or_left_out_on_request(fields: JSON, param: str) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    left = body_of(fields, drop_params=True)
    assert left["contents"] == [{"role": "user", "parts": [{"text": "hello"}]}]
    assert json.dumps(param.rpartition(".")[2]) not in json.dumps(left).replace('"role": "user"', "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [TOOL]}, "tool_choice.allowed_tools"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_it_is_sent(fields: JSON, param: str) -> None:
    error = refusal(**fields, terms=Terms(drop_params=True))
    assert (error.code, error.param) == ("invalid_value", param)


def test_a_json_schema_goes_out_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}
    named = {"name": "answer", "strict": True, "description": "what it is", "schema": schema}
    config = config_of({"response_format": {"type": "json_schema", "json_schema": named}})
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"] == {"description": "what it is", **schema}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        (NEW, "minimal", {"thinkingLevel": "MINIMAL"}),
        (NEW, "low", {"thinkingLevel": "LOW"}),
        (NEW, "medium", {"thinkingLevel": "MEDIUM"}),
        (NEW, "high", {"thinkingLevel": "HIGH"}),
        (NEW, "xhigh", {"thinkingLevel": "XHIGH"}),
        ("gemini-3-pro-preview", "high", {"thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", "high", {"thinkingLevel": "HIGH"}),
        (OLD, "minimal", {"thinkingBudget": 1024}),
        (OLD, "low", {"thinkingBudget": 1024}),
        (OLD, "medium", {"thinkingBudget": 8192}),
        (OLD, "high", {"thinkingBudget": 24576}),
        (OLD, "max", {"thinkingBudget": 24576}),
    ],
)
def test_an_effort_is_told_in_the_model_s_own_terms_and_its_thoughts_are_shown(
    model: str, effort: str, thinking: JSON
) -> None:
    fields = {"reasoning_effort": effort}
    assert config_of(fields, model) == {"thinkingConfig": {**thinking, "includeThoughts": True}}
    assert config_of(fields, model, include_thoughts=False) == {"thinkingConfig": thinking}


def test_thinking_is_turned_off_where_the_model_lets_it() -> None:
    assert config_of({"reasoning_effort": "none"}, OLD) == {"thinkingConfig": {"thinkingBudget": 0}}
    assert config_of({"reasoning_effort": "none"}, OLDEST) == {}


def test_a_model_that_does_not_think_is_asked_for_no_effort() -> None:
    assert refusal(model=OLDEST, reasoning_effort="low").param == "reasoning_effort"


def test_the_row_says_how_a_model_thinks_whose_name_does_not() -> None:
    assert config_of({"reasoning_effort": "low"}, "endpoints/7", thinking="budget", include_thoughts=False) == {
        "thinkingConfig": {"thinkingBudget": 1024}
    }
    assert config_of({}, NEW, include_thoughts=True) == {"thinkingConfig": {"includeThoughts": True}}


def test_safety_settings_of_the_row_pass_through() -> None:
    given = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
    assert body_of({}, safety_settings=(given,))["safetySettings"] == [given]


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_service_tier_is_asked_for(tier: str) -> None:
    assert body_of({"service_tier": tier})["serviceTier"] == tier


def test_a_service_tier_is_refused_where_a_body_can_not_ask_for_one() -> None:
    error = refusal(service_tier="flex", terms=Terms(tiers=False))
    assert (error.code, error.param) == ("unsupported_parameter", "service_tier")
    assert "serviceTier" not in body_of({"service_tier": "flex"}, tiers=False, drop_params=True)
    assert body_of({"service_tier": "default"}, tiers=False) == body_of({})


def test_a_user_becomes_a_label_on_vertex_where_it_can_be_one() -> None:
    assert body_of({"user": "team-7"}, labels=True)["labels"] == {"user": "team-7"}
    assert body_of({"safety_identifier": "a1", "user": "b"}, labels=True)["labels"] == {"user": "a1"}
    assert refusal(user="Someone@example.com", terms=Terms(labels=True)).param == "user"


# what goes out: tools


def test_functions_go_out_with_their_json_schemas() -> None:
    schema = {"type": "object", "properties": {"user_id": {"type": ["string", "null"]}}}
    described = {"name": "look", "description": "looks", "parameters": schema, "strict": False}
    tools = [{"type": "function", "function": described}, TOOL]
    assert body_of({"tools": tools})["tools"] == [
        {
            "functionDeclarations": [
                {"name": "look", "description": "looks", "parametersJsonSchema": schema},
                {"name": "f"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_a_choice_of_tools_has_its_mode(choice: Any, config: JSON) -> None:
    body = body_of({"tools": [TOOL], "tool_choice": choice})
    assert body["toolConfig"] == {"functionCallingConfig": config}


@pytest.mark.parametrize(("choice", "mode"), [(None, "VALIDATED"), ("auto", "VALIDATED"), ("required", "ANY")])
def test_a_strict_function_is_kept_to_its_schema(choice: Any, mode: str) -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    body = body_of({"tools": [TOOL, strict], "tool_choice": choice})
    assert body["toolConfig"]["functionCallingConfig"]["mode"] == mode


# what goes out: messages


def test_system_and_developer_messages_become_the_instruction() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
    ]
    body = body_of({}, messages=messages)
    assert body["systemInstruction"] == {"parts": [{"text": "be brief"}, {"text": "be kind"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hello"}]}]


def test_messages_of_one_side_become_one_content() -> None:
    said = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", ""), ("user", "e")]
    assert contents_of(*({"role": role, "content": text} for role, text in said)) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}]},
    ]


def test_images_files_and_audio_go_along() -> None:
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a/cat.JPG?size=5"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "b.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ]
    assert contents_of({"role": "user", "content": content})[0]["parts"] == [
        {"text": "what is this?"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.com/a/cat.JPG?size=5"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "SUQz"}},
    ]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/image"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}, "image_url.detail"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "video_url", "video_url": {"url": "x"}}, "type"),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "cache_control"),
    ],
)
def test_a_part_that_can_not_be_said_is_refused_by_its_path(part: JSON, path: str) -> None:
    error = refusal({"role": "user", "content": [part]})
    assert (error.code, error.param) == ("unsupported_parameter", f"messages[0].content[0].{path}")
    assert "cache_control" not in str(contents_of({"role": "user", "content": ["x", part][1:]}, drop_params=True))


@pytest.mark.parametrize(
    "part",
    [
        "text",
        {"type": "text", "text": 5},
        {"type": "image_url", "image_url": {"url": "gs://bucket/secret.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png,raw"}},
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "nameless"}},
        {"type": "file", "file": {}},
        {"type": "input_audio", "input_audio": {"data": "x", "format": "flac"}},
    ],
)
def test_a_part_that_makes_no_sense_is_refused(part: Any) -> None:
    assert refusal({"role": "user", "content": [part]}, terms=Terms(drop_params=True)).code == "invalid_value"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
        ({"role": "user", "name": "Ann", "content": "x"}, "messages[0].name"),
        ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}, "messages[0].content"),
        ({"role": "assistant", "content": "x", "audio": {"id": "1"}}, "messages[0].audio"),
        ({"role": "assistant", "content": "x", "extra_content": {"other": 1}}, "messages[0].extra_content"),
    ],
)
def test_a_message_s_member_that_can_not_be_said_is_refused(message: JSON, param: str) -> None:
    assert refusal(message).param == param
    contents_of(message, drop_params=True)


def call_of(number: str, name: str = "look", arguments: str = '{"a":1}', signature: str = "") -> JSON:
    made: JSON = {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {**made, "extra_content": {"google": {"thought_signature": signature}}} if signature else made


def test_calls_and_their_results_go_back_under_their_names() -> None:
    contents = contents_of(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call_of("1", signature="c2ln"), call_of("2", "find", "")],
        },
        {"role": "tool", "tool_call_id": "2", "content": "found"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "no"}], "is_error": True},
    )
    assert contents == [
        {
            "role": "model",
            "parts": [
                {"functionCall": {"id": "1", "name": "look", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"id": "2", "name": "find", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "2", "name": "find", "response": {"output": "found"}}},
                {"functionResponse": {"id": "1", "name": "look", "response": {"error": "no"}}},
            ],
        },
    ]


def test_a_result_s_image_goes_along_with_it() -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]
    result = {"role": "tool", "tool_call_id": "9", "name": "look", "content": content}
    response = contents_of(result)[0]["parts"][0]["functionResponse"]
    assert response["response"] == {"output": "see"}
    assert response["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]


def test_a_result_without_its_call_is_refused() -> None:
    error = refusal({"role": "tool", "tool_call_id": "9", "content": "x"})
    assert (error.code, error.param) == ("invalid_value", "messages[0].tool_call_id")


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a":1,"a":2}', 5])
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    error = refusal({"role": "assistant", "tool_calls": [call_of("1", arguments=arguments)]})
    assert (error.code, error.param) == ("invalid_value", "messages[0].tool_calls[0].function.arguments")


def test_a_call_that_nobody_signed_gets_the_vendor_s_value_for_that_where_signatures_are_wanted() -> None:
    turn = {"role": "assistant", "content": "hm", "tool_calls": [call_of("1"), call_of("2")]}
    signed = contents_of(turn)[0]["parts"]
    assert [part.get("thoughtSignature") for part in signed] == [None, UNSIGNED, None]
    assert all("thoughtSignature" not in part for part in contents_of(turn, model=OLD)[0]["parts"])


# a turn's way out and back


def test_an_answer_goes_back_as_it_came() -> None:
    parts = [
        {"text": "let me think", "thought": True},
        {"text": "I look it up", "thoughtSignature": "dGV4dA=="},
        {
            "functionCall": {"id": "api-1", "name": "look", "args": {"ä": [1, 2.5, None]}},
            "thoughtSignature": "Y2FsbA==",
        },
        {"functionCall": {"id": "api-2", "name": "look", "args": {}}},
    ]
    message = message_of(*parts)
    assert contents_of(message) == [{"role": "model", "parts": parts}]


def test_a_signature_without_a_text_goes_back_without_one() -> None:
    message = message_of({"text": "", "thoughtSignature": "c2ln"})
    assert contents_of(message) == [{"role": "model", "parts": [{"text": "", "thoughtSignature": "c2ln"}]}]


def test_an_answer_that_came_with_citations_goes_back_without_them() -> None:
    message = message_of({"text": "words"}, citationMetadata={"citationSources": [{"uri": "https://example.com"}]})
    assert message["citations"]
    assert contents_of(message) == [{"role": "model", "parts": [{"text": "words"}]}]


def test_an_answer_that_was_cut_short_goes_back_too() -> None:
    message = message_of({"text": "so"}, reason="SAFETY", finishMessage="stopped")
    assert contents_of(message) == [{"role": "model", "parts": [{"text": "so"}]}]


# what comes back


def test_a_whole_answer_is_a_chat_completion() -> None:
    answer = reply([{"text": "thought", "thought": True}, {"text": "hel"}, {"text": "lo"}], usage=usage_of(5, 2, 3))
    assert completion(answer) == {
        "id": "resp-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gemini-x-001",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hello",
                    "refusal": None,
                    "reasoning_content": "thought",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 5,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_calls_come_back_with_ids_and_signatures() -> None:
    signed = {"functionCall": {"name": "look", "args": {"a": "ä"}}, "thoughtSignature": "c2ln"}
    choice = completion(reply([signed, {"functionCall": {"id": "own", "name": "find"}}]))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {
            "id": "call_0_0_resp-1",
            "type": "function",
            "function": {"name": "look", "arguments": '{"a":"ä"}'},
            "extra_content": {"google": {"thought_signature": "c2ln"}},
        },
        {"id": "own", "type": "function", "function": {"name": "find", "arguments": "{}"}},
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("OTHER", "other"),
        ("SOMETHING_NEW", "something_new"),
    ],
)
def test_each_end_has_its_finish_reason_whole_and_streamed(reason: str, finish: str) -> None:
    answer = reply([{"text": "so"}], reason, finishMessage="why")
    choice = completion(answer)["choices"][0]
    assert choice["finish_reason"] == finish
    assert choice["message"]["extra_content"] == {"google": {"finish_message": "why"}}
    assert streamed(answer)[-1]["choices"][0]["finish_reason"] == finish


def test_every_reason_that_the_sdk_knows_is_an_end() -> None:
    types = pytest.importorskip("google.genai.types")
    for reason in types.FinishReason:
        if reason != types.FinishReason.FINISH_REASON_UNSPECIFIED:
            assert completion(reply([], reason.value))["choices"][0]["finish_reason"]
    with pytest.raises(BadReplyError):
        completion(reply([], "FINISH_REASON_UNSPECIFIED"))


def test_a_blocked_prompt_is_an_empty_answer_that_tells_what_it_cost() -> None:
    answer = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage_of(7), "responseId": "r"}
    whole = completion(answer)
    choice = whole["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "content_filter")
    assert choice["message"]["extra_content"] == {"google": {"block_reason": "PROHIBITED_CONTENT"}}
    assert whole["usage"]["prompt_tokens"] == 7
    end, cost = streamed(answer)
    assert end["choices"][0]["finish_reason"] == "content_filter"
    assert cost["usage"] == whole["usage"]


def test_probabilities_of_tokens_come_back() -> None:
    result = {
        "chosenCandidates": [
            {"token": "hé", "tokenId": 5, "logProbability": -0.5},
            {"token": "!", "logProbability": -1},
        ],
        "topCandidates": [
            {"candidates": [{"token": "hé", "logProbability": -0.5}, {"token": "a", "logProbability": -2}]}
        ],
    }
    content = [
        {
            "token": "hé",
            "logprob": -0.5,
            "bytes": [104, 195, 169],
            "top_logprobs": [
                {"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]},
                {"token": "a", "logprob": -2, "bytes": [97]},
            ],
        },
        {"token": "!", "logprob": -1, "bytes": [33], "top_logprobs": []},
    ]
    answer = reply([{"text": "hé!"}], logprobsResult=result)
    assert completion(answer)["choices"][0]["logprobs"] == {"content": content, "refusal": None}
    assert streamed(answer)[0]["choices"][0]["logprobs"] == {"content": content, "refusal": None}


def test_citations_come_back() -> None:
    cited = [{"startIndex": 0, "endIndex": 5, "uri": "https://example.com"}]
    assert message_of({"text": "words"}, citationMetadata={"citationSources": cited})["citations"] == cited


def test_streamed_citations_bear_the_index_that_openais_sdk_puts_them_together_by() -> None:
    cited = {"citationMetadata": {"citations": [{"uri": "https://example.com"}]}}
    chunks = streamed(reply([{"text": "a"}], **cited), reply([{"text": "b"}], **cited))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    told = [citation for delta in deltas for citation in delta.get("citations", [])]
    assert told == [{"index": 0, "uri": "https://example.com"}, {"index": 1, "uri": "https://example.com"}]


def test_a_url_that_is_none_is_refused_by_its_name() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://[x/a.png"}}
    error = refusal({"role": "user", "content": [part]})
    assert (error.code, error.param) == ("unsupported_parameter", "messages[0].content[0].image_url.url")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"candidates": []},
        {"candidates": {}},
        {"candidates": [5]},
        {"candidates": [{"index": -1}]},
        {"candidates": [{"index": 10**9}]},
        {"candidates": [{"content": {"parts": 5}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": ["x"]}, "finishReason": "STOP"}]},
        {"candidates": [{"finishReason": 5}]},
        reply([{"text": "x"}], None),
        reply([{"text": 5}]),
        reply([{"inlineData": {"mimeType": "image/png", "data": "x"}}]),
        reply([{"executableCode": {"language": "PYTHON", "code": "1"}}]),
        reply([{"codeExecutionResult": {"outcome": "OUTCOME_OK"}}]),
        reply([{"somethingNew": {}}]),
        reply([{"functionCall": {}}]),
        reply([{"functionCall": {"name": "f", "willContinue": True}}]),
        {"promptFeedback": {"blockReason": 5}},
    ],
)
def test_an_answer_that_is_none_or_that_nobody_asked_for_is_refused(answer: JSON) -> None:
    with pytest.raises(BadReplyError):
        completion(answer)


def test_what_only_describes_a_text_does_no_harm() -> None:
    assert message_of({"text": "x", "somethingNew": {}})["content"] == "x"


# streams


def test_a_stream_tells_the_same_as_a_whole_answer() -> None:
    parts = [
        {"text": "thou", "thought": True},
        {"text": "ght", "thought": True},
        {"text": "hel"},
        {"text": "lo"},
        {"functionCall": {"name": "look", "args": {"a": 1}}, "thoughtSignature": "Y2FsbA=="},
        {"functionCall": {"name": "find", "args": {}}},
        {"text": "", "thoughtSignature": "dGV4dA=="},
    ]
    events = [reply([part], None, usage_of(5, number)) for number, part in enumerate(parts)]
    chunks = streamed(*events, reply([], "STOP", usage_of(5, 9, 2)))

    message = put_together(chunks)
    for index, call in enumerate(message["tool_calls"]):
        assert call.pop("index") == index
    whole = completion(reply(parts, "STOP", usage_of(5, 9, 2)))
    assert {"refusal": None, **message} == whole["choices"][0]["message"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 6 + ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert {chunk["id"] for chunk in chunks} == {"resp-1"}


def test_choices_are_told_apart() -> None:
    def event(index: int, text: str, reason: str | None = None) -> JSON:
        return {"candidates": [{**reply([{"text": text}], reason)["candidates"][0], "index": index}]}

    chunks = streamed(event(0, "a"), event(1, "b"), event(0, "c", "STOP"), event(1, "", "MAX_TOKENS"))
    assert [put_together(chunks, index)["content"] for index in (0, 1)] == ["ac", "b"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == ["stop", "length"]


def test_an_end_that_is_named_in_each_event_counts_once() -> None:
    chunks = streamed(reply([{"text": "a"}], "STOP"), reply([{"text": "b"}], "STOP"))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]


def test_a_reader_of_chat_completions_reads_the_stream_to_its_end() -> None:
    reader = ChatReader()
    for chunk in streamed(reply([{"text": "hello"}], "STOP", usage_of(5, 2))):
        reader.chunk(chunk)
    assert (reader.complete, reader.finish_reason, reader.text) == (True, "stop", "hello")
    assert reader.usage is not None
    assert (reader.usage.input, reader.usage.output) == (5, 2)


# usage


def test_tokens_are_told_by_kind_and_survive_the_way_through_a_chat_completion() -> None:
    usage = {
        "promptTokenCount": 1000,
        "toolUsePromptTokenCount": 10,
        "cachedContentTokenCount": 400,
        "candidatesTokenCount": 50,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 1090,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 500},
            {"modality": "AUDIO", "tokenCount": 300},
            {"modality": "IMAGE", "tokenCount": 200},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 50}],
    }
    found = tokens_of(usage)
    assert found is not None
    assert (found.input, found.output, found.cached, found.reasoning) == (1010, 80, 400, 30)
    assert (found.audio_input, found.cached_audio, found.image_input) == (300, 100, 200)
    assert usage_from_openai(completion(reply([], usage=usage))["usage"]) == found


@pytest.mark.parametrize(
    "usage",
    [
        None,
        5,
        {},
        {"promptTokenCount": "5"},
        {"promptTokenCount": -1},
        {"promptTokenCount": 1, "thoughtsTokenCount": 0.5},
    ],
)
def test_usage_that_is_missing_or_makes_no_sense_is_none(usage: Any) -> None:
    assert tokens_of(usage) is None
    assert "usage" not in completion(reply([{"text": "x"}], usage=usage))


@pytest.mark.parametrize(
    ("told", "asked", "tier"),
    [
        ({}, "", None),
        ({}, "flex", "flex"),
        ({"serviceTier": "standard"}, "priority", "standard"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority", "priority"),
        ({"trafficType": "ON_DEMAND"}, "priority", "standard"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "", None),
    ],
)
def test_the_tier_is_the_one_that_answered_if_the_answer_tells(told: JSON, asked: str, tier: str | None) -> None:
    one = ReplyMapper("id", 1, "m", asked)
    assert one.completion(reply([], usage=usage_of(5, **told))).get("service_tier") == tier


# embeddings


@pytest.mark.parametrize(
    ("resource", "vertex", "inputs", "method", "body"),
    [
        (
            "models/gemini-embedding-001",
            False,
            ["a"],
            "batchEmbedContents",
            {
                "requests": [
                    {
                        "model": "models/gemini-embedding-001",
                        "content": {"role": "user", "parts": [{"text": "a"}]},
                        "outputDimensionality": 3,
                    }
                ]
            },
        ),
        (
            "p/models/gemini-embedding-001",
            True,
            ["a"],
            "embedContent",
            {
                "content": {"role": "user", "parts": [{"text": "a"}]},
                "embedContentConfig": {"outputDimensionality": 3},
            },
        ),
        (
            "p/models/gemini-embedding-001",
            True,
            ["a", "b"],
            "batchEmbedContents",
            {
                "requests": [
                    {
                        "content": {"role": "user", "parts": [{"text": text}]},
                        "embedContentConfig": {"outputDimensionality": 3},
                    }
                    for text in "ab"
                ]
            },
        ),
        (
            "p/models/text-embedding-005",
            True,
            ["a", "b"],
            "predict",
            {"instances": [{"content": "a"}, {"content": "b"}], "parameters": {"outputDimensionality": 3}},
        ),
    ],
)
def test_embeddings_are_asked_for_as_each_api_has_them(
    resource: str, vertex: bool, inputs: list[str], method: str, body: JSON
) -> None:
    fields = {"dimensions": 3, "encoding_format": "base64", "user": None}
    assert embedding_body(inputs, resource, fields, Terms(), vertex=vertex) == (method, body)


def test_the_row_says_what_embeddings_are_for() -> None:
    terms = Terms(task_type="RETRIEVAL_QUERY")
    assert embedding_body(["a"], "models/m", {}, terms, vertex=False)[1]["requests"][0]["taskType"] == "RETRIEVAL_QUERY"
    assert embedding_body(["a"], "m", {}, terms, vertex=True)[1]["instances"][0]["task_type"] == "RETRIEVAL_QUERY"


@pytest.mark.parametrize(("inputs", "fields", "param"), [([[1, 2]], {}, "input"), (["a"], {"user": "u"}, "user")])
def test_what_embeddings_can_not_do_is_refused(inputs: list[Any], fields: JSON, param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        embedding_body(inputs, "models/m", fields, Terms(), vertex=False)
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("unsupported_parameter", param, False)


def test_vectors_come_back_in_order_with_what_they_cost_if_it_is_told() -> None:
    predicted = [{"embeddings": {"values": [index, 1.5], "statistics": {"token_count": 2.0}}} for index in range(2)]
    found = embeddings({"predictions": predicted}, 2, "m", None)
    assert [item["embedding"] for item in found["data"]] == [[0, 1.5], [1, 1.5]]
    assert found["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert "usage" not in embeddings({"embeddings": [{"values": [1]}]}, 1, "m", "float")
    assert embeddings({"embedding": {"values": [1.0]}}, 1, "m", "base64")["data"][0]["embedding"] == "AACAPw=="


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"embeddings": []},
        {"embeddings": [{"values": []}]},
        {"embeddings": [{"values": ["x"]}]},
        {"embeddings": [{}]},
        {"embeddings": [{"values": [1]}, {"values": [1]}]},
        {"predictions": [5]},
        {"embedding": {"values": [1e300]}},
    ],
)
def test_an_answer_without_a_vector_for_each_text_is_refused(answer: JSON) -> None:
    with pytest.raises(BadReplyError):
        embeddings(answer, 1, "m", "base64")


# the row


@pytest.mark.parametrize(
    ("api_base", "own", "base"),
    [
        ("", None, "https://vendor/v1beta"),
        ("", "v1", "https://vendor/v1"),
        ("http://localhost:8080/", None, "http://localhost:8080/v1beta"),
        ("http://localhost:8080/v1", None, "http://localhost:8080/v1"),
        ("http://localhost:8080/v1", "v1alpha", "http://localhost:8080/v1alpha"),
        ("http://localhost/gemini", None, "http://localhost/gemini/v1beta"),
    ],
)
def test_the_version_is_the_option_s_or_the_base_s_or_the_usual(api_base: str, own: str | None, base: str) -> None:
    assert base_of(api_base, "https://vendor", own, "v1beta") == base


def test_options_that_make_no_sense_are_told_with_their_paths() -> None:
    options = {"api_version": "../x", "thinking": "hard", "include_thoughts": 1, "safety_settings": {}, "task_type": 5}
    problems = option_problems(ProviderSettings("gem", options=options))
    assert [problem.partition(":")[0] for problem in problems] == [
        f"models.gem.options.{name}"
        for name in sorted(
            options, key=["api_version", "thinking", "include_thoughts", "task_type", "safety_settings"].index
        )
    ]


def test_a_conversation_goes_on_here_after_another_vendor_s_model_answered() -> None:
    thought = {"type": "thinking", "thinking": "theirs", "signature": "sig"}
    message = {"role": "assistant", "content": "hi", "reasoning_content": "theirs", "thinking_blocks": [thought]}
    assert contents_of(message) == [{"role": "model", "parts": [{"text": "hi"}]}]
