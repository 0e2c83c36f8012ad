"""The insights process: what it is made of, from start to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import structlog
from redis.exceptions import RedisError

from gateway_insights.consumer import BLOCK_MS, Consumer
from gateway_insights.database import AWAY, Pool, connect, migrate
from gateway_insights.embed_loop import EmbedLoop
from gateway_insights.embedding import Embedder, GatewayAccess, make_embedder
from gateway_insights.migrate import SchemaError
from gateway_insights.partitions import drop_old, ensure
from gateway_insights.redaction import Redaction, secrets_of
from gateway_insights.server import create_app, serving
from gateway_insights.texts import Texts
from model_gateway.clock import Clock
from model_gateway.connection import COMMAND_TIMEOUT
from model_gateway.connection import connect as connect_redis
from model_gateway.environment import Environment
from model_gateway.insights import HEARTBEAT_SECONDS, InsightsState, beat, find, insights_secret
from model_gateway.settings import ConfigError, GatewayConfig
from model_gateway.streams import Keys
from model_gateway.tasks import background, watch

_log = structlog.get_logger(__name__)

RETENTION_SECONDS: Final = 600.0
_RETRY_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 2.0
_STARTING: Final = "the insights process is starting"
_NO_DATABASE: Final = "DATABASE_URL is not set: there is no PostgreSQL to keep insights in"
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


class InsightsProcess:
    """Consumer, embedding, retention, HTTP server and heartbeat, wired together."""

    def __init__(
        self,
        environment: Environment,
        config: GatewayConfig,
        *,
        keys: Keys = Keys(),  # noqa: B008 - frozen
        clock: Clock | None = None,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: the settings can't be used.
        """
        self._environment = environment
        self._settings = config.insights
        self._keys = keys
        self._clock = clock or Clock()
        self._redact = Redaction(self._settings.redact, secrets_of(variables))
        self._redis = connect_redis(environment.redis_url)
        self._reading = connect_redis(environment.redis_url, read_timeout=BLOCK_MS / 1000 + COMMAND_TIMEOUT)
        self._secret = insights_secret(environment.hmac_secret)
        self._consumer: Consumer | None = None
        self._url = ""
        self._problem = _STARTING if environment.database_url else _NO_DATABASE
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End; a batch under way is rolled back and read again by whoever comes next."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            ConfigError: the embedding model or the database's URL can't be used.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._redis.aclose)
            stack.push_async_callback(self._reading.aclose)
            beating = await stack.enter_async_context(background(self._heartbeat(), "heartbeat"))
            work = self._work() if self._environment.database_url else self._stopped()
            working = await stack.enter_async_context(background(work, "insights"))
            stopping = await stack.enter_async_context(background(self._stopped(), "stop"))
            await watch(stopping, beating, working)
        _log.info("insights.stopped")

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _work(self) -> None:
        """Everything that needs PostgreSQL, from when it is there."""
        settings, environment = self._settings, self._environment
        access = GatewayAccess(environment.redis_url, environment.hmac_secret, self._keys)
        embedder = await asyncio.to_thread(make_embedder, settings.embedding, access)
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(self._pool())
            await self._prepare(pool)
            # Only now: a connection that is older than the extension does not know vectors.
            asked = await stack.enter_async_context(self._pool())
            app = create_app(asked, embedder, settings, self._secret, self._clock)
            url = await stack.enter_async_context(serving(app, environment.host, 0))
            texts = Texts(self._reading, self._keys, settings, self._redact, self._secret)
            self._consumer = Consumer(self._reading, pool, self._keys, texts, batch=settings.batch)
            consuming = await stack.enter_async_context(background(self._consumer.run(), "consumer"))
            keeping = await stack.enter_async_context(background(self._keep(pool), "retention"))
            others = [keeping]
            if embedder is not None:
                embedding = self._embed(asked, embedder, texts, self._consumer)
                others.append(await stack.enter_async_context(background(embedding, "embedding")))
            self._url, self._problem = _advertised(url), ""
            _log.info("insights.started", url=self._url, embedding=settings.embedding)
            await watch(consuming, *others)

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[Pool]:
        """A pool, as soon as PostgreSQL is there."""
        while True:
            try:
                pool = await connect(self._environment.database_url)
                break
            except ValueError as error:
                raise ConfigError("environment", [f"DATABASE_URL: {error}"]) from None
            except AWAY as error:
                await self._wait(error)
        try:
            yield pool
        finally:
            pool.terminate()

    async def _prepare(self, pool: Pool) -> None:
        """Migrate, and make the partitions of these days, as soon as PostgreSQL lets us."""
        while True:
            try:
                await migrate(pool)
                await ensure(pool, self._now())
            except (asyncpg.PostgresError, SchemaError, *AWAY) as error:
                await self._wait(error)
            else:
                return

    async def _wait(self, error: BaseException) -> None:
        problem = f"PostgreSQL can't be used: {type(error).__name__}: {str(error)[:200]}"
        if problem != self._problem:
            _log.warning("insights.database_away", error=problem)
        self._problem = problem
        await asyncio.sleep(_RETRY_SECONDS)

    async def _keep(self, pool: Pool) -> None:
        """Make the partitions of the days to come, and drop those past their time."""
        while True:
            try:
                await ensure(pool, self._now())
                dropped = await drop_old(pool, self._now(), self._settings.retention_days)
                if dropped:
                    _log.info("insights.dropped", partitions=dropped)
            except (asyncpg.PostgresError, *AWAY) as error:
                _log.warning("insights.retention_waits", error=type(error).__name__)
            await asyncio.sleep(RETENTION_SECONDS)

    async def _embed(self, pool: Pool, embedder: Embedder, texts: Texts, consumer: Consumer) -> None:
        """Embed what waits for a vector, once this process is in charge."""
        await consumer.leading.wait()
        await EmbedLoop(pool, embedder, texts.of_events).run()

    async def _heartbeat(self) -> None:
        """Say where this process is, and why it can't answer if it can't; of several the one in charge."""
        try:
            while True:
                try:
                    if await self._speaks():
                        await beat(self._redis, self._keys, self._state())
                except (RedisError, OSError) as error:
                    _log.debug("insights.no_heartbeat", error=type(error).__name__)
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            await self._leave()

    async def _speaks(self) -> bool:
        if self._consumer is not None and self._consumer.leading.is_set():
            return True
        other = await find(self._redis, self._keys)
        return other is None or other.url == self._url

    def _state(self) -> InsightsState:
        problem = self._problem or (self._consumer.problem if self._consumer is not None else "")
        return InsightsState(self._url, self._clock.now_ms(), problem)

    async def _leave(self) -> None:
        """Take the heartbeat of a process that ends away, so that nobody asks it."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                known = await find(self._redis, self._keys)
                if known is not None and known.url == self._url:
                    await self._redis.delete(self._keys.insights)
        except (RedisError, OSError):
            _log.debug("insights.left_silently")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


def _advertised(url: str) -> str:
    """Where others reach what listens at a URL: a process that listens everywhere, by its host's name."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    return f"http://{socket.gethostname()}:{port}" if host in _ANYWHERE else url


async def serve(environment: Environment, config: GatewayConfig) -> None:
    """Run the insights process until SIGTERM or SIGINT."""
    process = InsightsProcess(environment, config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    await process.run()
