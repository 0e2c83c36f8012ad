"""What mapping costs: CPU of one call with the network taken away, beside the same call over a socket.

Run as ``python -m benchmarks.mapping``. For each provider the scripted upstream, a process of its own, is called once
and its bytes are kept. Then calls are made over HTTP, and again with a transport that hands out those bytes: what is
left is the adapter's own work, JSON and server-sent events included. Both take turns; the medians of the rounds are
printed. The last rows are the dialects' way over chat: parsing the body, mapping it, telling the answer.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import orjson
import uvloop

from benchmarks.bare import TEXT
from benchmarks.children import bounded, running
from model_gateway.dialects import DIALECTS
from model_gateway.dialects.chat import chat_usage
from model_gateway.providers import ProviderFactory, ProviderInterface
from model_gateway.providers.transport import Reply
from model_gateway.settings import ModelRow

ROUNDS = 5
CALLS = 300
MOST_SECONDS = 170.0
SYSTEM = {"role": "system", "content": "Answer in one sentence."}
MESSAGES = [SYSTEM, {"role": "user", "content": TEXT}]
FIELDS: dict[str, Any] = {
    "max_tokens": 500,
    "temperature": 0.5,
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
}
SPEECHES = {
    "openai": "tests.upstream:openai_speech",
    "anthropic": "tests.upstream_anthropic:anthropic_speech",
    "google": "tests.upstream_google:google_speech",
}
BODIES: dict[str, dict[str, Any]] = {
    "messages": {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": TEXT}]},
    "responses": {"model": "m", "max_output_tokens": 500, "input": TEXT},
}

Call = Callable[[], Awaitable[object]]


class Canned:
    """A transport that answers with bytes that it was given."""

    def __init__(self, replies: Mapping[bool, bytes]) -> None:
        self._replies = replies

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Reply]:
        """The kept bytes, in one part; the body is written as for the wire."""
        orjson.dumps(body)
        streamed = bool(body.get("stream")) or "stream" in path.lower()
        yield Reply(200, {}, _once(self._replies[streamed]))

    async def close(self) -> None:
        """Nothing is held."""


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def kept(provider: Any) -> dict[bool, bytes]:
    """The upstream's bytes to a whole and to a streamed call."""
    found: dict[bool, bytes] = {}
    transport = provider._transport  # noqa: SLF001 - to take the network out of it
    real = transport.post

    @asynccontextmanager
    async def keep(path: str, body: Mapping[str, Any]) -> AsyncIterator[Reply]:
        async with real(path, body) as reply:
            data = b"".join([part async for part in reply.parts])
            found[bool(body.get("stream")) or "stream" in path.lower()] = data
            yield Reply(reply.status, reply.headers, _once(data))

    transport.post = keep
    await whole(provider)()
    await streamed(provider)()
    transport.post = real
    return found


def whole(provider: ProviderInterface) -> Call:
    """One whole call."""
    return lambda: provider.complete(MESSAGES, "good", **FIELDS)


def streamed(provider: ProviderInterface) -> Call:
    """One streamed call, read to its end."""

    async def call() -> int:
        return len([chunk async for chunk in provider.stream(MESSAGES, "good", **FIELDS)])

    return call


async def cpu_us(call: Call, calls: int) -> float:
    """CPU of one call in microseconds."""
    started = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - started) * 1e6 / calls


async def compare(name: str, kind: str, over_http: Call, mapped: Call) -> None:
    """Both in turns, and a row of it."""
    for call in (over_http, mapped):
        await cpu_us(call, CALLS // 10)
    rounds = [(await cpu_us(over_http, CALLS), await cpu_us(mapped, CALLS)) for _ in range(ROUNDS)]
    share = median(own / total for total, own in rounds)
    http, own = median(total for total, _ in rounds), median(own for _, own in rounds)
    print(f"{name:22} {kind:8} {own:12.0f} {http:14.0f} {share:8.0%}")


async def providers(stack: AsyncExitStack, folder: Path, http: aiohttp.ClientSession) -> None:
    """A row for each provider, whole and streamed."""
    for name, speech in SPEECHES.items():
        upstream = await stack.enter_async_context(
            running(folder, "tests.upstream", "--seconds", str(MOST_SECONDS), "--speech", speech)
        )
        base = f"http://127.0.0.1:{upstream.said}" + ("/v1" if name == "openai" else "")
        row = ModelRow.model_validate({"provider": name, "api_base": base, "free": True})
        real = ProviderFactory.create("benchmark", row, http, {})
        canned: Any = ProviderFactory.create("benchmark", row, http, {})
        canned._transport = Canned(await kept(real))  # noqa: SLF001 - as above
        await compare(name, "whole", whole(real), whole(canned))
        await compare(name, "streamed", streamed(real), streamed(canned))


def chunks() -> list[tuple[dict[str, Any], bytes]]:
    """A chat completion's chunks, as a provider gives them."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [[{"index": 0, "delta": {"content": TEXT[at : at + 4]}}] for at in range(0, len(TEXT), 4)]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    found = [head | {"choices": each} for each in choices]
    found.append(head | {"choices": [], "usage": {"prompt_tokens": 60, "completion_tokens": 64, "total_tokens": 124}})
    return [(chunk, orjson.dumps(chunk)) for chunk in found]


def dialect(operation: str, told: list[tuple[dict[str, Any], bytes]]) -> Call:
    """A body parsed and mapped, and a streamed answer told."""
    body = orjson.dumps({**BODIES[operation], "stream": True})

    async def call() -> int:
        request = DIALECTS[operation].parse(body)
        request.to_chat()
        writer = request.chat_writer("m", chat_usage)
        pieces = [piece for parsed, text in told for piece in writer.chunk(parsed, text)]
        return len([*pieces, *writer.end()])

    return call


async def main() -> None:
    """Every row."""
    print(f"CPU us of one call; medians of {ROUNDS} rounds of {CALLS} calls; a stream has 64 chunks of text")
    print(f"{'':22} {'':8} {'mapping us':>12} {'over HTTP us':>14} {'share':>8}")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        await providers(stack, folder, http)
    for operation in BODIES:
        if operation in DIALECTS:
            told = chunks()
            own = median([await cpu_us(dialect(operation, told), CALLS) for _ in range(ROUNDS)])
            print(f"{operation + ' over chat':22} {'streamed':8} {own:12.0f}")
    await asyncio.sleep(0)


if __name__ == "__main__":
    uvloop.run(bounded(main(), MOST_SECONDS))
