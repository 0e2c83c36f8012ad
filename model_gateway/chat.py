"""The chat request: one strict JSON scan, checked field by field, with what the gateway needs to know of it.

Fields that the gateway does not know pass through untouched, unless they change the price.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import jiter
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_gateway.errors import GatewayError

_HUGE_EXPONENT: Final = re.compile(rb"\d[eE]\+?\d{3}")
_MAX_INT: Final = 2**63

Positive = Annotated[int, Field(gt=0)]


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


# Lists fail at their first bad item: a report of every one of a million costs seconds and gigabytes.


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)
    type: str


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[_Part], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None


class _Tool(BaseModel):
    model_config = ConfigDict(strict=True)
    type: str


class _Body(BaseModel):
    """The fields that are checked; the rest is the provider's business."""

    model_config = ConfigDict(strict=True)
    model: str | None = None
    messages: Annotated[list[_Message], Field(min_length=1, fail_fast=True)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    tools: Annotated[list[_Tool], Field(fail_fast=True)] | None = None
    user: str | None = None


_PRICED: Final = ("web_search_options", "audio", "prediction", "service_tier", "modalities")
"""Fields that change what a call costs; refused, as no row prices them."""

_FREE_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "service_tier": (None, "default"),
    "modalities": (None, ["text"]),
}
_BOUNDED_PARTS: Final = frozenset({"text", "refusal", "image_url"})
"""Content parts whose input tokens have a bound; any other may point at something of any size."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat request.

    Attributes:
        payload: the whole body, parsed; unknown fields included.
        model: the body's ``model``, or empty.
        stream: whether the reply is a stream.
        include_usage: whether a streamed reply ends with usage.
        output_bound: the client's own bound on output tokens, or None.
        choices: ``n``.
        images: how many images it holds.
        data_bytes: bytes of inline image data, which are no text.
    """

    payload: dict[str, Any]
    model: str
    stream: bool
    include_usage: bool
    output_bound: int | None
    choices: int
    images: int
    data_bytes: int

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, as sent."""
        messages: list[dict[str, Any]] = self.payload["messages"]
        return messages

    def text(self) -> Iterator[str]:
        """Every text in the messages, for counting tokens."""
        for message in self.messages:
            content = message.get("content")
            if isinstance(content, str):
                yield content
            elif content:
                yield from (part["text"] for part in content if isinstance(part.get("text"), str))

    def schemas(self) -> Iterator[str]:
        """What else a model reads, as JSON text: tools, their calls, the format of the answer."""
        parts = [self.payload.get(name) for name in ("tools", "functions", "response_format")]
        parts += [message.get("tool_calls") for message in self.messages]
        yield from (orjson.dumps(part).decode() for part in parts if part)


def parse_json(body: bytes) -> Any:
    """JSON by the strict rules: no duplicate keys, NaN, lone surrogates, huge numbers or deep nesting.

    Raises:
        GatewayError: ``invalid_json``.
    """
    try:
        value = jiter.from_json(
            body, catch_duplicate_keys=True, allow_inf_nan=False, partial_mode=False, cache_mode="none"
        )
    except ValueError as error:
        raise GatewayError("invalid_json", f"the body is not valid JSON: {error}") from None
    if _HUGE_EXPONENT.search(body) or re.search(rb"\d{19}", body):
        _check_numbers(value)
    return value


def _check_numbers(root: Any) -> None:
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif (isinstance(value, float) and not math.isfinite(value)) or (
            isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT
        ):
            raise GatewayError("invalid_json", "the body holds a number beyond 64 bits")


def parse_chat(body: bytes, *, max_choices: int = 16) -> ChatRequest:
    """Check a chat completion's body.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload = parse_json(body)
    if not isinstance(payload, dict):
        raise GatewayError("invalid_type", "the body must be a JSON object")
    try:
        checked = _Body.model_validate(payload)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_input=False)) from None
    _refuse_unpriced(payload)
    _bound("n", checked.n, max_choices)
    images, data_bytes = _images(payload["messages"])
    return ChatRequest(
        payload=payload,
        model=checked.model or "",
        stream=bool(checked.stream),
        include_usage=bool(checked.stream_options and checked.stream_options.include_usage),
        output_bound=max(checked.max_completion_tokens or 0, checked.max_tokens or 0) or None,
        choices=checked.n or 1,
        images=images,
        data_bytes=data_bytes,
    )


def check_output_bound(request: ChatRequest, max_tokens: int) -> None:
    """Refuse an output bound beyond the model's.

    Raises:
        GatewayError: 400 ``invalid_value``.
    """
    for name in ("max_completion_tokens", "max_tokens"):
        _bound(name, request.payload.get(name), max_tokens)


def _bound(name: str, value: int | None, most: int) -> None:
    if value is not None and value > most:
        raise GatewayError("invalid_value", f"{name} is {value}, at most {most} is allowed here", param=name)


def _invalid(errors: list[Any]) -> GatewayError:
    """One of Pydantic's complaints, in OpenAI's terms: the deepest, since of a union's it is the one that fits."""
    error = max(errors, key=lambda found: len(found["loc"]))
    location = [part for part in error["loc"] if not (isinstance(part, str) and part in _UNION_TAGS)]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if error["type"] == "missing":
        return GatewayError("missing_required_parameter", f"{param} is required", param=param)
    code = "invalid_type" if error["type"].endswith("_type") else "invalid_value"
    return GatewayError(code, f"{param}: {error['msg']}", param=param)


_UNION_TAGS: Final = frozenset({"str", "list[_Part]", "list[str]"})


def _refuse_unpriced(payload: dict[str, Any]) -> None:
    for name in _PRICED:
        if name in payload and payload[name] not in _FREE_VALUES.get(name, (None,)):
            raise _unpriced(name)
    for index, tool in enumerate(payload.get("tools") or ()):
        if tool["type"] not in ("function", "custom"):
            raise _unpriced(f"tools[{index}].type")


def _unpriced(param: str) -> GatewayError:
    return GatewayError(
        "unsupported_parameter",
        f"{param} changes what the call costs, and this model has no price for it; leave it out",
        param=param,
    )


def _images(messages: list[dict[str, Any]]) -> tuple[int, int]:
    """How many images, and how many bytes of them are inline."""
    count = data_bytes = 0
    for number, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for index, part in enumerate(content):
            if part["type"] not in _BOUNDED_PARTS:
                raise _unpriced(f"messages[{number}].content[{index}].type")
            if part["type"] == "image_url":
                count += 1
                data_bytes += _inline_bytes(part.get("image_url"))
    return count, data_bytes


def _inline_bytes(image: Any) -> int:
    url = image.get("url") if isinstance(image, dict) else image
    return len(url) if isinstance(url, str) and url.startswith("data:") and url.isascii() else 0
