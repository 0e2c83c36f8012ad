"""One call of a provider: what it answers becomes signed entries and an ``Outcome``. Knows nothing of delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import structlog

from gateway_worker.chunks import ChunkWriter, Emit
from gateway_worker.deployments import Deployment
from gateway_worker.dialogue import Dialogue, dialogue
from gateway_worker.records import Entry, LeaseLostError, Outcome
from model_gateway.dialects import DIALECTS, Dialect, Request
from model_gateway.dialects.answers import Piece
from model_gateway.dialects.naming import in_own_words
from model_gateway.errors import GatewayError
from model_gateway.money import Usage, openai_from_usage
from model_gateway.providers import JSONObject
from model_gateway.signing import ChunkChain, Keyring, NotAnObjectError, seal_reply, seal_text

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """What ties a reply to its request: its id, the digest of its body, its dialect, and the secret."""

    keyring: Keyring
    request_id: str
    request_sha256: str
    operation: str = "chat"

    @property
    def dialect(self) -> Dialect:
        """How the client is spoken to."""
        return DIALECTS[self.operation]


def error_entry(error: GatewayError, binding: Binding) -> Entry:
    """A whole error reply, signed, in the client's dialect; named too, as a stream may have been kept alive by then."""
    members = binding.dialect.error(error)
    data = seal_reply(orjson.dumps(members), binding.keyring, binding.request_id, binding.request_sha256)
    return Entry(
        "error",
        data,
        status=error.status,
        retry_after=error.retry_after,
        usd_nano=0,
        code=error.code,
        event=str(members.get("type", "")),
    )


def dead_letter_entry(error: GatewayError, keyring: Keyring) -> Entry:
    """An error reply to a request that could not be read; signed, but bound to nothing."""
    return Entry("error", seal_text(error.json(), keyring), status=error.status, usd_nano=0, code=error.code)


def chained_error(error: GatewayError, chain: ChunkChain, dialect: Dialect) -> Entry:
    """An error in the middle of a stream, as the chain's last link."""
    index, members = chain.index, dialect.stream_error(error)
    data = chain.seal(orjson.dumps(members), final=True)
    return Entry(
        "error",
        data,
        index,
        error.status,
        retry_after=error.retry_after,
        usd_nano=0,
        code=error.code,
        event=str(members.get("type", "")),
    )


def object_and_text(answer: JSONObject) -> tuple[dict[str, Any], bytes]:
    """A provider's object, parsed and as text, whichever it gave.

    Raises:
        GatewayError: ``upstream_invalid_response``.
    """
    try:
        if isinstance(answer, bytes):
            parsed, text = orjson.loads(answer), answer
        else:
            parsed, text = answer, orjson.dumps(answer)
    except (ValueError, TypeError) as error:
        raise GatewayError("upstream_invalid_response", "the provider did not answer in JSON") from error
    if not isinstance(parsed, dict):
        raise NotAnObjectError(f"expected a JSON object, got {type(parsed).__name__}")
    return parsed, text


