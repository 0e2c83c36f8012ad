"""What a request asks for that changes its price: refused, unless the row says what it costs."""

import json
from typing import Any

import pytest

from model_gateway.dialects import ChatRequest, check_for, unpriced
from model_gateway.dialects.chat import parse_chat
from model_gateway.errors import GatewayError
from model_gateway.settings import ModelRow

ROW = ModelRow(provider="echo", max_tokens=100)
HELLO = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatRequest:
    return parse_chat(json.dumps({"messages": HELLO} | fields).encode())


def refused(fields: dict[str, Any], row: ModelRow = ROW) -> tuple[str, str | None]:
    """How these fields are refused, at first sight or by the row."""
    with pytest.raises(GatewayError) as caught:
        check_for(chat(**fields), row)
    error = caught.value
    assert (error.status, error.type, error.billed) == (400, "invalid_request_error", False)
    return error.code, error.param


def priced(**settings: Any) -> ModelRow:
    return ModelRow(provider="openai", input_cost="0.000001", output_cost="0.000001", **settings)


def holding(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*HELLO, {"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]}


HEARD = holding({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": "auto"}, "service_tier"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": ["text", "image"]}, "modalities"),
        ({"modalities": "audio"}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
    ],
)
def test_a_field_that_changes_the_price_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(fields) == ("unsupported_parameter", param)


@pytest.mark.parametrize("kind", ["input_audio", "audio_url", "input_file", "video_url"])
def test_a_part_that_the_row_does_not_price_is_refused(kind: str) -> None:
    assert refused(holding({"type": kind})) == ("unsupported_parameter", "messages[1].content[1].type")


@pytest.mark.parametrize("kind", ["audio_url", "input_file", "video_url"])
def test_a_part_of_any_size_is_refused_whatever_the_row_prices(kind: str) -> None:
    row = priced(audio_input_cost="0.00004", audio_output_cost="0.00008", image_input_cost="0.00001")
    assert refused(holding({"type": kind}), row) == ("unsupported_parameter", "messages[1].content[1].type")


def test_each_price_that_a_row_has_lets_its_kind_pass_and_no_other() -> None:
    hears, speaks = priced(audio_input_cost="0.00004"), priced(audio_output_cost="0.00008")
    check_for(chat(**HEARD), hears)
    check_for(chat(**SPOKEN), speaks)
    assert refused(HEARD, speaks) == ("unsupported_parameter", "messages[1].content[1].type")
    assert refused(SPOKEN, hears) == ("unsupported_parameter", "modalities")
    assert refused(HEARD | SPOKEN, hears) == ("unsupported_parameter", "modalities")
    assert refused(HEARD | SPOKEN, speaks) == ("unsupported_parameter", "messages[1].content[1].type")


def test_a_price_of_nothing_is_a_price() -> None:
    check_for(chat(**HEARD), priced(audio_input_cost="0"))


@pytest.mark.parametrize("tier", ["flex", "priority", "auto"])
def test_a_service_tier_is_taken_where_the_row_has_a_factor_for_it(tier: str) -> None:
    request = chat(service_tier=tier)
    assert request.service_tier == tier
    check_for(request, priced(service_tiers={tier: "2"}))
    others = {"flex": "1", "priority": "1", "auto": "1"}
    del others[tier]
    assert refused({"service_tier": tier}, priced(service_tiers=others)) == ("unsupported_parameter", "service_tier")


def test_a_tier_with_two_names_has_the_price_of_the_one_that_the_reply_will_say() -> None:
    assert chat(service_tier="fast").service_tier == "priority"
    check_for(chat(service_tier="fast"), priced(service_tiers={"priority": "2"}))
    assert refused({"service_tier": "fast"}, priced(service_tiers={"fast": "2"}))[1] == "service_tier"


def test_what_one_of_several_deployments_prices_is_not_refused() -> None:
    deployments = [{"name": "deaf"}, {"name": "hears", "audio_input_cost": "0.00004", "service_tiers": {"flex": 1}}]
    row = priced(deployments=deployments)
    check_for(chat(**HEARD, service_tier="flex"), row)
    deaf, hears = (deployment for _, deployment in row.rows())
    refusal = unpriced(chat(**HEARD), deaf)
    assert refusal is not None
    assert refusal.param == "messages[1].content[1].type"
    assert unpriced(chat(**HEARD), hears) is None


def test_a_file_is_bounded_by_what_it_is_reserved_at() -> None:
    request = chat(**holding({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}))
    check_for(request, ROW)
    assert (request.attachments.files, request.attachments.data_bytes) == (1, 32)


def test_a_file_that_the_vendor_keeps_is_bounded_too() -> None:
    request = chat(**holding({"type": "file", "file": {"file_id": "file-1"}}))
    assert (request.attachments.files, request.attachments.data_bytes) == (1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "default"},
        {"service_tier": None},
        {"modalities": ["text"]},
        {"web_search_options": None},
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]},
        {"tools": None},
    ],
)
def test_the_values_that_change_no_price_pass(fields: dict[str, Any]) -> None:
    request = chat(**fields)
    check_for(request, ROW)
    assert request.payload == {"messages": HELLO} | fields
