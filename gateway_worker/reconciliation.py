"""What this worker knows to be written, held against a Redis that was started again or replaced by another.

Such a Redis can have lost the newest of what it had acknowledged: under ``appendfsync everysec`` the last second or two
before a power cut, after a failover what was not replicated yet. A worker remembers its newest charges, each with the
id of the event that tells of it. Where Redis does not have that event any more, the charge is made again
(``model.request.restored``), and the loss is told (``model.ledger.gap``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from gateway_worker.records import Admission, Subject
from model_gateway.scripts import Scripts, load_script
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)
_RECONCILE: Final = load_script("gateway_worker", "reconcile", "model_gateway:prelude", allow_oom=True)

REMEMBERED_SECONDS: Final = 15.0
"""How far back, counted from the newest: while Redis is away nothing is forgotten."""

REMEMBERED: Final = 20_000
_BATCH: Final = 500
_KEEP_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Witness:
    """One thing that Redis has acknowledged.

    Attributes:
        event: the id of the event that was written with it.
        owner: the request's name in the ledger.
        token: the fence token of its attempt.
        cost: nano-dollars that were charged, as text; empty where nothing was.
        model, scopes, window: what they were charged to.
        fields: what the charge's event says of the request, flat.
    """

    event: str
    owner: str
    token: str
    cost: str
    model: str
    scopes: str
    window: str
    fields: list[str]


class Witnesses:
    """The newest of what Redis has acknowledged to this worker."""

    def __init__(self, clock: Callable[[], float], scopes: str) -> None:
        """``clock`` tells seconds; ``scopes`` are what each request is charged to, separated by commas."""
        self._clock = clock
        self._scopes = scopes
        self._kept: deque[tuple[float, Witness]] = deque(maxlen=REMEMBERED)

    def add(self, subject: Subject, admission: Admission, event: str, charged: str = "") -> None:
        """Remember a transition of an attempt; ``charged`` in nano-dollars, where it charged something."""
        if not event:
            return
        fields = [*subject.base, "attempt", str(admission.attempt)] if charged else []
        cost = "" if charged == "0" else charged
        found = (event, subject.owner, subject.token, cost, subject.model, self._scopes, admission.window, fields)
        now = self._clock()
        self._kept.append((now, Witness(*found)))
        while self._kept[0][0] < now - REMEMBERED_SECONDS:
            self._kept.popleft()

    def newest_first(self) -> list[Witness]:
        """What is remembered."""
        return [witness for _, witness in reversed(self._kept)]


class Reconciliation:
    """Asks which server answers, and where it is another than before holds the ledger against the witnesses."""

    def __init__(self, redis: Redis, scripts: Scripts, keys: Keys, witnesses: Witnesses, worker: str) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._witnesses = witnesses
        self._worker = worker
        self._run_id = ""
        self._turn = asyncio.Lock()

    async def check(self) -> None:
        """See to it that the ledger holds what this worker knows.

        Raises:
            RedisError, GatewayError: Redis is away; ask again.
        """
        async with self._turn:
            found: Any = await self._redis.info("server")
            run_id = str(found.get("run_id", ""))
            if run_id != self._run_id:
                await self._reconcile(run_id)
                self._run_id = run_id

    async def _reconcile(self, run_id: str) -> None:
        """Newest first: what is lost is the end of what was written, so a batch without a loss is the last."""
        witnesses = self._witnesses.newest_first()
        for start in range(0, max(1, len(witnesses)), _BATCH):
            missing, restored = await self._hold_against(run_id, witnesses[start : start + _BATCH])
            if missing:
                _log.error("ledger.gap", worker=self._worker, missing=missing, restored=restored)
            if not missing:
                return

    async def _hold_against(self, run_id: str, witnesses: list[Witness]) -> tuple[int, int]:
        keys = self._keys
        args = {
            "worker": self._worker,
            "run_id": run_id,
            "keep_ms": str(_KEEP_MS),
            "witnesses": [asdict(witness) for witness in witnesses],
        }
        done = keys.reconciled(secrets.token_hex(8))
        names = [keys.open, keys.ledger, keys.spend, keys.counters, keys.events, keys.server, done]
        missing, restored = await self._scripts.call(_RECONCILE, names, args)
        return int(missing), int(restored)
