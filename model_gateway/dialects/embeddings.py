"""Embeddings, OpenAI's dialect: text in, vectors out, in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Discriminator, Field, Tag
from typing_extensions import override

from model_gateway.dialects.answers import PassOn, Reader, Writer
from model_gateway.dialects.chat import ChatRequest, ChatUsage
from model_gateway.dialects.request import Request
from model_gateway.dialects.strict_json import Checked, parse_object, unsupported
from model_gateway.errors import GatewayError
from model_gateway.money import embedding_usage

_MAX_INPUTS: Final = 2048
_TEXT: Final = "<text>"
_TEXTS: Final = "<texts>"
_TOKENS: Final = "<tokens>"
_LISTS: Final = "<token lists>"


def _kind(value: Any) -> str:
    """What an input is meant to be, by its first item."""
    if isinstance(value, str):
        return _TEXT
    first = value[0] if isinstance(value, list) and value else ""
    if isinstance(first, list):
        return _LISTS
    return _TOKENS if isinstance(first, int) and not isinstance(first, bool) else _TEXTS


_Token = Annotated[int, Field(ge=0, lt=2**31)]
_Tokens = Annotated[list[_Token], Field(min_length=1, fail_fast=True)]
_Texts = Annotated[list[str], Field(min_length=1, max_length=_MAX_INPUTS, fail_fast=True)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1, max_length=_MAX_INPUTS, fail_fast=True)]
_Input = Annotated[
    Annotated[str, Tag(_TEXT)]
    | Annotated[_Texts, Tag(_TEXTS)]
    | Annotated[_Tokens, Tag(_TOKENS)]
    | Annotated[_TokenLists, Tag(_LISTS)],
    Discriminator(_kind),
]
_TAGS: Final = frozenset({_TEXT, _TEXTS, _TOKENS, _LISTS})
"""What stands in Pydantic's paths and in no client's body."""


class _Body(Checked):
    model: str | None = None
    input: _Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(gt=0, le=100_000)] | None = None
    user: str | None = None


_OWN_FIELDS: Final = frozenset({"model", "input", "stream"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsRequest(Request):
    """A checked embeddings request."""

    operation: ClassVar[str] = "embeddings"

    @property
    def inputs(self) -> list[Any]:
        """The inputs as a list: texts, or lists of tokens."""
        given = self.payload["input"]
        return given if isinstance(given, list) and not isinstance(given[0], int) else [given]

    @property
    def fields(self) -> dict[str, Any]:
        """The other fields that are set, for the provider."""
        return {name: value for name, value in self.payload.items() if name not in _OWN_FIELDS and value is not None}

    @override
    def texts(self) -> Iterator[str]:
        yield from (item for item in self.inputs if isinstance(item, str))

    def token_inputs(self) -> int:
        """Tokens that came as numbers."""
        return sum(len(item) for item in self.inputs if isinstance(item, list))

    @override
    def to_chat(self) -> ChatRequest:
        raise GatewayError("unsupported_operation", "embeddings can't be asked for as a chat completion", billed=False)

    @override
    def native_body(self, engine: str, output_bound: int) -> dict[str, Any]:
        return {**self.payload, "model": engine}

    @override
    def native_reader(self) -> Reader:
        return EmbeddingsReader()

    @override
    def native_writer(self) -> Writer:
        return PassOn()

    @override
    def chat_writer(self, model: str, usage_of: ChatUsage) -> Writer:
        return PassOn()


def parse_embeddings(body: bytes, *, max_choices: int = 16) -> EmbeddingsRequest:
    """Check an embeddings request's body.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload, checked = parse_object(body, _Body, _TAGS)
    if payload.get("stream"):
        raise unsupported("stream", "is not known to embeddings")
    return EmbeddingsRequest(payload=payload, model=checked.model or "")


class EmbeddingsReader(Reader):
    """Reads what embeddings cost."""

    @property
    @override
    def complete(self) -> bool:
        return False

    @override
    def reply(self, parsed: dict[str, Any]) -> None:
        self.usage = embedding_usage(parsed.get("usage"))

    @override
    def chunk(self, parsed: dict[str, Any]) -> None:
        raise AssertionError("embeddings are not streamed")
