"""Chat completions, OpenAI's dialect and the gateway's inner language: the request, and its answers read and written.

Fields that the gateway does not know pass through untouched, unless they change the price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import orjson
from pydantic import Field
from typing_extensions import override

from model_gateway.dialects.answers import Piece, Reader, Writer
from model_gateway.dialects.request import Attachments, Request, bound, openai_tier
from model_gateway.dialects.saying import text_of
from model_gateway.dialects.strict_json import Checked, parse_object, unsupported
from model_gateway.money import Usage, usage_from_openai
from model_gateway.signing import clean_object

Positive = Annotated[int, Field(gt=0)]


class _StreamOptions(Checked):
    include_usage: bool | None = None


class _Part(Checked):
    type: str


class _Message(Checked):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[_Part], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None


class _Tool(Checked):
    type: str


class _Body(Checked):
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
    reasoning_effort: str | None = None
    service_tier: str | None = None
    user: str | None = None


_UNIONS: Final = frozenset({"str", "list[_Part]", "list[str]"})

_UNPRICED: Final = ("web_search_options", "prediction")
"""Fields that change what a call costs, and that no row can price."""

_PRICED_PARTS: Final[Mapping[str, str]] = {"input_audio": "audio_input_cost"}
_BOUNDED_PARTS: Final = frozenset({"text", "refusal", "image_url", "file", "input_audio"})
"""Content parts whose input tokens have a bound; any other may point at something of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(Request):
    """A checked chat completion.

    Attributes:
        include_usage: whether a streamed reply ends with usage.
    """

    operation: ClassVar[str] = "chat"
    include_usage: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, as sent."""
        messages: list[dict[str, Any]] = self.payload["messages"]
        return messages

    def text(self) -> Iterator[str]:
        """Every text in the messages."""
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

    @override
    def texts(self) -> Iterator[str]:
        yield from self.text()
        yield from self.schemas()

    @override
    def to_chat(self) -> ChatRequest:
        return self

    def native_body(self, engine: str, output_bound: int) -> dict[str, Any]:
        """Chat is the inner language: a provider gets its fields by ``ProviderInterface.complete``."""
        return {**self.payload, "model": engine, "max_tokens": output_bound}

    @override
    def native_reader(self) -> Reader:
        return ChatReader()

    @override
    def native_writer(self) -> Writer:
        return ChatWriter(include_usage=self.include_usage)

    @override
    def chat_writer(self, model: str, usage_of: ChatUsage) -> Writer:
        return ChatWriter(include_usage=self.include_usage)


def parse_chat(body: bytes, *, max_choices: int = 16) -> ChatRequest:
    """Check a chat completion's body.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload, checked = parse_object(body, _Body, _UNIONS)
    priced = _priced(payload)
    bound("n", checked.n, max_choices)
    bounds = {name: getattr(checked, name) or 0 for name in ("max_completion_tokens", "max_tokens")}
    param = max(bounds, key=lambda name: bounds[name])
    return ChatRequest(
        payload=payload,
        model=checked.model or "",
        stream=bool(checked.stream),
        include_usage=bool(checked.stream_options and checked.stream_options.include_usage),
        output_bound=bounds[param] or None,
        bound_param=param,
        choices=checked.n or 1,
        attachments=_attachments(payload["messages"]),
        service_tier=openai_tier(checked.service_tier),
        priced=priced,
    )


def _priced(payload: dict[str, Any]) -> dict[str, str]:
    """Fields that change the price, with the kind of price that each needs.

    Raises:
        GatewayError: for what no row can price.
    """
    for name in _UNPRICED:
        if payload.get(name) is not None:
            raise _no_price(name)
    for index, tool in enumerate(payload.get("tools") or ()):
        if tool["type"] not in ("function", "custom"):
            raise _no_price(f"tools[{index}].type")
    modalities = payload.get("modalities")
    if modalities not in (None, ["text"]):
        known = isinstance(modalities, list) and set(map(str, modalities)) <= {"text", "audio"}
        return {"modalities": "audio_output_cost" if known else ""} | _priced_parts(payload["messages"])
    if payload.get("audio") is not None:
        return {"audio": "audio_output_cost"} | _priced_parts(payload["messages"])
    return _priced_parts(payload["messages"])


