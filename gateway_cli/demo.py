"""``model-gateway demo``: a whole and a streamed request, what they cost, and whether their signatures hold."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from gateway_cli.demo_gateway import Target, find_gateway
from gateway_cli.errors import StartupError
from model_gateway.money import usd_text
from model_gateway.signing import Verdict, verify_reply, verify_stream

_MODEL: Final = "echo"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got.

    Attributes:
        text: the assistant's words.
        chunks: how many chunks they came in; 0 for a whole reply.
        request_id: as the response's header says it.
        verdict: what the verification of the signatures says.
        cost_usd: by the response's header; a stream has none, its header goes out before its cost is known.
    """

    text: str
    chunks: int
    request_id: str
    verdict: Verdict
    cost_usd: str = ""


def add_parser(commands: Any) -> None:
    """Add ``demo``."""
    parser = commands.add_parser("demo", help="send two requests, and show replies, costs and signatures")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Show it all; 1 when a signature does not hold."""
    return asyncio.run(_demonstrate())


async def _demonstrate() -> int:
    async with find_gateway() as target:
        headers = {"Authorization": f"Bearer {target.admin_token}"}
        async with aiohttp.ClientSession(target.url, headers=headers, timeout=_TIMEOUT) as http:
            return await _show(http, target)


async def _show(http: aiohttp.ClientSession, target: Target) -> int:
    before = await _budget(http)
    print(f"Model Gateway at {target.url}{target.note}")
    print(f"Budget: {_money(before['limit_nano'])} a day, {_money(before['spent_nano'])} spent\n")
    whole = await _whole(http, target)
    between = await _budget(http)
    _print_answer(f"POST /proxy/{_MODEL}", whole, f"${whole.cost_usd}")
    streamed = await _streamed(http, target)
    after = await _budget(http)
    cost = _money(after["spent_nano"] - between["spent_nano"])
    _print_answer(f'POST /proxy/{_MODEL} with "stream": true', streamed, cost)
    print(f"Budget: {_money(after['spent_nano'])} spent, {_money(after['reserved_nano'])} reserved")
    return 0 if whole.verdict and streamed.verdict else 1


def _money(nano: int) -> str:
    return f"${usd_text(nano)}"


def _print_answer(title: str, answer: Answer, cost: str) -> None:
    signed = f"{answer.chunks} chunks, chained and complete" if answer.chunks else "the reply to this request"
    print(title)
    print(f"  reply      {answer.text}")
    print(f"  cost       {cost}")
    print(f"  signature  {f'good: {signed}' if answer.verdict else f'BAD: {answer.verdict.reason}'}")
    print(f"  request    {answer.request_id}\n")


async def _budget(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/budget/stats") as response:
        return dict(orjson.loads(await _body(response)))


async def _whole(http: aiohttp.ClientSession, target: Target) -> Answer:
    body = _request_body("Every dollar is explained.", stream=False)
    async with http.post(f"/proxy/{_MODEL}", data=body, headers=_JSON) as response:
        raw = await _body(response)
        request_id = response.headers["x-request-id"]
        cost = response.headers["x-cost-usd"]
    verdict = verify_reply(raw, target.hmac_secrets, request_id=request_id, request_body=body)
    text = orjson.loads(raw)["choices"][0]["message"]["content"]
    return Answer(text, 0, request_id, verdict, cost)


async def _streamed(http: aiohttp.ClientSession, target: Target) -> Answer:
    body = _request_body("Every chunk is signed, and chained to the one before it.", stream=True)
    async with http.post(f"/proxy/{_MODEL}", data=body, headers=_JSON) as response:
        raw = await _body(response)
        request_id = response.headers["x-request-id"]
    chunks = _chunks(raw)
    verdict = verify_stream(chunks, target.hmac_secrets, request_id=request_id, request_body=body)
    return Answer(_joined(chunks), len(chunks), request_id, verdict)


_JSON: Final = {"Content-Type": "application/json"}


def _request_body(text: str, *, stream: bool) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 64, "stream": stream})


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The response's bytes.

    Raises:
        StartupError: the gateway answered with an error.
    """
    raw = await response.read()
    if response.status == 401:
        raise StartupError("the gateway does not accept this ADMIN_TOKEN; is its data directory another one?")
    if response.status != 200:
        raise StartupError(f"{response.url.path} answered {response.status}: {raw.decode(errors='replace')}")
    return raw


def _chunks(raw: bytes) -> list[bytes]:
    """The data of each server-sent event, without the end mark."""
    lines = [line.removeprefix(b"data: ") for line in raw.splitlines() if line.startswith(b"data: ")]
    return [line for line in lines if line != b"[DONE]"]


def _joined(chunks: Sequence[bytes]) -> str:
    choices = [choice for chunk in chunks for choice in orjson.loads(chunk).get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
