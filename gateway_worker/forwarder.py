"""From the ingress streams of isolated agents onto the request stream.

Each worker runs one forwarder, and any number may look at the same ingress: a script takes an entry off and puts it
onto the request stream in one step. Each agent has a task of its own, so that no flood keeps another agent waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway_worker.call import Binding, dead_letter_entry, error_entry
from gateway_worker.ingress import Ingress, Waiting, once
from gateway_worker.metrics import WorkerMetrics
from model_gateway.clock import Clock
from model_gateway.dialects import OPERATIONS
from model_gateway.envelope import CANCEL, SIGNED_FIELDS, BadEnvelopeError, Envelope, open_envelope
from model_gateway.errors import GatewayError
from model_gateway.signing import Keyring, sha256_hex
from model_gateway.tasks import end

_log = structlog.get_logger(__name__)

_SOONEST: Final = 0.01
_LATEST: Final = 0.1
"""Seconds between two looks. No XREAD waits here: it would bring whatever was written, however large."""

_FIELDS: Final = frozenset(name.encode() for name in (*SIGNED_FIELDS, "sig"))
_OPERATIONS: Final = OPERATIONS | {CANCEL}
_REFUSALS: Final = ("many", "busy", "full")


class Forwarder:
    """Empties ingress streams: verifies, bounds, and moves what is good."""

    def __init__(
        self,
        redis: Redis,
        ingresses: Sequence[Ingress],
        *,
        keyring: Keyring,
        sender_secrets: Mapping[str, tuple[str, ...]],
        dedupe_seconds: int,
        metrics: WorkerMetrics,
        clock: Clock,
    ) -> None:
        self._redis = redis
        self._ingresses = ingresses
        self._keyring = keyring
        self._secrets = sender_secrets
        self._dedupe_ms = dedupe_seconds * 1000
        self._metrics = metrics
        self._clock = clock
        self._away = False
        self._at_work: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again and again whether something stands in an ingress, until cancelled."""
        pause = _SOONEST
        try:
            while True:
                started = [self._start(ingress) for ingress in await self._with_entries()]
                pause = _SOONEST if any(started) else min(pause * 2, _LATEST)
                await asyncio.sleep(pause)
        finally:
            await end(*self._at_work.values())

    async def _with_entries(self) -> list[Ingress]:
        """The ingresses that something stands in; one round trip for all."""
        pipeline = self._redis.pipeline(transaction=False)
        for ingress in self._ingresses:
            pipeline.exists(ingress.stream)
        try:
            there: list[Any] = await pipeline.execute()
        except (RedisError, OSError) as error:
            self._note_away(error)
            return []
        self._away = False
        return [ingress for ingress, exists in zip(self._ingresses, there, strict=True) if exists]

    def _note_away(self, error: Exception) -> None:
        """Say so once."""
        if not self._away:
            _log.warning("forwarder.redis_away", error=str(error)[:200])
        self._away = True

    def _start(self, ingress: Ingress) -> bool:
        """Empty an ingress in a task of its own, unless one does so already."""
        task = self._at_work.get(ingress.agent)
        if task is not None and not task.done():
            return False
        self._at_work[ingress.agent] = asyncio.create_task(self._empty(ingress), name=f"ingress {ingress.agent}")
        return True

    async def _empty(self, ingress: Ingress) -> None:
        kind = "found"
        try:
            while kind == "found":
                kind = await self._turn(ingress)
        except GatewayError as error:  # Redis is away, or full
            _log.warning("forwarder.waits", agent=ingress.agent, error=error.message)
        except Exception:  # noqa: BLE001 - what one agent wrote must not stop what others did
            _log.exception("forwarder.failed", agent=ingress.agent)
        if kind != "empty":
            await asyncio.sleep(_LATEST)

    async def _turn(self, ingress: Ingress) -> str:
        """A few entries; what the look at them found."""
        look = await ingress.look()
        if look.dropped:
            self._count(ingress, "dropped", look.dropped)
            _log.warning("forwarder.dropped", agent=ingress.agent, entries=look.dropped)
        for waiting in look.waiting:
            self._count(ingress, await self._deal_with(ingress, waiting))
        return look.kind

    def _count(self, ingress: Ingress, result: str, entries: int = 1) -> None:
        self._metrics.ingress_entries.labels(ingress.agent, result).inc(entries)

    # -- one entry

    async def _deal_with(self, ingress: Ingress, waiting: Waiting) -> str:
        """Move, cancel or turn away; what became of it."""
        try:
            envelope = self._open(ingress, waiting)
        except BadEnvelopeError as error:
            return await self._put_aside(ingress, waiting, error)
        if envelope.operation == CANCEL:
            return await ingress.cancel(waiting, envelope)
        try:
            result, waiting_there = await ingress.forward(waiting, envelope)
        except GatewayError as error:
            if error.code != "storage_full":
                raise
            result, waiting_there = "full", 0
        if result in _REFUSALS:
            reply = error_entry(_refusal(result, waiting_there), self._binding(envelope))
            await ingress.turn_away(waiting, "", (envelope.request_id, reply))
        return result

    def _open(self, ingress: Ingress, waiting: Waiting) -> Envelope:
        """The entry's envelope.

        Raises:
            BadEnvelopeError: it is not one, not this agent's, or not of now.
        """
        fields = once(waiting.pairs)
        if fields is None:
            raise BadEnvelopeError("malformed: a field stands twice")
        if not fields.keys() <= _FIELDS:
            raise BadEnvelopeError("malformed: a field that is not signed")
        if fields.get(b"from") != ingress.sender.encode():
            raise BadEnvelopeError("not from this ingress's agent")
        envelope = open_envelope(fields, {ingress.sender: self._secrets[ingress.sender]}, _OPERATIONS)
        now_ms = self._clock.now_ms()
        if not envelope.is_current(now_ms, self._dedupe_ms):
            reason = f"stale: signed {(now_ms - envelope.ts_ms) / 1000:.0f} s before it was read"
            raise BadEnvelopeError(reason, sender=envelope.sender, request_id=envelope.request_id)
        return envelope

    async def _put_aside(self, ingress: Ingress, waiting: Waiting, error: BadEnvelopeError) -> str:
        """To the dead letters, with an error reply where the agent has signed it."""
        reply = None
        if error.request_id and (b"op", CANCEL.encode()) not in waiting.pairs:  # it would end what is to be cancelled
            code = "stale_request" if str(error).startswith("stale") else "invalid_value"
            answer = GatewayError(code, f"the envelope can't be run: {error}")
            reply = (error.request_id, dead_letter_entry(answer, self._keyring))
        result = await ingress.turn_away(waiting, str(error), reply)
        self._metrics.dead_letters.inc()
        _log.warning("forwarder.dead_letter", agent=ingress.agent, entry=waiting.entry, reason=str(error))
        return result

    def _binding(self, envelope: Envelope) -> Binding:
        return Binding(self._keyring, envelope.request_id, sha256_hex(envelope.body), envelope.operation)


def _refusal(result: str, waiting: int) -> GatewayError:
    """Why an entry that is good is not moved now; nothing is kept of it, and it may be sent again."""
    match result:
        case "many":
            return GatewayError("queue_full", f"{waiting} requests of this agent are not over yet", retry_after=1)
        case "busy":
            return GatewayError("queue_full", f"{waiting} requests wait already", retry_after=1)
    return GatewayError("storage_full", "the streams or Redis are full; see retention", retry_after=5)
