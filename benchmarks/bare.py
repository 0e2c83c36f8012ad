"""A bare aiohttp server to compare with: it parses the body and answers a fixed chat completion.

A stream is answered as cheaply as can be: all events in one write.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import orjson
import uvloop
from aiohttp import web

TEXT = "All work and no play makes Jack. " * 8
CHUNK_CHARS = 16


def _object(kind: str, **choice: Any) -> bytes:
    head = {"id": "chatcmpl-bare", "object": kind, "created": 1_735_689_600, "model": "echo"}
    usage = {"prompt_tokens": 66, "completion_tokens": 66, "total_tokens": 132}
    return orjson.dumps({**head, "choices": [{"index": 0, "logprobs": None, **choice}], "usage": usage})


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    return b"data: %b\n\n" % _object("chat.completion.chunk", delta=delta, finish_reason=finish)


PIECES = [{"content": TEXT[start : start + CHUNK_CHARS]} for start in range(0, len(TEXT), CHUNK_CHARS)]
WHOLE = _object("chat.completion", message={"role": "assistant", "content": TEXT}, finish_reason="stop")
STREAM = b"".join([*map(_chunk, [{"role": "assistant"}, *PIECES]), _chunk({}, "stop"), b"data: [DONE]\n\n"])


async def complete(request: web.Request) -> web.Response:
    body = orjson.loads(await request.read())
    if body.get("stream"):
        return web.Response(body=STREAM, content_type="text/event-stream")
    return web.Response(body=WHOLE, content_type="application/json")


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
