"""A front door in the test's own event loop, and a worker that is played by hand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest
from aiohttp import ClientResponse, ClientSession
from multidict import CIMultiDictProxy
from openai import AsyncOpenAI
from redis.asyncio import Redis

from gateway_api.app import create_door
from gateway_api.serve import Ports, serving
from gateway_api.state import FrontDoor
from model_gateway.connection import connect
from model_gateway.environment import Environment
from model_gateway.settings import parse_config
from tests.api.stream_worker import ADMIN_TOKEN, HMAC_SECRET, StreamWorker
from tests.redis_server import RedisServer

CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100, timeout: 20}
  org/large: {provider: openai, input_cost: 0.0000025, output_cost: 0.00001, max_tokens: 50}
  unpriced: {provider: openai}
  keyless: {provider: openai, free: true}
defaults: {vitals: echo}
limits: {body_bytes: 20000}
worker: {drain_seconds: 1}
"""


@dataclass
class Running:
    door: FrontDoor
    ports: Ports
    session: ClientSession

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports.http}{path}"

    async def call(self, method: str, path: str, **kwargs):
        """One request with the admin's token; status, headers and body."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"} | kwargs.pop("headers", {})
        async with self.session.request(method, self.url(path), headers=headers, **kwargs) as response:
            return Answer(response.status, response.headers, await response.read())

    async def open(self, body, path: str = "/v1/chat/completions") -> ClientResponse:
        """A streamed request's response, once its header is here."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        return await self.session.post(self.url(path), json=body, headers=headers)


@dataclass
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self):
        return orjson.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


@pytest.fixture
def start(redis_url, redis):
    """Starts a front door; the config can be added to, and its settings changed."""

    @asynccontextmanager
    async def started(config: str = CONFIG, *, silence_seconds: float = 15.0, variables=os.environ, **changes):
        environment = Environment(
            **{
                "redis_url": redis_url,
                "port": 0,
                "events_port": 0,
                "admin_token": ADMIN_TOKEN,
                "hmac_secret": HMAC_SECRET,
                **changes,
            }
        )
        door = create_door(environment, parse_config(config), silence_seconds=silence_seconds, variables=variables)
        async with serving(door) as ports, ClientSession(auto_decompress=False) as session:
            yield Running(door, ports, session)

    return started


@pytest.fixture
async def worker(redis) -> StreamWorker:
    """The far side of the streams; alive before the front door is."""
    worker = StreamWorker(redis)
    await worker.serve("echo", "org/large", "unpriced")
    return worker


@pytest.fixture
async def api(worker, start) -> AsyncIterator[Running]:
    async with start() as running:
        yield running


@pytest.fixture
async def sdk(api) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, unchanged but for where it calls; it tries once, so that a test counts calls."""
    base_url = api.url("/v1")
    async with AsyncOpenAI(base_url=base_url, api_key=ADMIN_TOKEN, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
async def own_redis(tmp_path) -> AsyncIterator[RedisServer]:
    """A server of the test's own, to stop and start again."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.close()


@pytest.fixture
async def own_client(own_redis) -> AsyncIterator[Redis]:
    """A client of the test's own server."""
    client = connect(own_redis.url)
    yield client
    await client.aclose()
