"""One isolated agent's ingress stream, as a worker sees it: the typed face of the scripts that empty it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway_worker.records import Entry
from model_gateway.envelope import Envelope
from model_gateway.scripts import Script, Scripts, load_script
from model_gateway.settings import Agent, GatewayConfig
from model_gateway.streams import GROUP, Keys

HOLD_SECONDS: Final = 1.0
"""How long one worker's turn at an ingress lasts after it last looked."""

MAX_FIELDS: Final = 32
_MOST: Final = 16
_ENVELOPE_BYTES: Final = 4_096
_LETTER_BYTES: Final = 4_096
_QUEUED_TTL_MS: Final = 7 * 86_400_000
_CONTROL_MS: Final = 600_000


def _load(name: str, *, allow_oom: bool = True) -> Script:
    return load_script("gateway_worker", name, "model_gateway:prelude", "gateway_worker:ingress", allow_oom=allow_oom)


_LOOK: Final = _load("look")
_FORWARD: Final = _load("forward", allow_oom=False)
_CANCEL: Final = _load("forward_cancel")
_TURN_AWAY: Final = _load("turn_away")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry that waits in an ingress.

    Attributes:
        entry: its id, of its agent's choice.
        pairs: its fields as they stand; a name may stand twice.
    """

    entry: str
    pairs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        kind: ``empty``; ``taken`` (another worker's turn); ``paced`` (its agent has had its minute's share); ``found``.
        dropped: entries that were too much, and are gone.
        waiting: what is to be dealt with, in order.
    """

    kind: str
    dropped: int
    waiting: list[Waiting]


class Ingress:
    """The scripts around one ingress: each is idempotent, whoever calls it and however often."""

    def __init__(self, scripts: Scripts, keys: Keys, config: GatewayConfig, agent: str, reader: str) -> None:
        self.agent = agent
        self.sender = f"agent-{agent}"
        self.stream = keys.ingress(agent)
        self._scripts = scripts
        self._keys = keys
        self._row: Agent = config.agents[agent]
        self._reader = reader
        self._max_depth = config.queue.max_depth
        self._max_entry = config.limits.body_bytes + _ENVELOPE_BYTES
        self._keep_ms = str(config.retention.requests.seconds * 1000)
        self._reply_ttl_ms = str(config.retention.replies.seconds * 1000)

    async def look(self) -> Look:
        """What waits, if it is this worker's turn."""
        answer = await self._call(
            _LOOK,
            [self._keys.dead],
            reader=self._reader,
            hold_ms=str(round(HOLD_SECONDS * 1000)),
            max_bytes=str(2 * self._max_entry),
            max_entry_bytes=str(self._max_entry),
            max_fields=str(MAX_FIELDS),
            per_minute=str(self._row.per_minute),
            most=str(_MOST),
            keep_ms=self._keep_ms,
        )
        return Look(answer[0].decode(), int(answer[1]), [_waiting(entry, flat) for entry, flat in answer[2:]])

    async def forward(self, waiting: Waiting, envelope: Envelope) -> tuple[str, int]:
        """Onto the request stream. ``moved``, ``gone``, ``duplicate``, ``many``, ``busy`` or ``full``, and how many."""
        keys, request_id = self._keys, envelope.request_id
        answer = await self._call(
            _FORWARD,
            [
                keys.unfinished(self.agent),
                keys.requests,
                keys.record(self.sender, request_id),
                keys.full,
                keys.replies(self.sender),
            ],
            *(part for pair in waiting.pairs for part in pair),
            entry=waiting.entry,
            id=request_id,
            records=keys.record(self.sender, ""),
            group=GROUP,
            max_depth=str(self._max_depth),
            max_unfinished=str(self._row.max_unfinished),
            ttl_ms=str(_QUEUED_TTL_MS),
            reply_ttl_ms=self._reply_ttl_ms,
        )
        kind = answer[0].decode()
        return kind, int(answer[1]) if kind in ("many", "busy") else 0

    async def cancel(self, waiting: Waiting, envelope: Envelope) -> str:
        """Ask for one of this agent's requests to be stopped. ``asked``, ``over`` or ``gone``."""
        keys = [self._keys.record(self.sender, envelope.request_id), self._keys.control]
        answer = await self._call(
            _CANCEL,
            keys,
            entry=waiting.entry,
            principal=self.sender,
            id=envelope.request_id,
            control_ms=str(_CONTROL_MS),
        )
        return str(answer[0].decode())

    async def turn_away(self, waiting: Waiting, reason: str, reply: tuple[str, Entry] | None) -> str:
        """Take it off. ``turned_away`` or ``gone``.

        Args:
            waiting: the entry.
            reason: of the dead letter; empty: there is none to be kept.
            reply: the request's id and the error, where its agent signed it.
        """
        request_id, error = reply or ("", None)
        payload = [part[:_LETTER_BYTES] for pair in waiting.pairs for part in pair] if reason else []
        answer = await self._call(
            _TURN_AWAY,
            [self._keys.dead, self._keys.replies(self.sender)],
            *payload,
            *([error.data] if error else ()),
            entry=waiting.entry,
            reason=reason,
            replies=[error.fields(request_id)] if error else [],
            reply_ttl_ms=self._reply_ttl_ms,
            keep_ms=self._keep_ms,
        )
        return str(answer[0].decode())

    async def _call(self, script: Script, keys: Sequence[str], *payload: bytes, **args: Any) -> list[Any]:
        own = [self.stream, self._keys.ingress_state(self.agent)]
        return await self._scripts.call(script, [*own, *keys], args, *payload)


def _waiting(entry: bytes, flat: list[bytes]) -> Waiting:
    return Waiting(entry.decode(), tuple(zip(flat[::2], flat[1::2], strict=True)))


def once(pairs: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes] | None:
    """Fields by name; None where a name stands twice."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else None
