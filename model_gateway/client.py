"""The client: requests onto the stream, replies off it. Front doors and agents use the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from model_gateway.clock import Clock
from model_gateway.connection import AWAY, COMMAND_TIMEOUT, connect, unavailable
from model_gateway.envelope import CANCEL, Envelope, new_request_id
from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange
from model_gateway.replies import BLOCK_MS, Reply, ReplyReader
from model_gateway.scripts import Scripts, load_script
from model_gateway.streams import GROUP, Keys
from model_gateway.tasks import end

_log = structlog.get_logger(__name__)
_SUBMIT: Final = load_script("model_gateway", "submit", "model_gateway:prelude")
_CANCEL: Final = load_script("model_gateway", "cancel", "model_gateway:prelude", allow_oom=True)
_CONTROL_KEEP_MS: Final = 600_000
_SUBMIT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What submitting goes by.

    Attributes:
        max_depth: requests in the queue past which a new one is refused.
        queued_seconds: how long a record lives that no worker has taken up.
    """

    max_depth: int = 10_000
    queued_seconds: int = 7 * 86_400


class StreamClient:
    """Submits signed envelopes and hands out the replies."""

    _from_the_start: ClassVar[bool] = False
    """Whether the stream itself says where the replies to a repeated id begin."""

    def __init__(
        self,
        redis_url: str,
        *,
        sender: str,
        secret: str,
        config: ClientSettings = ClientSettings(),
        keys: Keys = Keys(),  # noqa: B008 - frozen
        clock: Clock | None = None,
        on_waiting: Callable[[int], object] = lambda waiting: None,
    ) -> None:
        """``on_waiting`` is told with each request that is submitted how many waited that no worker had taken."""
        self.keys = keys
        self.redis: Redis = connect(redis_url)
        self._clock = clock or Clock()
        self.scripts = Scripts(self.redis, self._clock)
        self._sender = sender
        self._secret = secret
        self._config = config
        self._on_waiting = on_waiting
        self._reading = connect(redis_url, read_timeout=BLOCK_MS / 1000 + COMMAND_TIMEOUT)
        self._reader = ReplyReader(
            self._reading,
            keys.replies(sender),
            on_return=self._redis_is_back,
            from_the_start=self._from_the_start,
        )
        self._exchanges: dict[Exchange, Envelope] = {}
        self._resubmitting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen for replies.

        Raises:
            GatewayError: ``redis_unavailable``.
        """
        try:
            await self._reader.start()
        except AWAY as error:
            raise unavailable() from error

    async def close(self) -> None:
        """Stop listening and let the connections go."""
        await self._reader.close()
        await end(*self._resubmitting)
        await self.scripts.close()
        await self.redis.aclose()
        await self._reading.aclose()

    async def submit(
        self,
        *,
        principal: str,
        model: str,
        body: bytes,
        operation: str = "chat",
        request_id: str | None = None,
    ) -> Exchange:
        """Put a request on the stream. A repeated id is answered with the replies it had.

        Args:
            principal: whose request it is.
            model: a model's or a task's name; empty: the body's.
            body: the request's JSON.
            operation: the body's dialect, see ``dialects.OPERATIONS``.
            request_id: unique for the principal; made here if None.

        Raises:
            GatewayError: ``queue_full``, ``storage_full`` or ``redis_unavailable``.
        """
        now = self._clock.now_ms()
        request_id = request_id or new_request_id(now)
        envelope = Envelope(self._sender, principal, request_id, operation, model, now, body)
        queue = self._reader.expect(request_id)
        try:
            past = await self._publish(envelope)
        except BaseException:
            self._reader.forget(request_id, queue)
            raise
        exchange = Exchange(
            request_id, past, queue, partial(self._forget, queue), partial(self._cancel, principal, request_id)
        )
        self._exchanges[exchange] = envelope
        return exchange

    def _forget(self, queue: asyncio.Queue[Reply], exchange: Exchange) -> None:
        self._reader.forget(exchange.request_id, queue)
        self._exchanges.pop(exchange, None)

    def _redis_is_back(self) -> None:
        """It may have lost what was submitted last: submit again whatever has no answer. Ids make that harmless.

        What has a part of its answer can't be begun again: where it is gone, whoever waits for the rest is told.
        """
        for exchange, envelope in list(self._exchanges.items()):
            checking = self._end_if_gone(exchange, envelope) if exchange.answered else self._resubmit(envelope)
            task = asyncio.create_task(checking, name="resubmit")
            self._resubmitting.add(task)
            task.add_done_callback(self._resubmitting.discard)

    async def _end_if_gone(self, exchange: Exchange, envelope: Envelope) -> None:
        try:
            if not await self.redis.exists(self.keys.record(envelope.principal, envelope.request_id)):
                exchange.gone()
        except (*AWAY, ResponseError) as error:  # then it waits, for as long as its client wants to
            _log.warning("resubmit.unchecked", request_id=envelope.request_id, error=type(error).__name__)

    async def _resubmit(self, envelope: Envelope) -> None:
        try:
            await self._publish(envelope)
        except GatewayError as error:  # if it was lost, its client will wait in vain, for as long as it wants to
            _log.warning("resubmit.failed", request_id=envelope.request_id, code=error.code)

    async def _publish(self, envelope: Envelope) -> list[Reply]:
        """Submit; the replies that are there already, for a repeated id."""
        record = self.keys.record(envelope.principal, envelope.request_id)
        fields = [part for pair in envelope.fields(self._secret).items() for part in pair]
        answer = await self.scripts.call(
            _SUBMIT,
            [self.keys.requests, record, self.keys.full],
            {
                "group": GROUP,
                "max_depth": str(self._config.max_depth),
                "ttl_ms": str(self._config.queued_seconds * 1000),
            },
            *fields,
            within=_SUBMIT_SECONDS,
        )
        match answer[0]:
            case b"queued":
                self._on_waiting(answer[2])
            case b"duplicate":
                return await self._past(envelope.request_id, answer[1].decode())
            case b"busy":
                raise GatewayError("queue_full", f"{answer[1]} requests wait already", retry_after=1)
            case b"full":
                raise GatewayError(
                    "storage_full", "the streams are past their byte budget; see retention", retry_after=5
                )
        return []

    async def _past(self, request_id: str, entry: str) -> list[Reply]:
        try:
            return await self._reader.since(request_id, entry)
        except AWAY as error:
            raise unavailable() from error

    async def _cancel(self, principal: str, request_id: str) -> None:
        await self.scripts.call(
            _CANCEL,
            [self.keys.record(principal, request_id), self.keys.control],
            {"principal": principal, "id": request_id, "keep_ms": str(_CONTROL_KEEP_MS)},
            within=_SUBMIT_SECONDS,
        )


class IngressClient(StreamClient):
    """The same for an isolated agent: it writes to its ingress, reads its replies, and may do nothing else."""

    _from_the_start = True

    def __init__(self, redis_url: str, *, agent: str, secret: str, keys: Keys = Keys()) -> None:  # noqa: B008 - frozen
        super().__init__(redis_url, sender=f"agent-{agent}", secret=secret, keys=keys)
        self._ingress = keys.ingress(agent)

    async def _publish(self, envelope: Envelope) -> list[Reply]:
        """Onto the ingress. Whether it is taken, and what a repeated id was answered, its reply stream tells."""
        fields: dict[Any, Any] = dict(envelope.fields(self._secret))
        deadline = asyncio.get_running_loop().time() + _SUBMIT_SECONDS
        while True:  # an answer that is lost makes a second entry, which its id gives away
            try:
                await self.redis.xadd(self._ingress, fields)
            except AWAY as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise unavailable() from error
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return []

    async def _cancel(self, principal: str, request_id: str) -> None:
        await self._publish(Envelope(self._sender, principal, request_id, CANCEL, "", self._clock.now_ms(), b""))
