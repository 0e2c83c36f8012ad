"""Providers that break, each in its own way, what the gateway relies on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderSettings
from model_gateway.providers.openai import OpenAIProvider
from model_gateway.testing import UNKNOWN_FIELD

JSON = dict[str, Any]


class Provider(OpenAIProvider):
    """A good one, whose subclasses change what it gives."""

    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        return self.changed(orjson.loads(await super().complete(messages, model, **kwargs)))

    async def stream(self, /, messages: list[JSON], model: str, **kwargs: Any) -> AsyncIterator[Any]:
        number = 0
        async for chunk in super().stream(messages, model, **kwargs):
            for changed in self.changed_chunks(number, orjson.loads(chunk)):
                yield changed
            number += 1

    def changed(self, reply: JSON) -> JSON:
        return reply

    def changed_chunks(self, number: int, chunk: JSON) -> list[JSON]:
        return [chunk]


def whole_but(change: Callable[[JSON], Any]) -> type[Provider]:
    """A provider whose whole replies are changed in place."""

    class Changed(Provider):
        def changed(self, reply: JSON) -> JSON:
            change(reply)
            return reply

    return Changed


def chunks_but(change: Callable[[int, JSON], list[JSON] | None]) -> type[Provider]:
    """A provider whose chunks are changed in place, or replaced."""

    class Changed(Provider):
        def changed_chunks(self, number: int, chunk: JSON) -> list[JSON]:
            changed = change(number, chunk)
            return [chunk] if changed is None else changed

    return Changed


def failing(change: Callable[[GatewayError], BaseException]) -> type[Provider]:
    """A provider whose errors are others."""

    class Failing(Provider):
        async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
            try:
                return await super().complete(messages, model, **kwargs)
            except GatewayError as error:
                raise change(error) from None

    return Failing


def counting(count: Callable[[str], Any]) -> type[Provider]:
    class Counting(Provider):
        def count_tokens(self, text: str, model: str) -> int:
            return count(text)

    return Counting


class Retries(Provider):
    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        try:
            return await super().complete(messages, model, **kwargs)
        except GatewayError:
            return await super().complete(messages, model, **kwargs)


class Drops(Provider):
    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        kwargs.pop(UNKNOWN_FIELD, None)
        return await super().complete(messages, model, **kwargs)


class Refuses(Provider):
    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        if UNKNOWN_FIELD in kwargs:
            raise GatewayError("unsupported_parameter", "no", param=UNKNOWN_FIELD, billed=False)
        return await super().complete(messages, model, **kwargs)


class NeverGivesUp(Provider):
    """Goes on when it is cancelled or out of time, until the test is over."""

    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        for _ in range(10):
            try:
                return await super().complete(messages, model, **kwargs)
            except (asyncio.CancelledError, GatewayError):
                await asyncio.sleep(0.1)
        return None


class OneAtATime(Provider):
    """Forgets to let go when it is cancelled."""

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self.busy = False

    async def complete(self, /, messages: list[JSON], model: str, **kwargs: Any) -> Any:
        assert not self.busy
        self.busy = True
        reply = await super().complete(messages, model, **kwargs)
        self.busy = False
        return reply


class StuckStream(OneAtATime):
    async def stream(self, /, messages: list[JSON], model: str, **kwargs: Any) -> AsyncIterator[Any]:
        self.busy = True
        async for chunk in super().stream(messages, model, **kwargs):
            yield chunk
        self.busy = False


class CutLooksFinished(Provider):
    async def stream(self, /, messages: list[JSON], model: str, **kwargs: Any) -> AsyncIterator[Any]:
        last: JSON = {}
        try:
            async for chunk in super().stream(messages, model, **kwargs):
                last = chunk
                yield chunk
        except GatewayError:
            yield {**last, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class CanNotClose(Provider):
    async def close(self) -> None:
        await super().close()
        raise RuntimeError


def reply_choice(**members: Any) -> type[Provider]:
    return whole_but(lambda reply: reply["choices"][0].update(members))


def reply_call(**members: Any) -> type[Provider]:
    return whole_but(lambda reply: [call.update(members) for call in reply["choices"][0]["message"]["tool_calls"]])


def pieces_but(**members: Any) -> type[Provider]:
    """A provider whose streamed tool calls have other members."""

    def change(number: int, chunk: JSON) -> None:
        for choice in chunk["choices"]:
            for piece in choice["delta"].get("tool_calls") or ():
                piece.update(members)

    return chunks_but(change)


def again(number: int, chunk: JSON) -> list[JSON]:
    finishes = any(choice["finish_reason"] for choice in chunk["choices"])
    return [chunk, chunk] if finishes else [chunk]


def talks_on(number: int, chunk: JSON) -> list[JSON]:
    more = {**chunk, "choices": [{"index": 0, "delta": {"content": "more"}, "finish_reason": None}]}
    return [chunk, more] if any(choice["finish_reason"] for choice in chunk["choices"]) else [chunk]


def without_role(number: int, chunk: JSON) -> None:
    for choice in chunk["choices"]:
        choice["delta"].pop("role", None)


def other(error: GatewayError, **changed: Any) -> GatewayError:
    given = {"code": error.code, "billed": error.billed, "retry_after": error.retry_after, **changed}
    return GatewayError(given.pop("code"), f"failed {given.pop('say', '')}", **given)
