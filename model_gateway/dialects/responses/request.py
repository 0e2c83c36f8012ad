"""A response request: checked, and put to a provider that speaks responses itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson
from typing_extensions import override

from model_gateway.dialects.answers import PassOn, Reader, Writer
from model_gateway.dialects.chat import ChatRequest, ChatUsage
from model_gateway.dialects.request import Attachments, Request, openai_tier, refuse_fields
from model_gateway.dialects.responses.body import ITEMS, PARTS, TAGS, Body, item_kind
from model_gateway.dialects.responses.naming import own_name
from model_gateway.dialects.responses.reading import ResponsesReader
from model_gateway.dialects.responses.to_chat import chat_payload
from model_gateway.dialects.responses.writing import ResponsesWriter
from model_gateway.dialects.strict_json import parse_object, unsupported
from model_gateway.errors import GatewayError

_KEEPS_NONE: Final = "can't be used here: the gateway keeps no responses; send the whole input with each request"
_STATEFUL: Final[Mapping[str, str]] = dict.fromkeys(
    ("previous_response_id", "conversation", "prompt", "background", "background_options", "store"), _KEEPS_NONE
)
"""Fields that need something kept from one request to the next."""

_FREE_TTLS: Final = (None, "30m")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesRequest(Request):
    """A checked response request."""

    operation: ClassVar[str] = "responses"

    @override
    def texts(self) -> Iterator[str]:
        if self.payload.get("instructions"):
            yield self.payload["instructions"]
        given = self.payload["input"]
        if isinstance(given, str):
            yield given
        else:
            yield from map(_item_text, given)
        parts = (self.payload.get("tools"), (self.payload.get("text") or {}).get("format"))
        yield from (orjson.dumps(part).decode() for part in parts if part)

    @override
    def to_chat(self) -> ChatRequest:
        """The same as a chat completion.

        The output bound stands in ``output_bound`` alone: whoever sends it knows the provider's field for it.
        """
        return ChatRequest(
            payload=chat_payload(self.payload),
            model=self.model,
            stream=self.stream,
            include_usage=True,
            output_bound=self.output_bound,
            bound_param=self.bound_param,
            attachments=self.attachments,
            service_tier=self.service_tier,
            priced=self.priced,
        )

    @override
    def own_name(self, param: str) -> str:
        return own_name(self.payload, param)

    @override
    def native_body(self, engine: str, output_bound: int) -> dict[str, Any]:
        """The client's own; not to be stored, which the vendor would do where nothing is said."""
        bound = self.output_bound or output_bound
        return {**self.payload, "model": engine, "max_output_tokens": bound, "store": False}

    @override
    def native_reader(self) -> Reader:
        return ResponsesReader()

    @override
    def native_writer(self) -> Writer:
        return PassOn()

    @override
    def chat_writer(self, model: str, usage_of: ChatUsage) -> Writer:
        return ResponsesWriter(self.payload, model, usage_of)


def parse_responses(body: bytes, *, max_choices: int = 16) -> ResponsesRequest:
    """Check a response request's body.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload, checked = parse_object(body, Body, TAGS)
    _refuse_state(payload)
    _refuse_unpriced(payload)
    _refuse_unbounded(payload)
    return ResponsesRequest(
        payload=payload,
        model=checked.model or "",
        stream=bool(checked.stream),
        output_bound=checked.max_output_tokens,
        bound_param="max_output_tokens",
        attachments=sum((_attachment(part) for _, part in _parts(payload)), Attachments()),
        service_tier=openai_tier(checked.service_tier),
        priced={f"{path}.type": "audio_input_cost" for path, part in _parts(payload) if part["type"] == "input_audio"},
    )


def _refuse_state(payload: dict[str, Any]) -> None:
    refuse_fields(payload, _STATEFUL)
    if _member(payload, "prompt_cache_options", "comparison_response_id") is not None:
        raise unsupported("prompt_cache_options.comparison_response_id", _KEEPS_NONE)
    for index, item in enumerate(_items(payload)):
        if item_kind(item) == "item_reference":
            raise unsupported(f"input[{index}]", f"refers to an item of an earlier response, which {_KEEPS_NONE}")


def _refuse_unpriced(payload: dict[str, Any]) -> None:
    """Refuse fields that change the price in a way that no row can say."""
    if payload.get("context_management"):
        raise _no_price("context_management")
    if _member(payload, "reasoning", "mode") not in (None, "standard"):
        raise _no_price("reasoning.mode")
    if _member(payload, "prompt_cache_options", "ttl") not in _FREE_TTLS:
        raise _no_price("prompt_cache_options.ttl")
    for index, tool in enumerate(payload.get("tools") or ()):
        if tool["type"] not in ("function", "custom"):
            raise _no_price(f"tools[{index}].type")


def _refuse_unbounded(payload: dict[str, Any]) -> None:
    """Refuse items and parts whose tokens have no bound, as they may point at something of any size."""
    for index, item in enumerate(_items(payload)):
        if item_kind(item) not in ITEMS:
            raise unsupported(f"input[{index}].type", f"is {item['type']!r}, which belongs to what is not offered here")
    for path, part in _parts(payload):
        if part["type"] not in PARTS:
            raise _no_price(f"{path}.type")
        if _member(part, "prompt_cache_breakpoint", "ttl") not in _FREE_TTLS:
            raise _no_price(f"{path}.prompt_cache_breakpoint.ttl")


def _no_price(param: str) -> GatewayError:
    return unsupported(param, "changes what the call costs, and this model has no price for it; leave it out")


def _member(holder: Mapping[str, Any], name: str, member: str) -> Any:
    return (holder.get(name) or {}).get(member)


def _items(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = payload["input"]
    return given if isinstance(given, list) else []


def _parts(payload: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Content parts with their paths: of messages, and of what tools gave."""
    for number, item in enumerate(_items(payload)):
        name = "content" if item_kind(item) == "message" else "output"
        content = item.get(name)
        if isinstance(content, list):
            yield from ((f"input[{number}].{name}[{index}]", part) for index, part in enumerate(content))


def _attachment(part: Mapping[str, Any]) -> Attachments:
    match part["type"]:
        case "input_image":
            return Attachments(images=1, data_bytes=_inline(part.get("image_url")))
        case "input_file":
            return Attachments(files=1, data_bytes=_inline(part.get("file_data")))
        case "input_audio":
            data = part["input_audio"]["data"]
            return Attachments(audios=1, data_bytes=len(data) if data.isascii() else 0)
    return Attachments()


def _inline(url: str | None) -> int:
    """Bytes of a data URL, which are no text."""
    return len(url) if url and url.isascii() and url.startswith("data:") else 0


def _item_text(item: Mapping[str, Any]) -> str:
    """Everything in an item that a model reads as text."""
    said = [item.get(name) for name in ("content", "output", "name", "arguments", "input", "encrypted_content")]
    return "".join(text for value in said for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (part["text"] for part in value if isinstance(part.get("text"), str))
