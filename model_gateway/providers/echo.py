"""A provider that answers with what it was asked: offline and deterministic, for demos, tests and benchmarks.

Its embeddings are made of hashes: the same text has the same vector, and that is all they say.

It counts tokens its own way, one for every 4 bytes of UTF-8 or part of them: a real encoding costs a second
and 90 MB to load, and this one can be cut exactly at ``max_tokens``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_gateway.dialects.refusing import is_nothing
from model_gateway.errors import GatewayError
from model_gateway.providers.interface import ProviderInterface, ProviderSettings
from model_gateway.providers.refusing import Refusing
from model_gateway.settings import ConfigError

CREATED: Final = 1_735_689_600
"""The ``created`` of every reply, 2025-01-01 UTC: with a clock, two replies to one request would differ."""

TOKEN_BYTES: Final = 4

DIMENSIONS: Final = 64
"""Numbers in an embedding, where the request does not say."""

MAX_NUMBERS: Final = 2**18
"""Numbers in all embeddings of one reply, since making them takes the processor and nobody else's."""

Milliseconds = Annotated[float, Field(ge=0, le=3_600_000)]


class EchoOptions(BaseModel):
    """The ``options`` of an echo row.

    Attributes:
        delay_ms: before the answer, or its first chunk.
        chunk_delay_ms: before each further chunk.
        chunk_chars: characters in one chunk.
        usage: whether usage is reported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    delay_ms: Milliseconds = 0
    chunk_delay_ms: Milliseconds = 0
    chunk_chars: Annotated[int, Field(gt=0)] = 16
    usage: bool = True


@dataclass(frozen=True, slots=True)
class _Answer:
    """What there is to say; ``head`` is the start of every JSON text that says it."""

    head: bytes
    text: str
    finish: str
    choices: int
    usage: Mapping[str, int]


_KNOWN: Final = frozenset({"n", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"})
_NO_EFFECT: Final = frozenset(
    {
        *("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort"),
        *("verbosity", "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"),
        *("parallel_tool_calls", "tool_choice"),
    }
)
"""Fields that change nothing in an answer that is not thought up."""


class _Terms(Refusing):
    api: ClassVar[str] = "echo"


class EchoProvider(ProviderInterface):
    """Answers with the text of the last user message. Fields that ask for more than that are refused."""

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self.options = _options(self.settings)

    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> bytes:
        """The last user message, as a chat completion."""
        self._check(kwargs)
        answer = _answer(messages, model, "chat.completion", kwargs)
        await self._pause(self.options.delay_ms)
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = orjson.dumps({"message": message, "logprobs": None, "finish_reason": answer.finish})[1:]
        choices = b",".join(b'{"index":%d,%b' % (index, choice) for index in range(answer.choices))
        usage = b',"usage":%b' % orjson.dumps(answer.usage) if self.options.usage else b""
        return b"%b%b]%b}" % (answer.head, choices, usage)

    async def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[bytes]:
        """The same in chunks, with usage in a last one that has no choices."""
        self._check(kwargs)
        answer = _answer(messages, model, "chat.completion.chunk", kwargs)
        await self._pause(self.options.delay_ms)
        for number, chunk in enumerate(self._chunks(answer)):
            if number:
                await self._pause(self.options.chunk_delay_ms)
            yield chunk

    def _check(self, fields: Mapping[str, Any]) -> None:
        terms = _Terms(self.settings.drop_params)
        for name, value in fields.items():
            if name not in _KNOWN | _NO_EFFECT and not is_nothing(value) and value != {"type": "text"}:
                terms.refuse(name, "is nothing that an echo can do")

    def _chunks(self, answer: _Answer) -> Iterator[bytes]:
        first, size = (
            orjson.dumps({"role": "assistant", "content": "", "refusal": None}),
            self.options.chunk_chars,
        )
        yield from _chunk(answer, first)
        for start in range(0, len(answer.text), size):
            text = orjson.dumps(answer.text[start : start + size])
            yield from _chunk(answer, b'{"content":%b}' % text)
        yield from _chunk(answer, b"{}", b'"%b"' % answer.finish.encode())
        if self.options.usage:
            yield b'%b],"usage":%b}' % (answer.head, orjson.dumps(answer.usage))

    async def embed(self, /, inputs: list[Any], model: str, **kwargs: Any) -> bytes:
        """A vector of length 1 for each input, made of a hash of it: equal inputs, and no others, are close.

        Raises:
            GatewayError: ``invalid_value``: more numbers than one reply may have.
        """
        size = kwargs.get("dimensions") or DIMENSIONS
        if size * len(inputs) > MAX_NUMBERS:
            why = f"{len(inputs)} inputs of {size} dimensions are more than {MAX_NUMBERS} numbers"
            raise GatewayError("invalid_value", why, param="dimensions", billed=False)
        await self._pause(self.options.delay_ms)
        form = kwargs.get("encoding_format")
        data = [
            {"object": "embedding", "index": index, "embedding": _embedding(given, size, form)}
            for index, given in enumerate(inputs)
        ]
        prompt = sum(_tokens(given) if isinstance(given, str) else len(given) for given in inputs)
        usage = {"usage": {"prompt_tokens": prompt, "total_tokens": prompt}} if self.options.usage else {}
        return orjson.dumps({"object": "list", "data": data, "model": model, **usage})

    async def _pause(self, milliseconds: float) -> None:
        if milliseconds:
            await asyncio.sleep(milliseconds / 1000)

    def count_tokens(self, text: str, model: str) -> int:
        """Tokens in ``text``, by echo's own encoding."""
        return _tokens(text)


