"""One call of a provider: what it answers becomes signed entries and an ``Outcome``. Knows nothing of delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from gateway_worker.chunks import ChunkWriter, Emit
from gateway_worker.deployments import Deployment
from gateway_worker.transitions import Entry, LeaseLostError, Outcome
from model_gateway.chat import ChatRequest
from model_gateway.errors import GatewayError
from model_gateway.money import Usage, usage_from_openai
from model_gateway.providers import JSONObject
from model_gateway.signing import ChunkChain, Keyring, NotAnObjectError, clean_object, seal_reply, seal_text

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """What ties a reply to its request: its id, the digest of its body, and the secret."""

    keyring: Keyring
    request_id: str
    request_sha256: str


def error_entry(error: GatewayError, binding: Binding) -> Entry:
    """A whole error reply, signed."""
    data = seal_reply(error.json(), binding.keyring, binding.request_id, binding.request_sha256)
    return Entry("error", data, status=error.status, retry_after=error.retry_after, usd_nano=0)


def dead_letter_entry(error: GatewayError, keyring: Keyring) -> Entry:
    """An error reply to a request that could not be read; signed, but bound to nothing."""
    return Entry("error", seal_text(error.json(), keyring), status=error.status, usd_nano=0)


def chained_error(error: GatewayError, chain: ChunkChain) -> Entry:
    """An error in the middle of a stream, as the chain's last link."""
    index = chain.index
    data = chain.seal(error.json(), final=True)
    return Entry("error", data, index, error.status, retry_after=error.retry_after, usd_nano=0)


def object_and_text(answer: JSONObject) -> tuple[Any, bytes]:
    """A provider's object, parsed and as text, whichever it gave.

    Raises:
        GatewayError: ``upstream_invalid_response``.
    """
    try:
        if isinstance(answer, bytes):
            return orjson.loads(answer), answer
        return answer, orjson.dumps(answer)
    except (ValueError, TypeError) as error:
        raise GatewayError("upstream_invalid_response", "the provider did not answer in JSON") from error


