"""An agent's client: any operation, whole or streamed, straight onto the stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Self

import orjson

from model_gateway.client import IngressClient, StreamClient
from model_gateway.errors import GatewayError
from model_gateway.exchange import Exchange
from model_gateway.replies import Reply
from model_gateway.streams import Keys


class GatewayClient:
    """An agent's client: no HTTP, straight onto the request stream.

    >>> async with GatewayClient("redis://...", agent="demo", secret="...") as client:
    ...     reply = await client.complete(model="echo", messages=[{"role": "user", "content": "hi"}])
    """

    def __init__(
        self,
        redis_url: str,
        *,
        agent: str,
        secret: str,
        isolated: bool = False,
        keys: Keys = Keys(),  # noqa: B008 - frozen
    ) -> None:
        """``isolated``: as the agent's row in the config has it."""
        self._principal = f"agent-{agent}"
        if isolated:
            self._client: StreamClient = IngressClient(redis_url, agent=agent, secret=secret, keys=keys)
        else:
            self._client = StreamClient(redis_url, sender=self._principal, secret=secret, keys=keys)

    async def __aenter__(self) -> Self:
        await self._client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def complete(
        self,
        *,
        model: str,
        messages: list[dict[str, Any]],
        request_id: str | None = None,
        timeout: float = 120.0,  # noqa: ASYNC109 - the caller's bound on the whole call
        **fields: Any,
    ) -> dict[str, Any]:
        """One chat completion, whole.

        Args:
            model: a model's or a task's name.
            messages: OpenAI's chat messages.
            request_id: an id of your own; sent again, it is answered and not paid twice.
            timeout: seconds to wait for the reply.
            fields: the body's other fields, such as ``max_tokens``.

        Raises:
            GatewayError: what went wrong; ``request_timeout`` when no reply came in time.
        """
        body = {**fields, "model": model, "messages": messages}
        return await self.request("chat", body, request_id=request_id, timeout=timeout)

    def stream(
        self,
        *,
        model: str,
        messages: list[dict[str, Any]],
        request_id: str | None = None,
        timeout: float = 120.0,
        **fields: Any,
    ) -> AsyncGenerator[dict[str, Any]]:
        """One chat completion in chunks; leaving the loop early cancels it.

        Raises:
            GatewayError: before the first chunk or between chunks; ``request_timeout`` when the next chunk took
                longer than ``timeout`` seconds.
        """
        body = {**fields, "model": model, "messages": messages}
        return self.events("chat", body, request_id=request_id, timeout=timeout)

    async def request(
        self,
        operation: str,
        body: dict[str, Any],
        *,
        request_id: str | None = None,
        timeout: float = 120.0,  # noqa: ASYNC109 - the caller's bound on the whole call
    ) -> dict[str, Any]:
        """Any operation, whole: ``chat``, ``embeddings``, ``responses``, ``messages``, ``count_tokens``.

        Args:
            operation: one of ``model_gateway.dialects.OPERATIONS``.
            body: as the operation's dialect has it; ``model`` is a model's or a task's name.
            request_id: an id of your own; sent again, it is answered and not paid twice.
            timeout: seconds to wait for the reply.

        Raises:
            GatewayError: what went wrong; ``request_timeout`` when no reply came in time.
        """
        async with await self._submit(operation, body, request_id) as exchange:
            reply = await _next(exchange, timeout)
        return _object(reply)

    async def events(
        self,
        operation: str,
        body: dict[str, Any],
        *,
        request_id: str | None = None,
        timeout: float = 120.0,  # noqa: ASYNC109 - the caller's bound on each wait
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events of any operation that can be streamed; leaving the loop early cancels it. See ``request``.

        Raises:
            GatewayError: before the first event or between events; ``request_timeout`` when the next one took
                longer than ``timeout`` seconds.
        """
        async with await self._submit(operation, {**body, "stream": True}, request_id) as exchange:
            ended = False
            try:
                while not ended:
                    reply = await _next(exchange, timeout)
                    ended = reply.end
                    yield _object(reply)
            finally:
                if not ended:
                    await exchange.cancel()

    async def _submit(self, operation: str, body: dict[str, Any], request_id: str | None) -> Exchange:
        model = body.get("model")
        return await self._client.submit(
            principal=self._principal,
            model=model if isinstance(model, str) else "",
            body=orjson.dumps(body),
            operation=operation,
            request_id=request_id,
        )


async def _next(exchange: Exchange, timeout: float) -> Reply:  # noqa: ASYNC109
    try:
        return await exchange.next(timeout)
    except TimeoutError:
        raise GatewayError("request_timeout", f"no reply to {exchange.request_id} in {timeout:g} s") from None


def _object(reply: Reply) -> dict[str, Any]:
    """The reply's object, or its error raised."""
    if reply.kind == "error":
        raise _error(reply)
    found: dict[str, Any] = orjson.loads(reply.data)
    return found


def _error(reply: Reply) -> GatewayError:
    """The error that a reply tells of, whatever the dialect of its body."""
    members = orjson.loads(reply.data)
    said = members.get("error")
    details = said if isinstance(said, dict) else members
    code, message = (
        reply.code or details.get("code") or "internal_error",
        details.get("message") or "an unreadable error",
    )
    return GatewayError(
        str(code), str(message), param=details.get("param"), retry_after=reply.retry_after, status=reply.status
    )
