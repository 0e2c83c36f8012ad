"""The far side of the streams, played by hand: a test takes a request and writes the entries it wants."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from model_gateway.envelope import Envelope, front_door_secret, open_envelope
from model_gateway.errors import GatewayError
from model_gateway.fleet import WorkerState
from model_gateway.ledger import initialise
from model_gateway.signing import ChunkChain, Keyring, seal_reply, seal_text, sha256_hex
from model_gateway.streams import Keys
from tests.processes import ADMIN_TOKEN, HMAC_SECRET

__all__ = ["ADMIN_TOKEN", "HMAC_SECRET", "KEYS", "StreamWorker", "Taken"]

KEYRING = Keyring((HMAC_SECRET,))
KEYS = Keys()
HOUR_MS = 3_600_000


@dataclass(slots=True)
class Taken:
    """A request off the stream, and the pen to answer it with."""

    redis: Redis
    envelope: Envelope
    chain: ChunkChain

    @property
    def body(self) -> dict[str, Any]:
        return orjson.loads(self.envelope.body)

    async def reply(self, content: str = "hello", *, usd_nano: int = 2_500, status: int = 200) -> bytes:
        text = orjson.dumps(completion(self.envelope.model, content))
        data = seal_reply(text, KEYRING, self.envelope.request_id, sha256_hex(self.envelope.body))
        await self._write("reply", data, status=str(status), end="1", usd_nano=str(usd_nano))
        return data

    async def error(self, error: GatewayError) -> bytes:
        data = seal_text(error.json(), KEYRING)
        extra = {"code": error.code}
        if error.retry_after is not None:
            extra["retry_after"] = str(error.retry_after)
        await self._write("error", data, status=str(error.status), end="1", usd_nano="0", **extra)
        return data

    async def chunk(self, content: str, *, final: bool = False) -> bytes:
        index = self.chain.index
        text = orjson.dumps(chunk(self.envelope.model, content, final=final))
        data = self.chain.seal(text, final=final)
        extra = {"end": "1", "usd_nano": "2500"} if final else {}
        await self._write("chunk", data, index=str(index), **extra)
        return data

    async def _write(self, kind: str, data: bytes, **fields: str) -> None:
        entry = {"id": self.envelope.request_id, "kind": kind, "data": data, **fields}
        await self.redis.xadd(KEYS.replies(self.envelope.sender), entry)


class StreamWorker:
    """Takes requests off the stream, in order."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._after = b"0-0"

    async def serve(self, *models: str) -> None:
        """Be alive, for the next hour, and serve these models, over a ledger that is whole."""
        await initialise(self._redis, KEYS)
        at_ms = time.time_ns() // 1_000_000 + HOUR_MS
        state = WorkerState("by-hand", at_ms, list(models), slots=512, in_use=3, parked=1)
        await self._redis.hset(KEYS.workers, state.name, orjson.dumps(asdict(state)))

    async def take(self) -> Taken:
        """The next request."""
        found: Any = None
        while not found:
            found = await self._redis.xread({KEYS.requests: self._after}, count=1, block=2_000)
        ((self._after, fields),) = found[0][1]
        envelope = open_envelope(fields, {"http": (front_door_secret(HMAC_SECRET),)})
        chain = ChunkChain(KEYRING, envelope.request_id, sha256_hex(envelope.body))
        return Taken(self._redis, envelope, chain)

    async def requests(self) -> int:
        """How many requests were ever put on the stream."""
        return await self._redis.xlen(KEYS.requests)

    async def cancelled(self) -> list[str]:
        """The ids of requests that a cancellation was asked for."""
        return [fields[b"id"].decode() for _, fields in await self._redis.xrange(KEYS.control)]


def completion(model: str, content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def chunk(model: str, content: str, *, final: bool) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": "stop" if final else None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [choice],
    }
