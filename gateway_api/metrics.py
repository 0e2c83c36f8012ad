"""``GET /metrics``: the fleet's figures out of Redis, and this process's own.

The ``titan_*`` metrics are the whole gateway's, whichever front door is asked: aggregate them with ``max``,
not ``sum``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway_api.auth import require
from gateway_api.state import FRONT_DOOR, FrontDoor
from model_gateway.connection import AWAY
from model_gateway.counters import Counters, read_counters
from model_gateway.fleet import QueueState, WorkerState, queue_state
from model_gateway.money import usd_number


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What Redis knows, read for one scrape."""

    counters: Counters
    queue: QueueState
    workers: list[WorkerState]


async def metrics(request: web.Request) -> web.Response:
    """``GET /metrics``: Prometheus text; without Redis, this process's own figures."""
    door = request.app[FRONT_DOOR]
    if door.metrics_token is not None:
        require(door.metrics_token, request)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(door, await _read(door)))
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def _read(door: FrontDoor) -> _Fleet | None:
    redis, keys = door.client.redis, door.client.keys
    try:
        return _Fleet(await read_counters(redis, keys), await queue_state(redis, keys), door.fleet.workers)
    except AWAY:
        return None


class _Reading(Collector):
    """One scrape."""

    def __init__(self, door: FrontDoor, fleet: _Fleet | None) -> None:
        self._traffic = door.traffic
        self._refused = door.gate.refused
        self._fleet = fleet
        self._models = frozenset(door.config.models)

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        yield from self._own()
        if self._fleet is not None:
            yield from self._published(self._fleet.counters)
            yield from _gauges(self._fleet)

    def _own(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("gateway_redis_up", "Whether Redis answered", int(self._fleet is not None))
        yield GaugeMetricFamily(
            "gateway_http_connections", "Open connections of this process", self._traffic.connections
        )
        yield CounterMetricFamily(
            "gateway_http_overloaded_total", "Requests that this process turned away under overload", self._refused
        )
        requests = CounterMetricFamily(
            "gateway_http_requests_total", "Answered requests of this process", labels=("route", "status")
        )
        for (route, status), count in sorted(self._traffic.requests.items()):
            requests.add_metric((route, str(status)), count)
        yield requests

    def _published(self, counters: Counters) -> Iterator[Metric]:
        requests = CounterMetricFamily("titan_model_requests_total", "Requests that ended, by model", labels=("model",))
        for model in sorted(self._models & counters.requests.keys()):
            requests.add_metric((model,), counters.requests[model])
        yield requests
        yield self._latency(counters)
        yield CounterMetricFamily("titan_cost_usd_total", "US dollars spent", usd_number(counters.cost_usd_nano))
        yield CounterMetricFamily(
            "titan_budget_exceeded_total", "Requests that went past the budget", counters.budget_exceeded
        )

    def _latency(self, counters: Counters) -> Metric:
        latency = HistogramMetricFamily(
            "titan_model_latency_seconds",
            "Seconds from taking a request up to settling it, by model",
            labels=("model",),
        )
        for model in sorted(self._models & counters.latency.keys()):
            histogram = counters.latency[model]
            buckets = [(str(bound), float(count)) for bound, count in histogram.buckets]
            buckets.append(("+Inf", float(histogram.count)))
            latency.add_metric((model,), buckets, histogram.sum_seconds)
        return latency


def _gauges(fleet: _Fleet) -> Iterator[Metric]:
    values = {
        "gateway_queue_depth": ("Requests that nobody has finished", fleet.queue.depth),
        "gateway_queue_lag": ("Requests that nobody has taken", fleet.queue.lag),
        "gateway_queue_pending": ("Requests that a worker has taken", fleet.queue.pending),
        "gateway_workers": ("Live worker processes", len(fleet.workers)),
        "gateway_slots": ("Slots of all workers", sum(worker.slots for worker in fleet.workers)),
        "gateway_slots_in_use": ("Slots in use", sum(worker.in_use for worker in fleet.workers)),
        "gateway_requests_parked": (
            "Requests that wait for a busy deployment",
            sum(worker.parked for worker in fleet.workers),
        ),
    }
    for name, (text, value) in values.items():
        yield GaugeMetricFamily(name, text, value)
