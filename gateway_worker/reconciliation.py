"""What this worker knows to be written, held against a Redis that was started again or replaced by another.

Such a Redis can have lost the newest of what it had acknowledged: under ``appendfsync everysec`` the last second or two
before a power cut, after a failover what was not replicated yet. A worker remembers its newest charges, each with the
id of the event that tells of it. Where Redis does not have that event any more, the charge is made again
(``model.request.restored``), and the loss is told (``model.ledger.gap``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from gateway_worker.records import Admission, Subject
from gateway_worker.script_values import scope
from model_gateway.ledger import GATEWAY_SCOPE
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import Budget
from model_gateway.streams import Keys

_log = structlog.get_logger(__name__)
_RECONCILE: Final = load_script("gateway_worker", "reconcile", "model_gateway:prelude", allow_oom=True)

REMEMBERED_SECONDS: Final = 15.0
"""How far back, counted from the newest: while Redis is away nothing is forgotten."""

REMEMBERED: Final = 20_000
_BATCH: Final = 500
_KEEP_MS: Final = 7 * 86_400_000


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
        self.dropped: deque[Witness] = deque(maxlen=REMEMBERED)

    def drop(self, subject: Subject, admission: Admission, amount: int) -> None:
        """An attempt is not ours any more. Whoever took it over has charged it, unless Redis had lost it before."""
        if admission.event:
            self.dropped.append(self._witness(subject, admission, admission.event, str(amount)))

    def add(self, subject: Subject, admission: Admission, event: str, charged: str = "") -> None:
        """Remember a transition of an attempt; ``charged`` in nano-dollars, where it charged something."""
        if not event:
            return
        now = self._clock()
        self._kept.append((now, self._witness(subject, admission, event, charged)))
        while self._kept[0][0] < now - REMEMBERED_SECONDS:
            self._kept.popleft()

    def _witness(self, subject: Subject, admission: Admission, event: str, charged: str) -> Witness:
        fields = [*subject.base, "attempt", str(admission.attempt)] if charged else []
        cost = "" if charged == "0" else charged
        owner, token, model = subject.owner, subject.token, subject.model
        return Witness(event, owner, token, cost, model, self._scopes, admission.window, fields)

    def newest_first(self) -> list[Witness]:
        """What is remembered."""
        return [witness for _, witness in reversed(self._kept)]


class Reconciliation:
    """Asks which server answers, and where it is another than before holds the ledger against the witnesses."""

    def __init__(
        self, redis: Redis, scripts: Scripts, keys: Keys, witnesses: Witnesses, *, worker: str, budget: Budget
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._witnesses = witnesses
        self._worker = worker
        self._scopes = [scope(GATEWAY_SCOPE, budget)]
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
            await self._charge_dropped(run_id)

    async def _charge_dropped(self, run_id: str) -> None:
        dropped = self._witnesses.dropped
        while dropped:
            some = list(islice(dropped, _BATCH))
            await self._hold_against(run_id, some)
            for _ in some:
                dropped.popleft()

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
            "scopes": self._scopes,
            "witnesses": [asdict(witness) for witness in witnesses],
        }
        names = [keys.open, keys.ledger, keys.spend, keys.counters, keys.events, keys.server, keys.reconciled]
        missing, restored = await self._scripts.call(_RECONCILE, names, args)
        return int(missing), int(restored)
