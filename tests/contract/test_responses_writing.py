import json
from collections.abc import Iterator
from typing import Any, get_args

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from model_gateway.dialects import DIALECTS
from model_gateway.dialects.answers import Piece
from model_gateway.dialects.responses.reading import ResponsesReader
from model_gateway.dialects.responses.request import parse_responses
from model_gateway.dialects.responses.sealing import seal
from model_gateway.dialects.responses.writing import ResponsesWriter
from model_gateway.errors import GatewayError
from model_gateway.money import Usage

EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
LOGPROB = {"token": "Hi", "bytes": [72, 105], "logprob": -0.1}
LOGPROBS = {"content": [{**LOGPROB, "top_logprobs": [{**LOGPROB, "bytes": None}]}]}
TOLD_LOGPROBS = [{**LOGPROB, "top_logprobs": [{**LOGPROB, "bytes": []}]}]
ENCRYPTED = ["reasoning.encrypted_content"]


def writer(**fields: Any) -> ResponsesWriter:
    ticks: Iterator[int] = iter(range(1_000, 2_000))
    payload = parse_responses(json.dumps({"input": "hi"} | fields).encode()).payload
    return ResponsesWriter(payload, "mine", clock=lambda: next(ticks))


def whole(message: dict[str, Any], finish: str = "stop", of: ResponsesWriter | None = None, **choice: Any) -> Any:
    said = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    reply = {"id": "c", "object": "chat.completion", "choices": [said], "usage": USAGE}
    told = orjson.loads((of or writer()).reply(reply, orjson.dumps(reply)))
    Response.model_validate(told, strict=True)
    return told


def chunk(delta: dict[str, Any], finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}], "usage": None}


def told(pieces: Iterator[Piece]) -> list[Any]:
    """Events, each by its own name, of the SDK's shape."""
    events = []
    for piece in pieces:
        event = orjson.loads(piece.data)
        assert piece.event == event["type"]
        EVENTS[event["type"]].model_validate(event, strict=True)
        events.append(event)
    return events


def streamed(*chunks: dict[str, Any], of: ResponsesWriter | None = None) -> list[Any]:
    made = of or writer()
    events = [event for parsed in chunks for event in told(made.chunk(parsed, b""))] + told(made.end())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def call(index: int | None, *, name: str = "", arguments: str = "", call_id: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    number = {} if index is None else {"index": index}
    return {"tool_calls": [number | ({"id": call_id} if call_id else {}) | {"function": function} | more]}


def without_ids(output: list[Any]) -> list[Any]:
    return [{name: value for name, value in item.items() if name != "id"} for item in output]


def text(said: str, **members: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return {"type": "message", "status": "completed", "role": "assistant", "content": [part | members]}


# -- whole


def test_a_completion_is_told_as_a_whole_response() -> None:
    response = whole({"content": "hello"})
    assert response["id"].startswith("resp_")
    assert response["output"][0]["id"].startswith("msg_")
    assert without_ids(response["output"]) == [text("hello")]
    del response["id"], response["output"]
    assert response == {
        "object": "response",
        "created_at": 1_000,
        "completed_at": 1_001,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "mine",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 17,
        },
    }


def test_the_response_says_again_what_was_asked() -> None:
    asked: dict[str, Any] = {
        "instructions": "be brief",
        "max_output_tokens": 50,
        "max_tool_calls": 2,
        "metadata": {"trace": "1"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "tool_choice": "required",
        "user": "u",
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "custom", "name": "sh"}]
    response = whole({"content": "x"}, of=writer(**asked, tools=tools, reasoning={"effort": "high"}))
    assert {name: response[name] for name in asked} == asked
    assert response["tools"] == [{**tools[0], "strict": False}, tools[1]]
    assert response["reasoning"] == {"effort": "high", "summary": None}


def test_the_tier_that_answered_is_told() -> None:
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "service_tier": "flex"}
    assert orjson.loads(writer(service_tier="auto").reply(reply, b""))["service_tier"] == "flex"


