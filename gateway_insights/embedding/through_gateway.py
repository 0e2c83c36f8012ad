"""An embeddings model that the gateway itself serves, paid from the budget like any other request.

The requests go onto the request stream as a front door's do: signed with the front doors' secret, under a principal
of their own, ``insights``. So they are reserved, settled and told of in events, and need neither the admin's token nor
the front door's address. Their own events become rows too; those are never embedded (``OWN_PRINCIPAL``).
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway_insights.embedding.sql import OWN_PRINCIPAL
from gateway_insights.embedding.texts import both_ends
from model_gateway.client import StreamClient
from model_gateway.envelope import front_door_secret
from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange
from model_gateway.streams import Keys

_SENDER: Final = "http-insights"
_MOST_CHARACTERS: Final = 4_000
"""Of one text: most models take 8,192 tokens, and few scripts need two tokens for a character."""
_MOST_TEXTS: Final = 64
_PROBE: Final = "How long is a vector?"


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """How to reach the gateway from inside.

    Attributes:
        redis_url: where the request stream is.
        hmac_secret: the gateway's; the envelope's secret derives from it.
        keys: the streams' names.
        timeout_seconds: how long to wait for one reply.
    """

    redis_url: str = field(repr=False)
    hmac_secret: str = field(repr=False)
    keys: Keys = Keys()  # noqa: RUF009 - frozen
    timeout_seconds: float = 10.0


class ThroughGateway:
    """Vectors from a model of the gateway. The first use asks it once how long its vectors are.

    A call that failed midway is asked anew under a new id, and so may be paid twice.
    """

    def __init__(self, model: str, access: GatewayAccess) -> None:
        self._model = model
        self._access = access
        self._length = 0
        self._measuring = threading.Lock()

    @property
    def name(self) -> str:
        """``gateway:<model>/<dimensions>``: another engine behind the same name must not mix with what is stored."""
        return f"gateway:{self._model}/{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has.

        Raises:
            GatewayError: the gateway did not answer.
        """
        with self._measuring:
            if not self._length:
                self._length = self._ask([_PROBE]).shape[1]
        return self._length

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of unit length, (n, dimensions).

        Raises:
            GatewayError: refused, too late or unreadable; ``budget_exceeded`` where the budget is gone.
        """
        shape = (len(texts), self.dimensions)
        if not texts:
            return np.empty(shape, np.float32)
        parts = [self._ask(texts[at : at + _MOST_TEXTS]) for at in range(0, len(texts), _MOST_TEXTS)]
        if any(part.shape[1] != self.dimensions for part in parts):
            raise _unreadable(self._model, "its vectors have another length than before; restart to take it up")
        return np.concatenate(parts)

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        bounded = [both_ends(text, _MOST_CHARACTERS) or " " for text in texts]
        reply = asyncio.run(self._request(orjson.dumps({"model": self._model, "input": bounded})))
        return _vectors(reply, len(texts), self._model)

    async def _request(self, body: bytes) -> dict[str, Any]:
        access = self._access
        client = StreamClient(
            access.redis_url, sender=_SENDER, secret=front_door_secret(access.hmac_secret), keys=access.keys
        )
        try:
            await client.start()
            exchange = await client.submit(
                principal=OWN_PRINCIPAL, model=self._model, body=body, operation="embeddings"
            )
            async with exchange:
                return await self._reply(exchange)
        finally:
            await client.close()

    async def _reply(self, exchange: Exchange) -> dict[str, Any]:
        try:
            reply = await exchange.next(self._access.timeout_seconds)
        except TimeoutError:
            await exchange.cancel()
            raise GatewayError("request_timeout", f"no vectors from '{self._model}' in time") from None
        found: dict[str, Any] = orjson.loads(reply.data)
        if reply.kind == "error":
            said = found.get("error") or {}
            raise GatewayError(reply.code or "internal_error", str(said.get("message", "")), status=reply.status)
        return found


def _vectors(reply: dict[str, Any], count: int, model: str) -> NDArray[np.float32]:
    """The vectors of an embeddings reply, in the order of the inputs, made unit length."""
    try:
        rows = sorted(reply["data"], key=lambda row: row["index"])
        found = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        raise _unreadable(model, "no vectors in the reply") from None
    if found.ndim != 2 or len(found) != count or not found.shape[1]:
        raise _unreadable(model, f"{count} vectors of one length expected")
    length = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.isfinite(length).all() or not length.all():
        raise _unreadable(model, "a vector has no direction")
    unit: NDArray[np.float32] = found / length
    return unit


def _unreadable(model: str, why: str) -> GatewayError:
    return GatewayError("upstream_invalid_response", f"embeddings of '{model}': {why}")
