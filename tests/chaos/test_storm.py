"""Requests of every kind while workers are killed and frozen; then everything must add up.

The seed is fixed and printed; ``CHAOS_SEED`` and ``CHAOS_REQUESTS`` change the storm.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from decimal import Decimal

from model_gateway import GatewayError
from model_gateway.events import CHARGING
from tests.invariants import check_budget, check_idle, events_of
from tests.processes import gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

SEED = int(os.environ.get("CHAOS_SEED", "20261123"))
REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "150"))
WORKERS = ("w1", "w2", "w3")
NANO_PER_TOKEN = Decimal("1234.567")  # a price that floats and early rounding would lose
LIMIT = 20_000_000_000
CONFIG = """
models:
  paid: {{provider: openai, api_base: "{base_url}", input_cost: 0.000001234567, output_cost: 0.000001234567,
    max_tokens: 100}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
"""


async def test_no_request_is_lost_or_paid_twice_while_workers_are_killed_and_frozen(redis, redis_url, tmp_path):
    print(f"seed {SEED}, {REQUESTS} requests")
    chance = random.Random(SEED)
    async with (
        Upstream() as upstream,
        gateway(redis, redis_url, tmp_path, CONFIG.format(base_url=upstream.base_url)) as house,
        house.agent() as agent,
    ):
        upstream.script["paid"] = Behaviour(delay=0.05, text="a reply of some words, cut into chunks")
        parts = {name: await house.start_worker(name) for name in WORKERS}
        room = asyncio.Semaphore(20)
        asking = [asyncio.create_task(_ask(agent, number, room)) for number in range(REQUESTS)]
        await _trouble(house, parts, asking, chance)
        results = await asyncio.gather(*asking)
        ids = {f"storm-{number}" for number in range(REQUESTS)}
        await check_idle(redis, LIMIT, ids)
        await _check_provider(redis, upstream)
        assert set(results) <= {"done", "outcome_unknown"}, Counter(results)


async def _ask(agent, number, room):
    """One request, whole or streamed, under an id of its own; how it ended."""
    fields = {"model": "paid", "messages": [{"role": "user", "content": f"storm-{number}"}], "timeout": 60.0}
    async with room:
        try:
            if number % 2:
                await agent.complete(**fields, request_id=f"storm-{number}")
            else:
                async for _ in agent.stream(**fields, request_id=f"storm-{number}"):
                    pass
        except GatewayError as error:
            return error.code
        return "done"


async def _trouble(house, parts, asking, chance):
    """Each time a tenth of the requests are through, kill or freeze a worker; another takes its name."""
    for tenth in range(1, 9):
        await wait_until(lambda goal=tenth: sum(task.done() for task in asking) >= goal * REQUESTS // 10, within=60)
        await check_budget(house.redis, LIMIT)
        name = chance.choice(WORKERS)
        if chance.random() < 0.7:
            await parts[name].stop(signal.SIGKILL)
            parts[name] = await house.start_worker(name)
        else:
            parts[name].send(signal.SIGSTOP)
            parts[name + "-frozen"] = parts[name]
            parts[name] = await house.start_worker(f"{name}-{tenth}")
    for part in parts.values():
        if part.process.returncode is None:
            part.send(signal.SIGCONT)


async def _check_provider(redis, upstream):
    """I5 and I6: one call at most for each attempt, and nothing that the provider charged is missing."""
    events = await events_of(redis)
    attempts = Counter(event["request_id"] for event in events if event["event_type"] == "model.request.start")
    calls = Counter(call["text"] for call in upstream.ledger()["requests"])
    assert {name: count for name, count in calls.items() if count > attempts[name]} == {}, "I5"
    settled = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
    print(Counter(event["event_type"] for event in events), f"{upstream.calls} calls")
    assert upstream.charged_tokens * NANO_PER_TOKEN <= settled + REQUESTS, "I6"
