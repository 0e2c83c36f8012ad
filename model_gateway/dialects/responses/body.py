"""What is checked of a response request's body: its fields, items and content parts.

Each kind of item and part has a model of its own, found by a tag, so that an error names the path in the client's body
and not a branch of a union.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from model_gateway.dialects.strict_json import Checked

Positive = Annotated[int, Field(gt=0)]

_TEXT: Final = "<text>"
_LIST: Final = "<list>"
_NAME: Final = "<name>"
_OBJECT: Final = "<object>"
_UNKNOWN: Final = "<unknown>"


def _text_or_list(value: Any) -> str:
    return _TEXT if isinstance(value, str) else _LIST


def _name_or_object(value: Any) -> str:
    return _NAME if isinstance(value, str) else _OBJECT


def _by(kind_of: Callable[[Any], str], known: Mapping[str, str]) -> Discriminator:
    """Finds the model of an object by what it is."""
    return Discriminator(lambda value: known.get(kind_of(value), _UNKNOWN))


# -- content parts


def part_kind(part: Any) -> str:
    """The type of a content part; empty where it has none."""
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if isinstance(kind, str) else ""


class _Breakpoint(Checked):
    mode: str | None = None
    ttl: str | None = None


class _Part(Checked):
    type: str
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Text(_Part):
    text: str


class _Refusal(_Part):
    refusal: str


class _Image(_Part):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class _File(_Part):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


class _Sound(Checked):
    data: str
    format: str


class _Audio(_Part):
    input_audio: _Sound


_PART_TAGS: Final = {
    "input_text": "<text part>",
    "output_text": "<text part>",
    "refusal": "<refusal part>",
    "input_image": "<image part>",
    "input_file": "<file part>",
    "input_audio": "<audio part>",
}
PARTS: Final = frozenset(_PART_TAGS)
"""Content parts whose input tokens have a bound."""

_AnyPart = Annotated[
    Annotated[_Text, Tag("<text part>")]
    | Annotated[_Refusal, Tag("<refusal part>")]
    | Annotated[_Image, Tag("<image part>")]
    | Annotated[_File, Tag("<file part>")]
    | Annotated[_Audio, Tag("<audio part>")]
    | Annotated[_Part, Tag(_UNKNOWN)],
    _by(part_kind, _PART_TAGS),
]
_Parts = Annotated[list[_AnyPart], Field(fail_fast=True)]
_Content = Annotated[Annotated[str, Tag(_TEXT)] | Annotated[_Parts, Tag(_LIST)], Discriminator(_text_or_list)]


# -- items


def item_kind(item: Any) -> str:
    """The type of an input item; a message and a reference may leave it out."""
    if not isinstance(item, dict):
        return ""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if "id" in item else ""
    return kind if isinstance(kind, str) else ""


class _Message(Checked):
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content
    phase: str | None = None


class _Call(Checked):
    call_id: str
    name: str


class _FunctionCall(_Call):
    arguments: str


class _CustomCall(_Call):
    input: str


class _CallOutput(Checked):
    call_id: str
    output: _Content


class _Thought(Checked):
    text: str


_Thoughts = Annotated[list[_Thought], Field(fail_fast=True)]


class _Reasoning(Checked):
    summary: _Thoughts | None = None
    content: _Thoughts | None = None
    encrypted_content: str | None = None


class _Unknown(Checked):
    type: str


_ITEM_TAGS: Final = {
    "message": "<message item>",
    "function_call": "<function call>",
    "custom_tool_call": "<custom call>",
    "function_call_output": "<call output>",
    "custom_tool_call_output": "<call output>",
    "reasoning": "<reasoning item>",
    "item_reference": "<reference>",
}
ITEMS: Final = frozenset(_ITEM_TAGS) - {"item_reference"}
"""Items that stand for themselves, and belong to no tool that the provider runs."""

_Item = Annotated[
    Annotated[_Message, Tag("<message item>")]
    | Annotated[_FunctionCall, Tag("<function call>")]
    | Annotated[_CustomCall, Tag("<custom call>")]
    | Annotated[_CallOutput, Tag("<call output>")]
    | Annotated[_Reasoning, Tag("<reasoning item>")]
    | Annotated[Checked, Tag("<reference>")]
    | Annotated[_Unknown, Tag(_UNKNOWN)],
    _by(item_kind, _ITEM_TAGS),
]
_Items = Annotated[list[_Item], Field(min_length=1, fail_fast=True)]
_Input = Annotated[Annotated[str, Tag(_TEXT)] | Annotated[_Items, Tag(_LIST)], Discriminator(_text_or_list)]


# -- fields


class _Tool(Checked):
    type: str
    name: str | None = None


class _Choice(Checked):
    type: str


_ToolChoice = Annotated[
    Annotated[str, Tag(_NAME)] | Annotated[_Choice, Tag(_OBJECT)],
    Discriminator(_name_or_object),
]


class _Thinking(Checked):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class _Format(Checked):
    type: str


class _TextConfig(Checked):
    format: _Format | None = None
    verbosity: str | None = None


class _CacheOptions(Checked):
    ttl: str | None = None
    comparison_response_id: str | None = None


class _StreamOptions(Checked):
    include_obfuscation: bool | None = None


class Body(Checked):
    """The fields of a response request that are checked."""

    model: str | None = None
    input: _Input
    instructions: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[_Tool], Field(fail_fast=True)] | None = None
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Thinking | None = None
    text: _TextConfig | None = None
    include: Annotated[list[str], Field(fail_fast=True)] | None = None
    metadata: dict[str, str] | None = None
    truncation: str | None = None
    background: bool | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: _CacheOptions | None = None
    safety_identifier: str | None = None
    user: str | None = None


TAGS: Final = frozenset({_TEXT, _LIST, _NAME, _OBJECT, _UNKNOWN, *_PART_TAGS.values(), *_ITEM_TAGS.values()})
"""What stands in Pydantic's paths and in no client's body."""
