"""Prometheus metrics: the published names, and labels that no client can choose."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_gateway.settings import ConfigError
from tests.api.stream_worker import KEYS

METRICS_TOKEN = "a-token-for-metrics-that-is-long-enough-003"


async def scrape(api, **headers) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values, in the order of the text, to its value."""
    async with api.session.get(api.url("/metrics"), headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


async def test_the_published_metrics_are_read_out_of_redis(api, redis):
    counted = {
        "requests|echo": 3,
        "latency|0.005|echo": 1,
        "latency|0.1|echo": 1,
        "latency|+Inf|echo": 1,
        "latency_ms|echo": 301_000,
        "cost_nano": 1_500_000_000,
        "budget_exceeded": 2,
    }
    await redis.hset(KEYS.counters, mapping=counted)
    found = await scrape(api)
    assert found["titan_model_requests_total", "echo"] == 3
    assert found["titan_cost_usd_total",] == 1.5
    assert found["titan_budget_exceeded_total",] == 2
    assert found["titan_model_latency_seconds_bucket", "0.005", "echo"] == 1
    assert found["titan_model_latency_seconds_bucket", "0.1", "echo"] == 2
    assert found["titan_model_latency_seconds_bucket", "+Inf", "echo"] == 3
    assert found["titan_model_latency_seconds_count", "echo"] == 3
    assert found["titan_model_latency_seconds_sum", "echo"] == 301


async def test_the_fleet_and_the_queue_are_shown(api, redis, worker):
    await redis.xgroup_create(KEYS.requests, "workers", id="0", mkstream=True)
    for _ in range(2):
        await redis.xadd(KEYS.requests, {"v": "1"})
    await redis.xreadgroup("workers", "one", {KEYS.requests: ">"}, count=1)
    found = await scrape(api)
    shown = {name[0]: value for name, value in found.items() if name[0].startswith("gateway_")}
    assert shown["gateway_queue_depth"] == 2
    assert shown["gateway_queue_lag"] == 1
    assert shown["gateway_queue_pending"] == 1
    assert shown["gateway_workers"] == 1
    assert shown["gateway_slots"] == 512
    assert shown["gateway_slots_in_use"] == 3
    assert shown["gateway_requests_parked"] == 1
    assert shown["gateway_redis_up"] == 1


async def test_requests_are_counted_by_route_and_status(api):
    await api.call("POST", "/proxy/canary-model", data=b"{")
    await api.call("GET", "/canary-path")
    await api.call("GET", "/v1/models/canary-name")
    found = await scrape(api)
    assert found["gateway_http_requests_total", "/proxy/{model}", "400"] == 1
    assert found["gateway_http_requests_total", "unmatched", "404"] == 1
    assert found["gateway_http_requests_total", "/v1/models/{id}", "404"] == 1
    assert found["gateway_http_connections",] >= 1
    assert not any("canary" in label for sample in found for label in sample)


async def test_a_model_that_the_config_does_not_know_is_no_label(api, redis):
    await redis.hset(KEYS.counters, mapping={"requests|stranger": 1, "latency|0.1|stranger": 1})
    assert not any("stranger" in sample for sample in await scrape(api))


async def test_a_token_may_close_them(start, worker):
    config = "models: {echo: {provider: echo, free: true}}\nmetrics: {token: SCRAPE_TOKEN}"
    async with start(config, variables={"SCRAPE_TOKEN": METRICS_TOKEN}) as api:
        assert await scrape(api, Authorization=f"Bearer {METRICS_TOKEN}")
        assert (await api.call("GET", "/metrics")).status == 401


@pytest.mark.parametrize("variables", [{}, {"SCRAPE_TOKEN": "short"}])
async def test_a_missing_or_weak_metrics_token_is_refused_at_the_start(start, variables):
    config = "models: {echo: {provider: echo, free: true}}\nmetrics: {token: SCRAPE_TOKEN}"
    with pytest.raises(ConfigError, match="SCRAPE_TOKEN"):
        async with start(config, variables=variables):
            pass
