"""The load: requests whole and streamed, half of them by HTTP and half by an agent, and what each client was told."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from model_gateway import GatewayError
from model_gateway.agent_client import GatewayClient
from model_gateway.signing import verify_reply, verify_stream
from tests.processes import ADMIN_TOKEN, HMAC_SECRET

MODEL = "paid"
NOT_TAKEN = frozenset({"redis_unavailable", "queue_full", "storage_full", "model_unavailable", "overloaded"})
"""Refusals after which a client asks again. The first of them leaves open whether the request was accepted."""

_RETRY_SECONDS = 0.25
_REPLY_SECONDS = 90.0
_WORDS = "some words to be paid for, and to be cut into chunks on their way back"


@dataclass(frozen=True, slots=True)
class Told:
    """How one request ended for its client.

    Attributes:
        text: what was asked; unique for each request that a client can have put on the stream.
        request_id: as the client knows it; empty where it was refused.
        code: ``done``, or the error's code.
        cut: an HTTP connection broke before the answer's end.
    """

    text: str
    request_id: str
    code: str
    cut: bool = False


@dataclass(slots=True)
class Load:
    """Clients that keep asking until as many requests have had their answer as there are to be.

    Attributes:
        requests: how many.
        at_once: how many of them may be under way.
        per_second: how many are begun in a second at most.
        told: what the clients were told so far, refusals included.
    """

    requests: int
    at_once: int
    per_second: float
    told: list[Told] = field(default_factory=list)

    async def run(self, url: str, agent: GatewayClient) -> None:
        """Ask everything; fails where an answer is not what was asked for, or not signed."""
        room = asyncio.Semaphore(self.at_once)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        connector = aiohttp.TCPConnector(limit=0)
        started = asyncio.get_running_loop().time()
        async with (
            aiohttp.ClientSession(url, connector=connector, headers=headers) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self.requests):
                await room.acquire()
                ahead = started + number / self.per_second - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, ahead))
                asking = self._by_agent(agent, number) if number % 2 else self._by_http(session, number)
                group.create_task(asking).add_done_callback(lambda _: room.release())

    def ended(self) -> int:
        """How many requests have had their answer."""
        return sum(told.code not in NOT_TAKEN for told in self.told)

    # -- by HTTP

    async def _by_http(self, session: aiohttp.ClientSession, number: int) -> None:
        """A client that gets a new id for each try, as the front door makes it."""
        for tries in itertools.count():
            told = await self._post(session, f"storm-{number}-{tries}: {_WORDS}", stream=number % 4 == 0)
            self.told.append(told)
            if told.code not in NOT_TAKEN:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _post(self, session: aiohttp.ClientSession, text: str, *, stream: bool) -> Told:
        body = orjson.dumps({**_fields(text), "stream": stream})
        request_id = ""
        try:
            async with session.post("/v1/chat/completions", data=body) as answer:
                request_id = answer.headers["x-request-id"]
                payload = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            print(f"connection lost: {error!r} {request_id}")
            return Told(text, request_id, "connection_lost", cut=True)
        code = _code(payload, answer, (request_id, body), text)
        return Told(text, "" if code in NOT_TAKEN else request_id, code)

    # -- by agents

    async def _by_agent(self, agent: GatewayClient, number: int) -> None:
        """A client that asks again under the same id."""
        text, request_id = f"storm-{number}: {_WORDS}", f"storm-{number}"
        while True:
            try:
                said = await _said(agent, text, request_id, stream=number % 4 == 1)
            except GatewayError as error:
                code = error.code
            else:
                assert said == text, f"{request_id} was answered with {said!r}"
                code = "done"
            self.told.append(Told(text, "" if code in NOT_TAKEN else request_id, code))
            if code not in NOT_TAKEN:
                return
            await asyncio.sleep(_RETRY_SECONDS)


def _fields(text: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


async def _said(agent: GatewayClient, text: str, request_id: str, *, stream: bool) -> str:
    asked: dict[str, Any] = {**_fields(text), "request_id": request_id, "timeout": _REPLY_SECONDS}
    if not stream:
        reply = await agent.complete(**asked)
        return str(reply["choices"][0]["message"]["content"])
    return "".join([_delta(chunk) async for chunk in agent.stream(**asked)])


def _delta(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def _code(payload: bytes, answer: aiohttp.ClientResponse, asked: tuple[str, bytes], text: str) -> str:
    """``done`` for a good answer, signed and to this request; else the error's code."""
    request_id, body = asked
    if answer.content_type == "text/event-stream":
        return _stream_code(payload, asked, text)
    found = orjson.loads(payload)
    if answer.status != 200:
        return str(found["error"]["code"])
    assert verify_reply(payload, HMAC_SECRET, request_id=request_id, request_body=body)
    assert found["choices"][0]["message"]["content"] == text
    return "done"


def _stream_code(payload: bytes, asked: tuple[str, bytes], text: str) -> str:
    events = [line[6:] for line in payload.split(b"\n") if line.startswith(b"data: ")]
    if events[-1] != b"[DONE]":
        return str(orjson.loads(events[-1])["error"]["code"])
    request_id, body = asked
    assert verify_stream(events[:-1], HMAC_SECRET, request_id=request_id, request_body=body)
    assert "".join(_delta(orjson.loads(event)) for event in events[:-1]) == text
    return "done"