def test_every_kind_of_item_comes_in_its_order() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls"}},
        {"type": "function", "function": {"name": "g", "arguments": ""}, "extra_content": {"google": {"s": "x"}}},
    ]
    response = whole({"reasoning_content": "hm", "content": "so", "tool_calls": calls}, "tool_calls")
    *output, last = response["output"]
    assert without_ids(output) == [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        text("so"),
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "f",
            "arguments": '{"a":1}',
            "status": "completed",
        },
        {"type": "custom_tool_call", "call_id": "c2", "name": "sh", "input": "ls", "status": "completed"},
    ]
    assert last["call_id"].startswith("call_")
    assert (last["name"], last["arguments"], last["extra_content"]) == ("g", "", {"google": {"s": "x"}})
    assert len({item["id"] for item in response["output"]}) == 5
    assert response["status"] == "completed"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_found_by_either_name(name: str) -> None:
    assert whole({name: "hm", "content": "x"})["output"][0]["summary"] == [{"type": "summary_text", "text": "hm"}]


def test_reasoning_is_sealed_for_who_asks_to_send_it_back() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = {"reasoning_content": "hm", "content": "x"}
    assert "encrypted_content" not in whole(said)["output"][0]
    assert whole(said, of=writer(include=ENCRYPTED))["output"][0]["encrypted_content"] == seal(
        {"reasoning_content": "hm"}
    )
    signed = whole(said | {"thinking_blocks": [block]}, of=writer(include=ENCRYPTED))["output"][0]
    assert signed["encrypted_content"] == seal({"thinking_blocks": [block]})


def test_what_a_response_says_can_be_the_input_of_the_next() -> None:
    block = {"type": "redacted_thinking", "data": "x"}
    function = {"name": "f", "arguments": "{}"}
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    call = {"id": "c1", "function": function, **signed}
    said = {"thinking_blocks": [block], "content": "so", "tool_calls": [call], **signed}
    output = whole(said, "tool_calls", of=writer(include=ENCRYPTED))["output"]
    again = parse_responses(json.dumps({"input": output}).encode()).to_chat()
    assert again.messages == [
        {
            "role": "assistant",
            "thinking_blocks": [block],
            "content": "so",
            "tool_calls": [{"id": "c1", "type": "function", "function": function, **signed}],
            **signed,
        }
    ]


def test_a_refusal_and_notes_on_the_text_are_told() -> None:
    cited = {"start_index": 0, "end_index": 2, "title": "t", "url": "https://x"}
    notes = [{"type": "url_citation", "url_citation": cited}]
    response = whole({"content": "so", "annotations": notes, "refusal": "no"})
    content = response["output"][0]["content"]
    assert content[0]["annotations"] == [{"type": "url_citation", **cited}]
    assert content[1] == {"type": "refusal", "refusal": "no"}


def test_probabilities_are_told() -> None:
    response = whole({"content": "Hi"}, logprobs=LOGPROBS)
    assert response["output"][0]["content"][0]["logprobs"] == TOLD_LOGPROBS


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_it_ended_is_told(finish: str, status: str, details: Any) -> None:
    response = whole({"content": "x"}, finish)
    assert (response["status"], response["incomplete_details"]) == (status, details)
    assert response["output"][0]["status"] == status
    assert ("completed_at" in response) == (status == "completed")
    events = streamed(chunk({"content": "x"}), chunk({}, finish))
    assert events[-1]["type"] == f"response.{status}"
    assert events[-1]["response"]["incomplete_details"] == details


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    assert without_ids(whole({"content": None})["output"]) == [text("")]
    assert without_ids(streamed(chunk({}, "stop"))[-1]["response"]["output"]) == [text("")]


def test_usage_is_read_as_the_provider_tells_it() -> None:
    request = parse_responses(b'{"input":"hi"}')
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "tokens": 5}
    made = request.chat_writer("mine", lambda members: Usage(input=members["tokens"], output=1))
    assert orjson.loads(made.reply(reply, b""))["usage"]["total_tokens"] == 6


