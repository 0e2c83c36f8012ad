import json
from collections.abc import Iterator
from typing import Any, get_args

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent

from model_gateway.dialects.answers import Piece
from model_gateway.dialects.chat import chat_usage
from model_gateway.dialects.messages import parse_count_tokens, parse_messages
from model_gateway.dialects.messages.reading import CountReader, MessagesReader
from model_gateway.dialects.messages.writing import MessageWriter
from model_gateway.errors import GatewayError
from model_gateway.usage import Usage

EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(RawMessageStreamEvent)[0])
}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOLD_USAGE = {
    "input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 4,
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 3},
}
NO_USAGE = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}
SIGNED = {"type": "thinking", "thinking": "hmm", "signature": "sig"}
REDACTED = {"type": "redacted_thinking", "data": "x"}
ADDED = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    """A delta of a call; its first has ``id`` and ``name``."""
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def begun(index: int, arguments: str = "") -> dict[str, Any]:
    return call(index, arguments, id=f"call_{index}", name=f"f{index}", type="function")


def block(index: int, found: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"call_{index}", "name": f"f{index}", "input": found}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None, **more}


def whole(message: dict[str, Any], finish: str | None = "stop", of: MessageWriter | None = None, **more: Any) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    reply = {"id": "c1", "object": "chat.completion", "choices": [choice], "usage": USAGE, **more}
    told = orjson.loads((of or MessageWriter("mine")).reply(reply, orjson.dumps(reply)))
    Message.model_validate(told, strict=True)
    return told


def events(pieces: Iterator[Piece]) -> list[Any]:
    """Events, each by its own name, of the SDK's shape."""
    found = []
    for piece in pieces:
        event = orjson.loads(piece.data)
        assert piece.event == event["type"]
        EVENTS[event["type"]].model_validate(event, strict=True)
        found.append(event)
    return found


def streamed(*chunks: dict[str, Any], of: MessageWriter | None = None) -> list[list[Any]]:
    """What each chunk becomes, and at last the end."""
    writer = of or MessageWriter("mine")
    return [events(writer.chunk(one, b"")) for one in chunks] + [events(writer.end())]


def gathered(told: list[list[Any]]) -> list[Any]:
    """The blocks, put together by a client that takes the protocol at its word: one open at a time, in order."""
    blocks: list[Any] = []
    is_open = False
    for event in (event for part in told for event in part):
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                is_open = True
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                name = ADDED[event["delta"]["type"]]
                blocks[-1][name] = blocks[-1].get(name, "") + event["delta"][name]
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(blocks) - 1
                is_open = False
    assert not is_open
    for found in blocks:
        if found["type"] == "tool_use":
            found["input"] = json.loads(found.pop("partial_json", "") or "{}")
    return blocks


# -- whole


def test_a_completion_is_said_as_a_message() -> None:
    assert whole({"content": "hello"}) == {
        "id": "msg_c1",
        "type": "message",
        "role": "assistant",
        "model": "mine",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": TOLD_USAGE,
    }


def test_missing_usage_and_a_missing_id_are_made_up_for() -> None:
    first, second = (whole({"content": "hello"}, usage=None, id=None) for _ in range(2))
    assert first["usage"] == NO_USAGE
    assert first["id"] != second["id"]
    assert first["id"].startswith("msg_")


@pytest.mark.parametrize(
    ("message", "blocks"),
    [
        ({"content": None}, []),
        ({"content": ""}, []),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, [{"type": "text", "text": "ab"}]),
        (
            {"content": "yes", "reasoning_content": "hmm"},
            [{"type": "thinking", "thinking": "hmm", "signature": ""}, {"type": "text", "text": "yes"}],
        ),
        ({"content": "", "reasoning": "hmm"}, [{"type": "thinking", "thinking": "hmm", "signature": ""}]),
        (
            {"content": "yes", "reasoning_content": "hmmhmm", "thinking_blocks": [SIGNED, REDACTED, SIGNED]},
            [SIGNED, REDACTED, SIGNED, {"type": "text", "text": "yes"}],
        ),
        ({"content": None, "thinking_blocks": [SIGNED, SIGNED]}, [SIGNED, SIGNED]),
        (
            {"content": "see", "tool_calls": begun(0, '{"a": 1}')["tool_calls"] + begun(1)["tool_calls"]},
            [{"type": "text", "text": "see"}, block(0, {"a": 1}), block(1, {})],
        ),
    ],
)
def test_a_message_becomes_its_blocks_whole_and_streamed_alike(message: dict[str, Any], blocks: list[Any]) -> None:
    assert whole(message)["content"] == blocks
    assert gathered(streamed(chunk(message), chunk({}, "stop"))) == blocks


