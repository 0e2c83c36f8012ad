"""Keeps an eye on Redis and the workers, so that no request has to ask."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from redis.exceptions import RedisError

from model_gateway.client import StreamClient
from model_gateway.connection import AWAY
from model_gateway.errors import GatewayError
from model_gateway.fleet import WorkerState, durability_problems, live_workers, refusal_to_write
from model_gateway.ledger import is_initialised

_log = structlog.get_logger(__name__)

_REFRESH_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 3.0


class FleetWatch:
    """What is known of the workers and of Redis, renewed each second.

    Attributes:
        listening: whether replies are read; before that nothing may be submitted.
        workers: those that lived at the last look.
    """

    def __init__(self, client: StreamClient) -> None:
        self.listening = False
        self.workers: list[WorkerState] = []
        self._client = client
        self._served: frozenset[str] = frozenset()
        self._durability: list[str] = []
        self._refusal = ""
        self._ledger_whole = True
        self._seen_at = float("-inf")
        self._trouble = ""

    async def watch(self) -> None:
        """Look again each second, for ever."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Look once. Trouble is reported by ``problems``, and ends with the first look that succeeds."""
        try:
            await self._look()
            self._now_in("")
        except (*AWAY, GatewayError) as error:
            self._now_in("Redis does not answer", error)
        except (RedisError, ValueError, TypeError) as error:
            self._now_in("the workers' heartbeats can't be read", error)

    def _now_in(self, trouble: str, error: Exception | None = None) -> None:
        if trouble != self._trouble:
            _log.warning("fleet.trouble", trouble=trouble or "over", error=type(error).__name__)
        self._trouble = trouble

    async def _look(self) -> None:
        if not self.listening:
            await self._client.start()
            self.listening = True
        self.workers = await live_workers(self._client.redis, self._client.keys)
        self._served = frozenset(model for worker in self.workers for model in worker.models)
        self._refusal = await refusal_to_write(self._client.redis)
        self._durability = await durability_problems(self._client.redis)
        self._ledger_whole = await is_initialised(self._client.redis, self._client.keys)
        self._seen_at = asyncio.get_running_loop().time()

    def serves(self, model: str) -> bool:
        """Whether a live worker serves a model; while none lives it may yet come."""
        return not self.workers or model in self._served

    def warnings(self) -> list[str]:
        """What an operator should see although requests are answered."""
        if self._ledger_whole:
            return []
        return ["the ledger is lost, nothing is admitted: run `model-gateway ledger rebuild` or `ledger init`"]

    def problems(self, *, durable: bool) -> list[str]:
        """Why requests would not be answered, or might be lost; empty when all is well.

        Args:
            durable: whether Redis must be set up to keep what it acknowledged.
        """
        if self._trouble:
            return [self._trouble]
        if asyncio.get_running_loop().time() - self._seen_at > _STALE_SECONDS:
            return ["Redis does not answer"]
        if self._refusal:  # the workers can't say that they live
            return [self._refusal]
        found = [] if self.workers else ["no worker is alive"]
        return found + self._durability if durable else found
