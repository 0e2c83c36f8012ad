"""This process's own metrics; the published ones are counted in Redis."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway_worker.delivery import Slots

_SCRIPT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class WorkerMetrics:
    """Slots, script times, provider errors by kind."""

    def __init__(self, slots: Slots) -> None:
        self.registry = CollectorRegistry()
        self._gauge("gateway_worker_slots", "Requests that may be in hand", lambda: slots.limit)
        self._gauge("gateway_worker_slots_in_use", "Requests in hand", lambda: slots.in_use)
        self._gauge("gateway_worker_parked", "Requests that wait for a busy deployment", lambda: slots.parked)
        self.admit = self._histogram("gateway_worker_admit_seconds", "Time to admit a request")
        self.settle = self._histogram("gateway_worker_settle_seconds", "Time to settle a request")
        self.provider_errors = Counter(
            "gateway_worker_provider_errors",
            "Calls that failed, by kind",
            ["model", "code"],
            registry=self.registry,
        )
        self.retries = Counter(
            "gateway_worker_retries",
            "Calls that failed and were followed by another, by kind",
            ["deployment", "code"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "gateway_worker_dead_letters", "Entries that could not be run", registry=self.registry
        )
        self.ingress_entries = Counter(
            "gateway_worker_ingress_entries",
            "Entries of isolated agents that this worker dealt with, by what became of them",
            ["agent", "result"],
            registry=self.registry,
        )

    def _gauge(self, name: str, text: str, value: object) -> None:
        Gauge(name, text, registry=self.registry).set_function(value)  # type: ignore[arg-type]

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SCRIPT_BUCKETS, registry=self.registry)