def test_thinking_that_is_not_wanted_is_not_shown_and_its_signature_is() -> None:
    message = {"content": "yes", "reasoning_content": "hmm", "thinking_blocks": [SIGNED]}
    told = [{**SIGNED, "thinking": ""}, {"type": "text", "text": "yes"}]
    hidden = parse_messages(
        json.dumps(
            {
                "model": "m",
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "hi"}],
                "thinking": {"type": "adaptive", "display": "omitted"},
            }
        ).encode()
    )
    assert whole(message, of=hidden.chat_writer("mine", chat_usage))["content"] == told
    assert gathered(streamed(chunk(message), of=hidden.chat_writer("mine", chat_usage))) == told
    unsigned = {"content": "yes", "reasoning_content": "hmm"}
    assert whole(unsigned, of=hidden.chat_writer("mine", chat_usage))["content"] == told[1:]


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"content": "x"}, "stop", "end_turn"),
        ({"content": "x"}, "length", "max_tokens"),
        ({"content": "x"}, "content_filter", "refusal"),
        ({"content": "x"}, "some new reason", "end_turn"),
        ({"content": "x"}, None, "end_turn"),
        (begun(0), "tool_calls", "tool_use"),
        (begun(0), "stop", "tool_use"),
        (begun(0), "length", "max_tokens"),
        ({"content": None, "refusal": "I can't"}, "stop", "refusal"),
    ],
)
def test_an_end_has_its_reason_whole_and_streamed_alike(message: Any, finish: str | None, reason: str) -> None:
    assert whole(message, finish)["stop_reason"] == reason
    *_, end = streamed(chunk(message), chunk({}, finish))
    assert end[-2]["delta"] == {"stop_reason": reason, "stop_sequence": None}


def test_a_refusal_is_read_as_text() -> None:
    assert whole({"content": None, "refusal": "I can't"})["content"] == [{"type": "text", "text": "I can't"}]


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": begun(0, "{"), "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": begun(0, "[1]"), "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": {"tool_calls": [{"id": "x", "type": "custom"}]}}]},
        {"choices": [{"index": 0, "message": call(0, "{}", id="x")}]},
        {},
    ],
)
def test_what_is_no_message_is_a_bad_answer(reply: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        MessageWriter("mine").reply(reply, orjson.dumps(reply))
    assert caught.value.code == "upstream_invalid_response"
    assert caught.value.billed


def test_arguments_that_the_output_bound_cut_are_told_as_far_as_they_go() -> None:
    cut = begun(0, '{"city":"Ulm","days":[1,2,')
    assert whole(cut, "length")["content"] == [block(0, {"city": "Ulm", "days": [1, 2]})]
    assert whole(begun(0, "{"), "length")["content"] == [block(0, {})]


# -- streamed


def test_a_stream_has_the_full_sequence_of_events() -> None:
    told = streamed(chunk({"role": "assistant", "content": ""}), chunk({"content": "hel"}), chunk({"content": "lo"}),
                    chunk({}, "stop"), {"id": "c1", "choices": [], "usage": USAGE})  # fmt: skip
    start = {
        "id": "msg_c1",
        "type": "message",
        "role": "assistant",
        "model": "mine",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": NO_USAGE,
    }
    assert told == [
        [{"type": "message_start", "message": start}],
        [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
        ],
        [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}],
        [],
        [],
        [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": TOLD_USAGE,
            },
            {"type": "message_stop"},
        ],
    ]


def test_the_newest_usage_holds_whatever_follows_it() -> None:
    told = streamed(
        chunk({"content": "x"}, usage=USAGE | {"completion_tokens": 1}), chunk({}, "stop", usage=USAGE), chunk({})
    )
    assert told[-1][-2]["usage"] == TOLD_USAGE


def test_a_stream_without_usage_says_zeros() -> None:
    assert streamed(chunk({"content": "x"}), chunk({}, "stop"))[-1][-2]["usage"] == NO_USAGE


def test_thinking_comes_as_it_is_thought_and_each_signature_ends_its_own_block() -> None:
    told = streamed(
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning_content": "mm"}),
        chunk({"thinking_blocks": [SIGNED]}),
        chunk({"thinking_blocks": [REDACTED]}),
        chunk({"reasoning_content": "hmm"}),
        chunk({"thinking_blocks": [SIGNED]}),
        chunk({"content": "yes"}),
        chunk({}, "stop"),
    )
    assert gathered(told) == [SIGNED, REDACTED, SIGNED, {"type": "text", "text": "yes"}]
    assert [event["delta"]["thinking"] for event in told[1]] == ["mm"]