@dataclass(slots=True)
class Call:
    """One attempt at one provider, whole or streamed. ``run`` may be cancelled; ``cancelled`` then says what is owed.

    Attributes:
        sent: whether the provider may have received the request.
    """

    deployment: Deployment
    request: Request
    binding: Binding
    emit: Emit
    clock: Callable[[], float]
    sent: bool = False
    _dialogue: Dialogue | None = field(init=False, default=None)
    _started: float = field(init=False)
    _ttft_ms: int | None = field(init=False, default=None)
    _chain: ChunkChain = field(init=False)
    _held: Piece | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._chain = ChunkChain(self.binding.keyring, self.binding.request_id, self.binding.request_sha256)

    async def run(self) -> Outcome:
        """Call the provider. Every error but a cancellation becomes a failed outcome."""
        row = self.deployment.row
        try:
            self._dialogue = dialogue(self.request, self.deployment)
            self.sent = True
            async with asyncio.timeout(row.timeout):
                return await (self._stream(self._dialogue) if self.request.stream else self._whole(self._dialogue))
        except TimeoutError:
            return self.failed(GatewayError("upstream_timeout", f"no complete answer within {row.timeout:g} s"))
        except LeaseLostError:
            raise
        except GatewayError as error:
            by_chat = self._dialogue is not None and self._dialogue.by_chat
            return self.failed(in_own_words(self.request, error) if by_chat else error)
        except NotAnObjectError as error:
            return self.failed(GatewayError("upstream_invalid_response", f"the provider's answer: {error}"))
        except Exception:  # noqa: BLE001 - a plug-in's bug is a failed call, not a lost request
            _log.exception("call.failed", model=self.deployment.name, request_id=self.binding.request_id)
            return self.failed(GatewayError("upstream_error", "the provider's adapter failed"))

    def failed(self, error: GatewayError) -> Outcome:
        """A failed outcome; unknown, unless nothing was sent or the provider is sure not to bill."""
        billed = error.billed and self.sent
        return Outcome(
            "failed",
            [self._error(error)],
            unknown=billed,
            error_code=error.code,
            ttft_ms=self._ttft_ms,
            estimated=billed,
            retry_after=error.retry_after,
            chunks=self._chain.index,
        )

    def cancelled(self) -> Outcome:
        """What was generated until now, paid for; a whole call that was sent is charged as unknown."""
        error = GatewayError("cancelled", "the request was cancelled")
        if not self.sent or self._dialogue is None:
            return Outcome("cancelled", [self._error(error)], error_code=error.code)
        if not self.request.stream:
            return Outcome("cancelled", [self._error(error)], unknown=True, estimated=True, error_code=error.code)
        usage, estimated = self._counted(self._dialogue)
        return Outcome(
            "cancelled",
            [self._error(error)],
            cost=self._cost(usage),
            usage=usage,
            estimated=estimated,
            error_code=error.code,
            ttft_ms=self._ttft_ms,
        )

    @property
    def _served_by(self) -> str:
        return f"{self.deployment.row.provider}:{self.deployment.name}"

    def _error(self, error: GatewayError) -> Entry:
        if self._chain.index:
            return chained_error(error, self._chain, self.binding.dialect)
        return error_entry(error, self.binding)

    # -- whole

    async def _whole(self, talk: Dialogue) -> Outcome:
        answer = await talk.whole()
        parsed, text = object_and_text(answer)
        talk.reader.reply(parsed)
        told = self._with_usage(talk, parsed)
        if told is not parsed and not isinstance(answer, bytes):  # the provider's own bytes stay as they are
            text = orjson.dumps(told)
        text = talk.writer.reply(told, text)
        binding = self.binding
        data = seal_reply(text, binding.keyring, binding.request_id, binding.request_sha256)
        return replace(self._done(talk), replies=[Entry("reply", data, served_by=self._served_by)])

    def _done(self, talk: Dialogue) -> Outcome:
        """The outcome of a call that succeeded, but for the end of its reply."""
        usage, estimated = self._counted(talk)
        return Outcome(
            "done",
            [],
            cost=self._cost(usage),
            usage=usage,
            estimated=estimated,
            finish_reason=talk.reader.finish_reason,
            ttft_ms=self._ttft_ms,
        )

    def _counted(self, talk: Dialogue) -> tuple[Usage, bool]:
        """The provider's usage, else our own count."""
        if talk.reader.usage is not None:
            return talk.reader.usage, False
        output = self.deployment.count_output(talk.reader.text)
        return Usage(input=self.deployment.count_input(self.request), output=output), True

    def _cost(self, usage: Usage) -> int:
        return self.deployment.cost(self.request, usage)

    # -- streamed

    async def _stream(self, talk: Dialogue) -> Outcome:
        """Pass events on as they come; from the first finish on, hold the newest until it is known to be the last."""
        reader, writer, first_within = talk.reader, talk.writer, self.deployment.row.first_token_timeout
        async with (
            ChunkWriter(self._chain, self.emit, self._served_by) as out,
            aclosing(_objects(talk, first_within)) as events,
        ):
            async for parsed, text in events:
                self._note_first()
                reader.chunk(parsed)
                for piece in writer.chunk(parsed, text):
                    await self._pass_on(out, piece, hold=reader.finishing)
            if not reader.complete:
                raise GatewayError("upstream_truncated", "the provider's stream ended before it was finished")
            for piece in self._last_words(talk, parsed):
                await self._pass_on(out, piece, hold=True)
        if self._held is None:
            raise GatewayError("upstream_truncated", "the provider's stream ended before it was finished")
        done = self._done(talk)  # before the chain ends: a plug-in's count may fail, and that must be told
        index, last = self._chain.index, self._held
        data = self._chain.seal(last.data, final=True)
        served_by = "" if index else self._served_by
        return replace(done, replies=[Entry("chunk", data, index, event=last.event, served_by=served_by)])

    def _last_words(self, talk: Dialogue, last: dict[str, Any]) -> Iterator[Piece]:
        """What the writer has left to say; told our own count first, where the provider gave none."""
        if talk.by_chat and talk.reader.usage is None:
            head: dict[str, Any] = {name: last[name] for name in ("id", "object", "created", "model") if name in last}
            told = self._with_usage(talk, {**head, "choices": []})
            yield from talk.writer.chunk(told, orjson.dumps(told))
        yield from talk.writer.end()

    def _with_usage(self, talk: Dialogue, completion: dict[str, Any]) -> dict[str, Any]:
        """A chat completion with usage: the provider's, else our own count."""
        if not talk.by_chat or talk.reader.usage is not None:
            return completion
        return {**completion, "usage": openai_from_usage(self._counted(talk)[0])}

    async def _pass_on(self, out: ChunkWriter, piece: Piece, *, hold: bool) -> None:
        held, self._held = self._held, piece if hold else None
        if held is not None:
            await out.put(held)
        if not hold:
            await out.put(piece)

    def _note_first(self) -> None:
        if self._ttft_ms is None:
            self._ttft_ms = round((self.clock() - self._started) * 1000)


async def _objects(talk: Dialogue, first_within: float | None) -> AsyncGenerator[tuple[dict[str, Any], bytes]]:
    """A stream's events; the first one within so many seconds.

    Raises:
        GatewayError: ``upstream_timeout``.
    """
    stream = talk.stream()
    try:
        try:
            async with asyncio.timeout(first_within):
                first = await anext(stream, None)
        except TimeoutError:
            message = f"the provider did not begin to answer within {first_within:g} s"
            raise GatewayError("upstream_timeout", message) from None
        if first is not None:
            yield object_and_text(first)
        async for answer in stream:
            yield object_and_text(answer)
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
