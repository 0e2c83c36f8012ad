"""What ``drop_params`` leaves out on the way from a dialect to a chat completion, and what it never does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_gateway.dialects import DIALECTS, Request
from model_gateway.dialects.dropping import chat_of
from model_gateway.errors import GatewayError

HELLO = [{"role": "user", "content": "hi"}]


def message(**fields: Any) -> Request:
    return DIALECTS["messages"].parse(json.dumps({"model": "m", "max_tokens": 9, "messages": HELLO} | fields).encode())


def response(**fields: Any) -> Request:
    return DIALECTS["responses"].parse(json.dumps({"model": "m", "input": "hi"} | fields).encode())


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (message(top_k=5), "top_k"),
        (message(thinking={"type": "sideways"}), "thinking.type"),
        (response(truncation="auto"), "truncation"),
        (response(new_knob=1), "new_knob"),
    ],
)
def test_a_parameter_that_chat_can_not_say_is_refused_or_left_out_where_the_row_says_so(request_, param):
    with pytest.raises(GatewayError) as caught:
        chat_of(request_, drop_params=False)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)
    chat = chat_of(request_, drop_params=True)
    assert chat.messages[-1]["content"] == "hi"


def test_several_are_left_out_together_and_the_rest_stays():
    chat = chat_of(message(top_k=5, new_knob=1, temperature=0.5), drop_params=True)
    assert chat.payload["temperature"] == 0.5
    assert not {"top_k", "new_knob"} & chat.payload.keys()


def test_the_request_itself_is_left_as_it_was():
    asked = message(top_k=5)
    chat_of(asked, drop_params=True)
    assert asked.payload["top_k"] == 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [*HELLO, {"role": "assistant", "content": "go on"}]}, "messages[1].role"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_the_model_is_told_and_how_much_it_may_say_is_never_left_out(fields, param):
    with pytest.raises(GatewayError) as caught:
        chat_of(message(**fields), drop_params=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)