def test_arguments_of_a_call_go_out_as_they_come() -> None:
    told = streamed(chunk(begun(0)), chunk(call(0, '{"a"')), chunk(call(0, ":1}")), chunk({}, "tool_calls"))
    assert [event["type"] for event in told[0]] == ["message_start", "content_block_start"]
    assert [[event["delta"]["partial_json"] for event in part] for part in told[1:3]] == [['{"a"'], [":1}"]]
    assert gathered(told) == [block(0, {"a": 1})]


def test_a_call_that_is_whole_makes_room_for_the_next() -> None:
    told = streamed(
        chunk({"content": "see"}),
        chunk(begun(0, '{"a":1}')),
        chunk(begun(1)),
        chunk(call(1, '{"b":2}')),
        chunk({}, "tool_calls"),
    )
    kinds = [event["type"] for event in told[2]]
    assert kinds == ["content_block_stop", "content_block_start"]
    assert [event["type"] for event in told[3]] == ["content_block_delta"]
    assert gathered(told) == [{"type": "text", "text": "see"}, block(0, {"a": 1}), block(1, {"b": 2})]


CROSSWISE = [
    [begun(0), begun(1), call(0, '{"a":'), call(1, '{"b":'), call(0, "1}"), call(1, "2}")],
    [begun(0), begun(1), call(1, '{"b":2}'), call(0, '{"a":1}')],
    [begun(1), begun(0), call(0, '{"a":1}'), call(1, '{"b":2}')],
    [begun(0, '{"a":'), begun(1, '{"b":'), call(1, "2}"), call(0, "1}")],
    [{"tool_calls": begun(0, '{"a":1}')["tool_calls"] + begun(1, '{"b":2}')["tool_calls"]}],
    [begun(0), begun(1), call(0, '{"a":1}'), {"content": "so"}, call(1, '{"b":2}')],
    [begun(0, '{"a":1'), {"content": "so"}, call(0, "}"), begun(1, '{"b":2}'), {"content": "."}],
    [begun(0, '{"a":1}'), call(0, "\n"), begun(1, '{"b":2}'), call(0, " ")],
]


@pytest.mark.parametrize("deltas", CROSSWISE)
def test_calls_that_come_crosswise_are_told_one_after_the_other(deltas: list[Any]) -> None:
    blocks = gathered(streamed(*map(chunk, deltas), chunk({}, "tool_calls")))
    calls = sorted((found for found in blocks if found["type"] == "tool_use"), key=lambda found: found["id"])
    assert calls == [block(0, {"a": 1}), block(1, {"b": 2})]
    texts = "".join(found["text"] for found in blocks if found["type"] == "text")
    assert texts == "".join(delta.get("content", "") for delta in deltas)


def test_calls_are_told_apart_by_their_ids_where_the_index_stands_still_or_is_missing() -> None:
    still = [begun(0, '{"a":1}'), {"tool_calls": [{**begun(1, '{"b":2}')["tool_calls"][0], "index": 0}]}]
    missing = [{"tool_calls": [{**delta["tool_calls"][0], "index": None}]} for delta in still]
    for deltas in (still, missing):
        assert gathered(streamed(*map(chunk, deltas))) == [block(0, {"a": 1}), block(1, {"b": 2})]