def test_without_usage_there_is_none() -> None:
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    assert orjson.loads(writer().reply(reply, b""))["usage"] is None


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": [5]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"refusal": []}}]},
        {"choices": [{"message": {"tool_calls": [{"id": "c"}]}}]},
        {"choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": 5}}]}}]},
    ],
)
def test_a_completion_that_makes_no_sense_is_the_providers_fault(reply: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        writer().reply(reply, b"")
    assert (caught.value.code, caught.value.status) == ("upstream_invalid_response", 502)


# -- streamed


def test_a_text_has_its_whole_sequence_of_events() -> None:
    events = streamed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        {"choices": [], "usage": USAGE},
    )
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, progress, added, part, first, second, done, part_done, item_done, completed = events
    assert created["response"] == progress["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    item_id = added["item"]["id"]
    assert without_ids([added["item"]]) == [text("") | {"status": "in_progress", "content": []}]
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert (first["delta"], second["delta"], done["text"], part_done["part"]["text"]) == ("hel", "lo", "hello", "hello")
    for event in (part, first, second, done, part_done):
        assert (event["item_id"], event["output_index"], event["content_index"]) == (item_id, 0, 0)
    assert item_done["item"] == completed["response"]["output"][0]
    assert without_ids([item_done["item"]]) == [text("hello")]
    assert completed["response"]["id"] == created["response"]["id"]
    assert completed["response"]["usage"]["total_tokens"] == 17


def test_a_delta_goes_out_with_the_chunk_that_brought_it() -> None:
    made = writer()
    assert kinds(told(made.chunk(chunk({"role": "assistant", "content": ""}), b""))) == ["created", "in_progress"]
    assert kinds(told(made.chunk(chunk({"content": "a"}), b"")))[-1] == "output_text.delta"
    assert kinds(told(made.chunk(chunk({"content": "b"}), b""))) == ["output_text.delta"]
    assert told(made.chunk(chunk({}, "stop"), b"")) == []
    assert told(made.chunk({"choices": [], "usage": USAGE}, b"")) == []
    assert kinds(told(made.end()))[-1] == "completed"


def test_the_last_text_may_come_with_the_finish() -> None:
    events = streamed(chunk({"content": "all"}, "stop"))
    assert without_ids(events[-1]["response"]["output"]) == [text("all")]


def test_reasoning_has_its_own_events_and_ends_where_the_text_begins() -> None:
    events = streamed(
        chunk({"reasoning_content": "h"}), chunk({"reasoning": "m"}), chunk({"content": "so"}), chunk({}, "stop")
    )
    assert kinds(events)[2:10] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
    ]
    assert events[2]["item"]["summary"] == []
    assert events[6]["text"] == "hm"
    assert events[8]["item"]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message"]


def test_streamed_blocks_of_thinking_are_sealed_as_in_one_piece() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    events = streamed(
        chunk({"reasoning_content": "hm"}),
        chunk({"thinking_blocks": [block]}),
        chunk({"thinking_blocks": [hidden]}),
        chunk({"content": "x"}, "stop"),
        of=writer(include=ENCRYPTED),
    )
    reasoning = events[-1]["response"]["output"][0]
    assert reasoning["encrypted_content"] == seal({"thinking_blocks": [block, hidden]})
    assert kinds(events).count("reasoning_summary_text.delta") == 1


def test_parallel_calls_are_open_side_by_side() -> None:
    events = streamed(
        chunk({"content": "wait"}),
        chunk(call(0, name="f", call_id="c1")),
        chunk(call(1, name="g", call_id="c2", arguments="{")),
        chunk(call(0, arguments='{"a":')),
        chunk(call(1, arguments="}")),
        chunk(call(0, arguments="1}")),
        chunk({}, "tool_calls"),
    )
    assert kinds(events)[5:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert [(event["output_index"], event["delta"]) for event in deltas] == [
        (2, "{"),
        (1, '{"a":'),
        (2, "}"),
        (1, "1}"),
    ]
    output = events[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in output[1:]] == [("c1", '{"a":1}'), ("c2", "{}")]
    assert {event["item_id"] for event in deltas} == {item["id"] for item in output[1:]}


def test_calls_without_numbers_come_one_after_the_other() -> None:
    events = streamed(
        chunk(call(None, name="f", call_id="c1", arguments="{")),
        chunk(call(None, arguments="}")),
        chunk(call(None, name="g", call_id="c2", arguments="[]")),
        chunk({}, "tool_calls"),
    )
    assert [(item["name"], item["arguments"]) for item in events[-1]["response"]["output"]] == [
        ("f", "{}"),
        ("g", "[]"),
    ]


def test_a_custom_tools_input_is_streamed() -> None:
    begin = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sh", "input": "l"}}
    more = {"index": 0, "custom": {"input": "s"}}
    events = streamed(chunk({"tool_calls": [begin]}), chunk({"tool_calls": [more]}), chunk({}, "tool_calls"))
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert events[-1]["response"]["output"][0]["input"] == "ls"


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    events = streamed(chunk({"content": "a"}), chunk(call(0, name="f")), chunk({"content": "b"}), chunk({}, "stop"))
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "message"]