def _priced_parts(messages: list[dict[str, Any]]) -> dict[str, str]:
    found = {}
    for path, part in _parts(messages):
        if part["type"] in _PRICED_PARTS:
            found[f"{path}.type"] = _PRICED_PARTS[part["type"]]
    return found


def _parts(messages: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            yield from ((f"messages[{number}].content[{index}]", part) for index, part in enumerate(content))


def _attachments(messages: list[dict[str, Any]]) -> Attachments:
    """What the parts carry besides text.

    Raises:
        GatewayError: a part whose size nobody can bound.
    """
    found = Attachments()
    for path, part in _parts(messages):
        if part["type"] not in _BOUNDED_PARTS:
            raise _no_price(f"{path}.type")
        found += _attachment(part)
    return found


def _attachment(part: dict[str, Any]) -> Attachments:
    match part["type"]:
        case "image_url":
            return Attachments(images=1, data_bytes=_inline(part.get("image_url"), "url"))
        case "file":
            return Attachments(files=1, data_bytes=_inline(part.get("file"), "file_data"))
        case "input_audio":
            return Attachments(audios=1, data_bytes=_inline(part.get("input_audio"), "data"))
    return Attachments()


def _inline(holder: Any, name: str) -> int:
    """Bytes of inline data, which are no text: a data URL, or base64."""
    data = holder.get(name) if isinstance(holder, dict) else holder
    if not isinstance(data, str) or not data.isascii():
        return 0
    return len(data) if name == "data" or data.startswith("data:") else 0


def _no_price(param: str) -> Exception:
    return unsupported(param, "changes what the call costs, and this model has no price for it; leave it out")


ChatUsage = Callable[[Mapping[str, Any]], Usage | None]


def chat_usage(members: Mapping[str, Any]) -> Usage | None:
    """Tokens by kind out of a completion or a chunk; None where it tells none."""
    return usage_from_openai(members.get("usage"), members.get("service_tier"))


class ChatReader(Reader):
    """Reads chat completions and their chunks."""

    def __init__(self, usage_of: ChatUsage = chat_usage) -> None:
        super().__init__()
        self._usage_of = usage_of
        self._seen: set[int] = set()
        self._finished: dict[int, str] = {}

    @property
    @override
    def complete(self) -> bool:
        return bool(self._finished) and self._seen <= self._finished.keys()

    @override
    def reply(self, parsed: dict[str, Any]) -> None:
        self.usage = self._usage_of(parsed)
        choices = choices_of(parsed)
        self._said += [text_of(choice.get("message")) for choice in choices]
        self.finish_reason = str(choices[0].get("finish_reason") or "") if choices else ""

    @override
    def chunk(self, parsed: dict[str, Any]) -> None:
        self.usage = self._usage_of(parsed) or self.usage
        for choice in choices_of(parsed):
            index = index_of(choice)
            self._seen.add(index)
            self._said.append(text_of(choice.get("delta")))
            if choice.get("finish_reason"):
                self._finished[index] = str(choice["finish_reason"])
                self.finish_reason = self.finish_reason or self._finished[index]
                self.finishing = True


class ChatWriter(Writer):
    """Passes chat completions on byte for byte; usage that the client did not ask for is taken out of chunks."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage

    @override
    def reply(self, parsed: dict[str, Any], text: bytes) -> bytes:
        return clean_object(text, parsed, one_line=False)

    @override
    def chunk(self, parsed: dict[str, Any], text: bytes) -> Iterator[Piece]:
        unasked = "usage" in parsed and not self._include_usage
        if unasked and not parsed.get("choices"):
            return
        yield Piece(clean_object(text, parsed, one_line=True, without=("usage",) if unasked else ()))


def choices_of(parsed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices of a completion or chunk that are objects."""
    choices = parsed.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def index_of(choice: Mapping[str, Any]) -> int:
    """Which choice it is; servers that give one only may not number it."""
    index = choice.get("index")
    return index if isinstance(index, int) else 0