def _options(settings: ProviderSettings) -> EchoOptions:
    try:
        return EchoOptions.model_validate(dict(settings.options))
    except ValidationError as error:
        path = f"models.{settings.name}.options"
        problems = [f"{'.'.join((path, *map(str, found['loc'])))}: {found['msg']}" for found in error.errors()]
        raise ConfigError("config", problems) from None


def _answer(messages: list[dict[str, Any]], model: str, kind: str, fields: Mapping[str, Any]) -> _Answer:
    text = _last_user_text(messages) or "(empty)"
    meant = _before(text, fields.get("stop") or ())
    said = _within(meant, fields.get("max_completion_tokens") or fields.get("max_tokens"))
    choices = fields.get("n") or 1
    prompt = sum(_tokens(_text(message)) for message in messages)
    completion = _tokens(said) * choices
    digest = hashlib.sha256(orjson.dumps(messages)).hexdigest()[:24]
    return _Answer(
        head=b'{"id":"chatcmpl-echo-%b","object":"%b","created":%d,"model":%b,"choices":['
        % (digest.encode(), kind.encode(), CREATED, orjson.dumps(model)),
        text=said,
        finish="stop" if said == meant else "length",
        choices=choices,
        usage={
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    )


def _chunk(answer: _Answer, delta: bytes, finish: bytes = b"null") -> Iterator[bytes]:
    """One chunk for each choice; ``usage`` is null in all but the last, as OpenAI has it."""
    for index in range(answer.choices):
        yield b'%b{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}],"usage":null}' % (
            answer.head,
            index,
            delta,
            finish,
        )


def _embedding(given: Any, size: int, form: str | None) -> list[float] | str:
    """A vector: numbers, or in base64 the same ones as 4-byte floats, little-endian."""
    digest = hashlib.shake_128(orjson.dumps(given)).digest(4 * size)
    raw = struct.unpack(f"<{size}i", digest)
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    packed = struct.pack(f"<{size}f", *(number / length for number in raw))
    if form == "base64":
        return base64.b64encode(packed).decode()
    return list(struct.unpack(f"<{size}f", packed))


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    return next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return content or ""


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // TOKEN_BYTES)


def _before(text: str, stop: str | Sequence[str]) -> str:
    """The part of ``text`` in front of the first stop sequence."""
    places = [text.find(mark) for mark in ([stop] if isinstance(stop, str) else stop) if mark]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def _within(text: str, most: int | None) -> str:
    """The part of ``text`` that fits ``most`` tokens; never half a character."""
    if most is None:
        return text
    return text.encode()[: most * TOKEN_BYTES].decode(errors="ignore")