def test_a_refusal_is_streamed_as_a_part_of_its_own() -> None:
    events = streamed(chunk({"content": "a"}), chunk({"refusal": "n"}), chunk({"refusal": "o"}), chunk({}, "stop"))
    assert kinds(events)[4:-2] == [
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
    ]
    assert events[8]["content_index"] == events[10]["content_index"] == 1
    assert events[10]["refusal"] == "no"


def test_probabilities_come_with_their_text() -> None:
    events = streamed(chunk({"content": "Hi"}, logprobs=LOGPROBS), chunk({"content": "!"}), chunk({}, "stop"))
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert deltas == [TOLD_LOGPROBS, []]
    assert [event["logprobs"] for event in events if event["type"] == "response.output_text.done"] == [TOLD_LOGPROBS]


def test_a_note_on_the_text_is_an_event() -> None:
    cited = {"start_index": 0, "end_index": 2, "title": "t", "url": "https://x"}
    note = {"annotations": [{"type": "url_citation", "url_citation": cited}]}
    events = streamed(chunk({"content": "so"}), chunk(note), chunk(note), chunk({}, "stop"))
    added = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [event["annotation_index"] for event in added] == [0, 1]
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == [{"type": "url_citation", **cited}] * 2


def test_what_is_cut_is_incomplete_and_what_was_whole_before_is_not() -> None:
    events = streamed(chunk({"reasoning_content": "hm"}), chunk({"content": "so f"}), chunk({}, "length"))
    assert [item.get("status") for item in events[-1]["response"]["output"]] == [None, "incomplete"]
    assert kinds(events)[-1] == "incomplete"


def test_a_stream_says_what_the_whole_response_says() -> None:
    calls = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"reasoning_content": "hm", "content": "so", "tool_calls": calls}
    events = streamed(chunk(message), chunk({}, "tool_calls"), {"choices": [], "usage": USAGE})
    one, other = whole(message, "tool_calls"), events[-1]["response"]
    assert without_ids(one.pop("output")) == without_ids(other.pop("output"))
    assert one | {"id": ""} == other | {"id": ""}


def test_other_choices_are_not_this_answers() -> None:
    assert without_ids(streamed(chunk({"content": "a"}, index=1), chunk({}, "stop"))[-1]["response"]["output"]) == [
        text("")
    ]


# -- errors


def test_an_error_in_a_stream_has_the_references_members_and_what_the_sdk_looks_for() -> None:
    error = GatewayError("upstream_truncated", "cut", param=None)
    event = DIALECTS["responses"].stream_error(error)
    EVENTS["error"].model_validate(event, strict=True)
    assert event == {
        "type": "error",
        "code": "upstream_truncated",
        "message": "cut",
        "param": None,
        "sequence_number": 0,
        "error": error.body()["error"],
    }
    assert DIALECTS["responses"].error(error) == error.body()
    assert DIALECTS["responses"].done == b""


# -- a provider's own responses, read and passed on

OWN_USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 17,
}
OWN = {
    "object": "response",
    "status": "completed",
    "service_tier": "flex",
    "usage": OWN_USAGE,
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "so"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "sh", "input": "ls"},
    ],
}


def read(*events: Any) -> ResponsesReader:
    reader = ResponsesReader()
    for event in events:
        reader.chunk(event)
    return reader


