"""One worker process: what it is made of, from start to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import generate_latest
from redis.exceptions import RedisError

from gateway_worker.deployments import Deployments
from gateway_worker.forwarder import Forwarder
from gateway_worker.ingress import Ingress
from gateway_worker.janitor import Janitor
from gateway_worker.metrics import WorkerMetrics
from gateway_worker.pipeline import Pipeline
from gateway_worker.reconciliation import Reconciliation, Witnesses
from gateway_worker.transitions import Transitions
from gateway_worker.worker import BLOCK_MS, Worker
from model_gateway.clock import Clock
from model_gateway.connection import COMMAND_TIMEOUT, connect
from model_gateway.environment import Environment, sender_secrets
from model_gateway.fleet import HEARTBEAT_SECONDS, WorkerState, beat, leave
from model_gateway.ledger import GATEWAY_SCOPE
from model_gateway.scripts import Scripts
from model_gateway.settings import GatewayConfig
from model_gateway.streams import Keys
from model_gateway.tasks import background, watch

_log = structlog.get_logger(__name__)


class WorkerProcess:
    """Delivery, pipeline, heartbeat, janitor and metrics, wired together."""

    def __init__(
        self,
        environment: Environment,
        config: GatewayConfig,
        *,
        keys: Keys = Keys(),  # noqa: B008 - frozen
        clock: Clock | None = None,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self._environment = environment
        self._config = config
        self._keys = keys
        self._clock = clock or Clock()
        self._variables = variables
        self.name = environment.worker_name or f"{socket.gethostname()}-{os.getpid()}"
        self.redis = connect(environment.redis_url)
        self._reading = connect(environment.redis_url, read_timeout=BLOCK_MS / 1000 + COMMAND_TIMEOUT)
        self.scripts = Scripts(self.redis, self._clock)
        self._witnesses = Witnesses(time.monotonic, GATEWAY_SCOPE)
        reconciliation = Reconciliation(
            self.redis, self.scripts, keys, self._witnesses, worker=self.name, budget=config.budget
        )
        self.worker = Worker(self._reading, self.scripts, keys, config, self.name, reconcile=reconciliation.check)
        self.metrics = WorkerMetrics(self.worker.slots)

    def stop(self) -> None:
        """Drain, then end."""
        self.worker.stop()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            ConfigError: the config can't be served.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_connections)
            http = await stack.enter_async_context(_session())
            deployments = Deployments.load(self._config, http, self._variables)
            stack.push_async_callback(deployments.close)
            pipeline = self._pipeline(deployments)
            port = await stack.enter_async_context(self._serve_metrics())
            beating = await stack.enter_async_context(background(self._heartbeat(deployments.names, port), "heartbeat"))
            sweeping = await stack.enter_async_context(background(self._janitor().run(), "janitor"))
            watched = [beating, sweeping]
            if isolated := [name for name, agent in self._config.agents.items() if agent.isolated]:
                forwarding = background(self._forwarder(isolated).run(), "forwarder")
                watched.append(await stack.enter_async_context(forwarding))
            working = await stack.enter_async_context(background(self.worker.run(pipeline.run), "worker"))
            _log.info("worker.started", worker=self.name, models=deployments.names, metrics_port=port)
            await watch(working, *watched)
        _log.info("worker.stopped", worker=self.name)

    def _pipeline(self, deployments: Deployments) -> Pipeline:
        keyring = self._environment.keyring
        return Pipeline(
            config=self._config,
            keys=self._keys,
            transitions=Transitions(self.scripts, self._keys, self._config, self.name, self._witnesses),
            deployments=deployments,
            keyring=keyring,
            sender_secrets=sender_secrets(self._config, keyring, self._variables),
            metrics=self.metrics,
            clock=self._clock,
        )

    def _janitor(self) -> Janitor:
        config = self._config
        return Janitor(
            self.redis,
            self.scripts,
            self._keys,
            config.retention,
            clock=self._clock,
            name=self.name,
            insights=config.insights.enabled,
        )

    def _forwarder(self, isolated: list[str]) -> Forwarder:
        config, keyring = self._config, self._environment.keyring
        return Forwarder(
            self.redis,
            [Ingress(self.scripts, self._keys, config, name, self.name) for name in isolated],
            keyring=keyring,
            sender_secrets=sender_secrets(config, keyring, self._variables),
            dedupe_seconds=config.retention.dedupe_seconds,
            metrics=self.metrics,
            clock=self._clock,
        )

    async def _heartbeat(self, models: list[str], port: int) -> None:
        slots = self.worker.slots
        try:
            while True:
                state = WorkerState(
                    name=self.name,
                    models=models,
                    slots=slots.limit,
                    in_use=slots.in_use,
                    parked=slots.parked,
                    metrics_port=port,
                )
                try:
                    await beat(self.redis, self._keys, state)
                except (RedisError, OSError) as error:
                    _log.debug("worker.no_heartbeat", error=str(error)[:200])
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            try:
                await leave(self.redis, self._keys, self.name)
            except (RedisError, OSError):
                _log.debug("worker.left_silently", worker=self.name)

    @asynccontextmanager
    async def _serve_metrics(self) -> AsyncIterator[int]:
        """``/metrics`` on a port of this process's own. Yields the port."""

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, self._environment.host, self._environment.metrics_port)
        await site.start()
        try:
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    async def _close_connections(self) -> None:
        await self.scripts.close()
        await self.redis.aclose()
        await self._reading.aclose()


def _session() -> aiohttp.ClientSession:
    """The shared session: each deployment bounds its own calls, and no cookie crosses providers."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60), cookie_jar=aiohttp.DummyCookieJar()
    )


async def serve(environment: Environment, config: GatewayConfig) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    process = WorkerProcess(environment, config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    await process.run()