@dataclass(slots=True)
class Call:
    """One attempt at one provider, whole or streamed. ``run`` may be cancelled; ``cancelled`` then says what is owed.

    Attributes:
        sent: whether the provider may have received the request.
    """

    deployment: Deployment
    request: ChatRequest
    binding: Binding
    emit: Emit
    clock: Callable[[], float]
    sent: bool = False
    _started: float = field(init=False)
    _ttft_ms: int | None = field(init=False, default=None)
    _chain: ChunkChain = field(init=False)
    _text: list[str] = field(init=False, default_factory=list)
    _usage: Usage | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._chain = ChunkChain(self.binding.keyring, self.binding.request_id, self.binding.request_sha256)

    async def run(self) -> Outcome:
        """Call the provider. Every error but a cancellation becomes a failed outcome."""
        self.sent = True
        try:
            async with asyncio.timeout(self.deployment.row.timeout):
                return await (self._stream() if self.request.stream else self._whole())
        except TimeoutError:
            seconds = self.deployment.row.timeout
            return self.failed(GatewayError("upstream_timeout", f"no complete answer within {seconds:g} s"))
        except LeaseLostError:
            raise
        except GatewayError as error:
            return self.failed(error)
        except NotAnObjectError as error:
            return self.failed(GatewayError("upstream_invalid_response", f"the provider's answer: {error}"))
        except Exception:  # noqa: BLE001 - a plug-in's bug is a failed call, not a lost request
            _log.exception("call.failed", model=self.deployment.name, request_id=self.binding.request_id)
            return self.failed(GatewayError("upstream_error", "the provider's adapter failed"))

    def failed(self, error: GatewayError) -> Outcome:
        """A failed outcome; unknown, unless the provider is sure not to bill."""
        return Outcome(
            "failed",
            [self._error(error)],
            unknown=error.billed,
            error_code=error.code,
            ttft_ms=self._ttft_ms,
            estimated=error.billed,
        )

    def cancelled(self) -> Outcome:
        """What was generated until now, paid for; a whole call that was sent is charged as unknown."""
        error = GatewayError("cancelled", "the request was cancelled")
        if not self.sent:
            return Outcome("cancelled", [self._error(error)], error_code=error.code)
        if not self.request.stream:
            return Outcome("cancelled", [self._error(error)], unknown=True, estimated=True, error_code=error.code)
        usage, estimated = self._counted()
        return Outcome(
            "cancelled",
            [self._error(error)],
            cost=self.deployment.price.cost(usage),
            usage=usage,
            estimated=estimated,
            error_code=error.code,
            ttft_ms=self._ttft_ms,
        )

    def _error(self, error: GatewayError) -> Entry:
        return chained_error(error, self._chain) if self._chain.index else error_entry(error, self.binding)

    # -- whole

    async def _whole(self) -> Outcome:
        deployment = self.deployment
        answer = await deployment.provider.complete(
            self.request.messages, deployment.engine, **deployment.fields(self.request)
        )
        parsed, text = object_and_text(answer)
        text = clean_object(text, parsed, one_line=False)
        choices = _choices(parsed)
        self._text += [_text_of(choice.get("message")) for choice in choices]
        self._usage = usage_from_openai(parsed.get("usage"))
        binding = self.binding
        data = seal_reply(text, binding.keyring, binding.request_id, binding.request_sha256)
        return self._done("reply", data, 0, _finish_reason(choices))

    def _done(self, kind: Any, data: bytes, index: int, finish_reason: str) -> Outcome:
        usage, estimated = self._counted()
        cost = self.deployment.price.cost(usage)
        return Outcome(
            "done",
            [Entry(kind, data, index, usd_nano=cost)],
            cost=cost,
            usage=usage,
            estimated=estimated,
            finish_reason=finish_reason,
            ttft_ms=self._ttft_ms,
        )

    def _counted(self) -> tuple[Usage, bool]:
        """The provider's usage, else our own count."""
        if self._usage is not None:
            return self._usage, False
        output = self.deployment.count_output("".join(self._text))
        return Usage(input=self.deployment.count_input(self.request), output=output), True

    # -- streamed

    async def _stream(self) -> Outcome:
        """Pass chunks on as they come; from the first finish on, hold the newest until it is known to be the last."""
        held: bytes | None = None
        seen: set[int] = set()
        finished: dict[int, str] = {}
        async with ChunkWriter(self._chain, self.emit) as writer, aclosing(self._chunks()) as chunks:
            async for parsed, text in chunks:
                self._note(parsed, seen, finished)
                kept = self._for_client(parsed, text)
                if kept is None:
                    continue
                if held is not None:
                    await writer.put(held)
                held = kept if finished else None
                if held is None:
                    await writer.put(kept)
        if held is None or not seen <= finished.keys():
            raise GatewayError("upstream_truncated", "the provider's stream ended before it was finished")
        index = self._chain.index
        return self._done("chunk", self._chain.seal(held, final=True), index, next(iter(finished.values())))

    async def _chunks(self) -> AsyncGenerator[tuple[dict[str, Any], bytes]]:
        deployment = self.deployment
        stream = deployment.provider.stream(self.request.messages, deployment.engine, **deployment.fields(self.request))
        try:
            async for answer in stream:
                parsed, text = object_and_text(answer)
                if not isinstance(parsed, dict):
                    raise NotAnObjectError(f"expected a JSON object, got {type(parsed).__name__}")
                yield parsed, text
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _note(self, parsed: Mapping[str, Any], seen: set[int], finished: dict[int, str]) -> None:
        """Remember what a chunk tells: usage, text for our own count, which choices are finished."""
        if self._ttft_ms is None:
            self._ttft_ms = round((self.clock() - self._started) * 1000)
        self._usage = usage_from_openai(parsed.get("usage")) or self._usage
        for choice in _choices(parsed):
            index = choice.get("index", 0)
            seen.add(index)
            self._text.append(_text_of(choice.get("delta")))
            if choice.get("finish_reason"):
                finished[index] = str(choice["finish_reason"])

    def _for_client(self, parsed: dict[str, Any], text: bytes) -> bytes | None:
        """The chunk as the client asked for it: without usage that it did not ask for; None if nothing is left."""
        unasked = "usage" in parsed and not self.request.include_usage
        if unasked and not parsed.get("choices"):
            return None
        return clean_object(text, parsed, one_line=True, without=("usage",) if unasked else ())


def _choices(parsed: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = parsed.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _finish_reason(choices: list[dict[str, Any]]) -> str:
    return str(choices[0].get("finish_reason") or "") if choices else ""


def _text_of(part: Any) -> str:
    """Everything that a message or delta says, for counting: content, refusal, tool calls."""
    if not isinstance(part, dict):
        return ""
    said = [part.get(name) for name in ("content", "refusal", "reasoning_content")]
    text = "".join(value for value in said if isinstance(value, str))
    for call in part.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            text += str(function.get("name") or "") + str(function.get("arguments") or "")
    return text
