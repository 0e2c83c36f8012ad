"""One request over HTTP or by an agent, and how it ended for its client."""

from __future__ import annotations

import aiohttp
import orjson

from model_gateway import GatewayError
from tests.processes import ADMIN_TOKEN


async def ask_http(url, model, text="hello", *, stream=False):
    """Over HTTP: ``done``, or status, code and whether it says when to try again."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        text = await answer.text()
        if answer.status != 200:
            error = (await answer.json())["error"]
            return answer.status, error["code"], "Retry-After" in answer.headers
        last = text.rstrip().rpartition("\ndata: ")[2]
        return "done" if not stream or last == "[DONE]" else (200, orjson.loads(last)["error"]["code"], False)


async def ask_agent(agent, model, text="hello", *, stream=False):
    """The same by an agent."""
    asked = {"model": model, "messages": [{"role": "user", "content": text}]}
    try:
        if stream:
            _ = [chunk async for chunk in agent.stream(**asked)]
        else:
            await agent.complete(**asked)
    except GatewayError as error:
        return error.status, error.code, error.retry_after is not None
    return "done"
