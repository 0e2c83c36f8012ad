"""Messages requests, and those that only count tokens: their bodies checked.

Fields that the gateway does not know pass to a provider that speaks the dialect, unless they change the price.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field
from typing_extensions import override

from model_gateway.dialects.answers import PassOn, Reader, Writer
from model_gateway.dialects.chat import ChatRequest, ChatUsage
from model_gateway.dialects.messages import content
from model_gateway.dialects.messages.naming import own_name
from model_gateway.dialects.messages.reading import CountReader, MessagesReader
from model_gateway.dialects.messages.to_chat import chat_payload
from model_gateway.dialects.messages.writing import MessageWriter
from model_gateway.dialects.request import Request
from model_gateway.dialects.strict_json import Checked, parse_object
from model_gateway.errors import GatewayError

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Block(Checked):
    type: str
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    input: dict[str, Any] | None = None
    is_error: bool | None = None
    title: str | None = None
    context: str | None = None
    source: dict[str, Any] | str | None = None
    content: str | Annotated[list[_Block], Field(fail_fast=True)] | None = None


class _SystemBlock(Checked):
    type: Literal["text"]
    text: str


class _Message(Checked):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[_Block], Field(fail_fast=True)]


class _Tool(Checked):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _ToolChoice(Checked):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Checked):
    type: str
    budget_tokens: Annotated[int, Field(gt=0)] | None = None
    display: str | None = None


class _Format(Checked):
    type: str
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class _OutputConfig(Checked):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(Checked):
    user_id: str | None = None


class _Edit(Checked):
    type: str


class _ContextManagement(Checked):
    edits: Annotated[list[_Edit], Field(fail_fast=True)] | None = None


class _Body(Checked):
    model: str | None = None
    messages: Annotated[list[_Message], Field(min_length=1, fail_fast=True)]
    system: str | Annotated[list[_SystemBlock], Field(fail_fast=True)] | None = None
    stream: bool | None = None
    metadata: _Metadata | None = None
    stop_sequences: Annotated[list[str], Field(fail_fast=True)] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    tools: Annotated[list[_Tool], Field(fail_fast=True)] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    context_management: _ContextManagement | None = None
    mcp_servers: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


class _BoundedBody(_Body):
    max_tokens: Annotated[int, Field(ge=0)]


_UNIONS: Final = frozenset({"str", "dict[str,any]", "list[_Block]", "list[_SystemBlock]"})

_FREE_TIERS: Final = frozenset({None, "auto", "standard_only"})
"""``auto`` may be served by capacity that is paid for already: it costs no more than the usual."""

_UNPRICED: Final[Mapping[str, tuple[Any, ...]]] = {
    "speed": (None, "standard"),
    "inference_geo": (None, "global"),
    "mcp_servers": (None, []),
    "container": (None,),
    "fallbacks": (None, []),
    "fallback_credit_token": (None,),
    "billing_policy": (None,),
    "thread": (None,),
}
"""Fields that change what a call costs or how much is read, and that no row can price; with the values that do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRequest(Request):
    """A checked messages request."""

    operation: ClassVar[str] = "messages"

    @override
    def texts(self) -> Iterator[str]:
        yield from content.texts(self.payload)

    @override
    def to_chat(self) -> ChatRequest:
        return ChatRequest(
            payload=chat_payload(self.payload),
            model=self.model,
            stream=self.stream,
            include_usage=True,
            output_bound=self.output_bound,
            bound_param=self.bound_param,
            attachments=self.attachments,
        )

    @override
    def own_name(self, param: str) -> str:
        return own_name(self.payload, param)

    @override
    def native_body(self, engine: str, output_bound: int) -> dict[str, Any]:
        return {**self.payload, "model": engine}

    @override
    def native_reader(self) -> Reader:
        return MessagesReader()

    @override
    def native_writer(self) -> Writer:
        return PassOn(dropped=("ping",))

    @override
    def chat_writer(self, model: str, usage_of: ChatUsage) -> Writer:
        shown = (self.payload.get("thinking") or {}).get("display") != "omitted"
        return MessageWriter(model, show_thinking=shown, usage_of=usage_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTokensRequest(MessagesRequest):
    """The same, asking only how many tokens it has: free, and never streamed."""

    operation: ClassVar[str] = "count_tokens"

    @override
    def to_chat(self) -> ChatRequest:
        raise GatewayError("unsupported_operation", "a count can't be asked for as a chat completion", billed=False)

    @override
    def native_reader(self) -> Reader:
        return CountReader()

    @override
    def native_writer(self) -> Writer:
        return PassOn()


def parse_messages(body: bytes, *, max_choices: int = 16) -> MessagesRequest:
    """Check a messages request's body.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload, checked = parse_object(body, _BoundedBody, _UNIONS)
    return MessagesRequest(
        payload=payload,
        model=checked.model or "",
        stream=bool(checked.stream),
        output_bound=checked.max_tokens,
        bound_param="max_tokens",
        attachments=content.attachments(payload),
        service_tier="" if checked.service_tier in _FREE_TIERS else str(checked.service_tier),
        priced=_priced(payload),
    )


def parse_count_tokens(body: bytes, *, max_choices: int = 16) -> CountTokensRequest:
    """Check the body of a request that counts tokens.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload, checked = parse_object(body, _Body, _UNIONS)
    if checked.stream:
        raise GatewayError("unsupported_parameter", "stream is not known to count_tokens", param="stream", billed=False)
    return CountTokensRequest(payload=payload, model=checked.model or "", attachments=content.attachments(payload))


def _priced(payload: dict[str, Any]) -> dict[str, str]:
    """What changes the price, by its path. No row has a price for any of it."""
    found = [name for name, free in _UNPRICED.items() if payload.get(name) not in free]
    found += [f"tools[{index}].type" for index, tool in enumerate(payload.get("tools") or ()) if not _is_custom(tool)]
    edits = (payload.get("context_management") or {}).get("edits") or ()
    found += [
        f"context_management.edits[{index}].type"
        for index, edit in enumerate(edits)
        if not edit["type"].startswith("clear_")
    ]
    return dict.fromkeys(found, "") | content.unbounded(payload)


def _is_custom(tool: dict[str, Any]) -> bool:
    """Whether the client runs the tool; any other adds tokens of its own to the prompt, or is billed by use."""
    return tool.get("type") in (None, "custom")


__all__ = ["CountTokensRequest", "MessagesRequest", "parse_count_tokens", "parse_messages"]