def test_an_id_and_a_name_that_are_repeated_begin_no_new_call() -> None:
    assert gathered(streamed(chunk(begun(0, '{"a":')), chunk(begun(0, "1}")))) == [block(0, {"a": 1})]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    first, second = (gathered(streamed(chunk(call(0, "{}", name="f"))))[0]["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    "deltas",
    [
        [call(0, "{}", id="x")],
        [begun(0, "{}"), begun(1), call(0, '{"a":1}')],
        [{"tool_calls": ["call"]}],
    ],
)
def test_calls_that_make_no_sense_are_a_bad_answer(deltas: list[Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        streamed(*map(chunk, deltas))
    assert caught.value.code == "upstream_invalid_response"


def test_other_choices_and_odd_deltas_are_passed_over() -> None:
    other = {"id": "c1", "choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    odd = {"id": "c1", "choices": [{"index": 0, "delta": None}, "x"]}
    told = streamed(other, odd, chunk({"content": "yes"}), chunk({}, "stop"))
    assert gathered(told) == [{"type": "text", "text": "yes"}]
    assert told[-1][-2]["delta"]["stop_reason"] == "end_turn"


# -- reading what a provider says in the dialect


def read(*sequence: dict[str, Any]) -> MessagesReader:
    reader = MessagesReader()
    for event in sequence:
        reader.chunk(event)
    return reader


NATIVE = {
    "input_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
    "output_tokens": 1,
    "service_tier": "standard",
}
START = {"type": "message_start", "message": {"usage": NATIVE}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
COUNTED = Usage(input=135, output=9, cached=100, cache_write=30, cache_write_1h=10)


def test_a_whole_message_tells_its_usage_its_end_and_its_text() -> None:
    reader = MessagesReader()
    content = [SIGNED, {"type": "text", "text": "see"}, block(0, {"a": 1}), "x"]
    details = {"output_tokens_details": {"thinking_tokens": 4}}
    reader.reply({"content": content, "stop_reason": "tool_use", "usage": {**NATIVE, "output_tokens": 9, **details}})
    assert reader.usage == Usage(input=135, output=9, cached=100, cache_write=30, cache_write_1h=10, reasoning=4)
    assert reader.finish_reason == "tool_use"
    assert reader.text == 'hmmseef0{"a":1}'


@pytest.mark.parametrize(("tier", "told"), [("priority", "priority"), ("batch", "batch"), ("standard", ""), (None, "")])
def test_the_tier_that_answered_is_told_where_it_changes_the_price(tier: str | None, told: str) -> None:
    reader = MessagesReader()
    reader.reply({"usage": {**NATIVE, "service_tier": tier}})
    assert reader.usage is not None
    assert reader.usage.tier == told


def test_a_streams_counts_are_the_newest_of_each() -> None:
    assert read(START, DELTA).usage == COUNTED
    corrected = {**DELTA, "usage": {"input_tokens": 6, "cache_read_input_tokens": None, "output_tokens": 9}}
    assert read(START, corrected).usage == Usage(input=136, output=9, cached=100, cache_write=30, cache_write_1h=10)


def test_what_a_stream_begins_with_is_no_usage_yet() -> None:
    started = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}}
    arguments = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}
    tool = {"type": "content_block_start", "content_block": block(0, {})}
    reader = read(START, started, delta, tool, arguments)
    assert (reader.usage, reader.finishing, reader.complete) == (None, False, False)
    assert reader.text == "abf0{}"


def test_a_stream_is_whole_after_its_stop_only() -> None:
    reader = read(START, DELTA)
    assert (reader.finish_reason, reader.finishing, reader.complete) == ("end_turn", True, False)
    reader.chunk({"type": "message_stop"})
    assert reader.complete


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 1}, {"input_tokens": -1, "output_tokens": 1}, "x"])
def test_usage_that_makes_no_sense_is_none(usage: Any) -> None:
    reader = MessagesReader()
    reader.reply({"content": None, "usage": usage})
    assert reader.usage is None


def test_events_pass_untouched_and_named_by_their_type_but_for_pings() -> None:
    request = parse_messages(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}')
    writer = request.native_writer()
    text = b'{"type": "message_stop" , "new": 1.0}'
    assert list(writer.chunk(orjson.loads(text), text)) == [Piece(text, "message_stop")]
    assert list(writer.chunk({"type": "ping"}, b'{"type":"ping"}')) == []


def test_a_count_is_free_and_passes_untouched() -> None:
    request = parse_count_tokens(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    reader, text = request.native_reader(), b'{"input_tokens": 12}'
    assert isinstance(reader, CountReader)
    reader.reply(orjson.loads(text))
    assert (reader.usage, reader.complete) == (Usage(), False)
    assert request.native_writer().reply(orjson.loads(text), text) == text


def test_calls_without_a_number_or_an_id_are_told_apart_by_their_names() -> None:
    first = {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":'}}]}
    more = {"tool_calls": [{"function": {"arguments": "1}"}}]}
    second = {"tool_calls": [{"function": {"name": "f", "arguments": '{"b":2}'}}]}
    blocks = gathered(streamed(chunk(first), chunk(more), chunk(second)))
    assert [found["input"] for found in blocks] == [{"a": 1}, {"b": 2}]


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "hel"},
    {"type": "text", "text": "lo"},
]


def test_content_in_parts_is_text_and_the_thinking_in_it_is_thinking() -> None:
    streams = gathered(streamed(chunk({"content": PARTS}), chunk({}, "stop")))
    for blocks in (whole({"content": PARTS})["content"], streams):
        thinking, said = blocks
        assert (thinking["thinking"], said["text"]) == ("hm", "hello")


def test_a_choice_without_a_number_is_the_first() -> None:
    unnumbered = {"id": "c1", "choices": [{"index": None, "delta": {"content": "yes"}, "finish_reason": "stop"}]}
    assert gathered(streamed(unnumbered)) == [{"type": "text", "text": "yes"}]


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": 5},
        {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"content": {"text": "x"}},
        {"thinking_blocks": [{}]},
    ],
)
def test_what_can_not_be_read_is_a_bad_answer_and_not_left_out(message: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        whole(message)
    assert caught.value.code == "upstream_invalid_response"


def test_redacted_thinking_goes_out_without_its_place_in_a_chat_s_list() -> None:
    told = gathered(streamed(chunk({"thinking_blocks": [{"index": 0, **REDACTED}]})))
    assert told == [REDACTED]