def test_a_whole_response_tells_its_cost_its_end_and_its_text() -> None:
    reader = ResponsesReader()
    reader.reply(OWN)
    assert reader.usage == Usage(input=10, output=7, cached=4, cache_write=2, reasoning=3, tier="flex")
    assert reader.finish_reason == "completed"
    assert sorted(reader.text) == sorted("hmsonof{}shls")


@pytest.mark.parametrize("usage", [None, 5, {}, {"input_tokens": 1}, {"input_tokens": -1, "output_tokens": 1}])
def test_usage_that_makes_no_sense_is_none(usage: Any) -> None:
    reader = ResponsesReader()
    reader.reply({"usage": usage, "output": [5, {"content": 5}, {"content": [5]}]})
    assert (reader.usage, reader.finish_reason, reader.text) == (None, "", "")


@pytest.mark.parametrize(
    ("ending", "more", "reason"),
    [
        ("completed", {}, "completed"),
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ("failed", {"error": {"code": "server_error", "message": "x"}}, "failed"),
    ],
)
def test_a_stream_ends_with_its_last_event(ending: str, more: dict[str, Any], reason: str) -> None:
    delta = {"type": "response.output_text.delta", "delta": "so"}
    last = {"type": f"response.{ending}", "response": {**OWN, "status": ending, **more}}
    before = read({"type": "response.created", "response": {"usage": None}}, delta)
    assert (before.finishing, before.complete, before.usage, before.text) == (False, False, None, "so")
    after = read(delta, last)
    assert (after.finishing, after.complete, after.finish_reason) == (True, True, reason)
    assert after.usage == Usage(input=10, output=7, cached=4, cache_write=2, reasoning=3, tier="flex")


def test_everything_that_was_generated_is_read_for_counting() -> None:
    said = read(
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "delta": "a"},
        {"type": "response.custom_tool_call_input.delta", "delta": "b"},
        {"type": "response.reasoning_summary_text.delta", "delta": "c"},
        {"type": "response.reasoning_text.delta", "delta": "d"},
        {"type": "response.refusal.delta", "delta": "e"},
        {"type": "response.output_text.done", "text": "not again"},
        {"type": "response.output_text.delta", "delta": 5},
        {"type": "response.output_item.added"},
    )
    assert said.text == "fabcde"


def test_a_providers_own_events_pass_untouched_by_their_names() -> None:
    request = parse_responses(b'{"input":"hi"}')
    data = b'{"type": "response.created", "response": {"id": "r"}, "new": 1e-7}'
    [piece] = request.native_writer().chunk(orjson.loads(data), data)
    assert piece == Piece(data, "response.created")
    assert request.native_writer().reply({"id": "r"}, b' {"id": "r"}\n') == b'{"id": "r"}'


def test_calls_are_told_apart_by_their_ids_where_all_bear_the_same_number() -> None:
    events = streamed(
        chunk(call(0, name="f", call_id="c1", arguments="{}")),
        chunk(call(0, name="g", call_id="c2", arguments="[")),
        chunk(call(0, call_id="c2", arguments="]")),
        chunk({}, "tool_calls"),
    )
    output = events[-1]["response"]["output"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output] == [
        ("c1", "f", "{}"),
        ("c2", "g", "[]"),
    ]


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
PARTS = [THOUGHT, {"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]


def test_content_in_parts_is_text_and_the_thinking_in_it_reasoning() -> None:
    streams = streamed(chunk({"content": PARTS}), chunk({}, "stop"))
    for output in (whole({"content": PARTS})["output"], streams[-1]["response"]["output"]):
        reasoning, message = output
        assert reasoning["summary"][0]["text"] == "hm"
        assert message["content"][0]["text"] == "hello"


def test_a_choice_without_a_number_is_the_first() -> None:
    events = streamed(chunk({"content": "hello"}, index=None), chunk({}, "stop", index=None))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "hello"


@pytest.mark.parametrize("calls", [5, {"id": "c1"}, ["c1"]])
def test_tool_calls_that_are_none_are_the_providers_fault(calls: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        whole({"tool_calls": calls})
    assert caught.value.code == "upstream_invalid_response"


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_an_event_of_a_strange_type_is_read_past(kind: Any) -> None:
    assert read({"type": kind, "delta": "x"}).text == ""
