"""Processes killed at each point of a request's life: before and after each write, and at the provider.

A recording run tells the writes. Each is a point: a process is killed before Redis has the write, when Redis has
carried it out and the process does not know, and when it has just heard. Whoever takes over must end each request as
the rules say, given what was done by then (``life_rules``).
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from model_gateway.events import TERMINAL
from model_gateway.streams import GROUP
from tests.chaos.crash_stage import Killed, Point, Stage, on_stage
from tests.chaos.fault_models import KEYS, LIMIT, submitted
from tests.chaos.life_rules import BY_INGRESS, MODELS, Life, undisturbed
from tests.chaos.scale import FULL, SEED
from tests.invariants import check_idle, events_of
from tests.processes import ADMIN_TOKEN, ROOT, wait_until
from tests.redis_proxy import EMPTY, Fault, Moment, cut_after, known_scripts
from tests.upstream_replies import Behaviour

# Every command that a worker sends is one of these: what moves a request on, what keeps it or takes it over, what only
# looks, and what is no request's. A new one must be put into its place here.
WRITES = {"XREADGROUP", "admit", "advance", "note", "emit", "settle", "refuse", "dead_letter"}
WRITES |= {"look", "forward", "turn_away"}
ELSEWHERE = {"forward_cancel"}  # whether it or the takeover comes first is chance: see test_lost_answers
KEEPING = {"renew", "XCLAIM"}
LOOKS = {"XREAD", "XPENDING", "HEXISTS"}
UPKEEP = {"XGROUP CREATE", "INFO", "TIME", "HGETALL", "HSET", "PEXPIRE", "HDEL", "SCRIPT LOAD", "reconcile"}
UPKEEP |= {"SET", "DEL", "EXISTS", "XTRIM", "MEMORY USAGE", "SCAN", "XINFO GROUPS", "HKEYS", "forget_consumers"}
UPKEEP |= {"AUTH", "CLIENT SETINFO", "SELECT"}

AT_THE_PROVIDER = [
    *(Point(scenario, place) for scenario in ("whole", "streamed", "retried") for place in ("received", "complete")),
    Point("cancelled", "received"),
    Point("streamed", "half sent"),
]
TELLING = [
    Point("whole", "admit", 1, Moment.EXECUTED),
    Point("whole", "settle", 1, Moment.BEFORE),
    Point("streamed", "emit", 2, Moment.EXECUTED),
    Point("retried", "advance", 1, Moment.EXECUTED),
]


@pytest.mark.timeout(900 if FULL else 120)
async def test_a_worker_killed_at_each_write_leaves_a_request_that_ends_once_and_is_charged(tmp_path, record_property):
    record_property("fault", "a worker killed before and after each write")
    async with on_stage(tmp_path) as stage:
        recorded, points = await record(stage)
        scripts = {path.stem for path in (ROOT / "gateway_worker" / "lua").iterdir()} & set(known_scripts().values())
        assert {point.place for point in points} == {"XREADGROUP"} | scripts - KEEPING - UPKEEP - ELSEWHERE, (
            "a write is no point"
        )
        points += AT_THE_PROVIDER
        if not FULL:
            points = list(dict.fromkeys([*TELLING, *random.Random(SEED).sample(points, 1)]))
        killed = []
        for number, point in enumerate(points):
            killed.append(await stage.kill_at(point, number))
            if point.scenario in BY_INGRESS:  # the next worker to be killed must not find it there
                await stage.take_over()
        await stage.take_over()
        await stage.check([*recorded, *killed])
    record_property("points", len(points))
    record_property("requests that ended otherwise than by the rules", 0)


async def record(stage: Stage) -> tuple[list[Killed], list[Point]]:
    """Every scenario with nobody killed, and the points at which somebody can be."""
    worker, recorded, points = await stage.victim(), [], []
    for scenario in MODELS:
        text = f"{scenario}-undisturbed"
        stage.proxy.answered.clear()
        stage.upstream.hold()
        last = {"settle", "refuse", "dead_letter", "turn_away"} | ({"admit"} if scenario == "dear" else set())

        def over(last: set[str] = last) -> bool:
            return bool(last & set(stage.proxy.names()))

        asking = await stage.drive(scenario, text, over)
        assert (await stage.life(text), stage.upstream.calls_for(text)) == undisturbed(scenario), text
        recorded.append(Killed(Point(scenario, "nowhere"), text, asking, *undisturbed(scenario)))
        points += _points(scenario, [seen.name for seen in stage.proxy.answered if seen.answer not in EMPTY])
    assert await worker.stop() == 0
    return recorded, points


def _points(scenario: str, names: list[str]) -> Iterator[Point]:
    """Around each write; of chunks there are two for sure, more as they come together."""
    unknown = set(names) - WRITES - KEEPING - LOOKS - UPKEEP
    assert not unknown, f"are these writes? {unknown}"
    for name, count in Counter(name for name in names if name in WRITES).items():
        for nth in range(1, 1 + min(count, 2)):
            yield from (Point(scenario, name, nth, moment) for moment in Moment)


@pytest.mark.skipif(not FULL, reason="part of the long form: each point waits for a lease")
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("name", sorted(KEEPING))
async def test_a_worker_killed_while_it_takes_over_or_renews_leaves_the_request_to_the_next(tmp_path, name, moment):
    async with on_stage(tmp_path, victims_lease=1) as stage:
        point, text = Point("whole", name, 1, moment), "whole-1"
        if name == "XCLAIM":
            asking = asyncio.create_task(stage.ask("whole", text))
            await _taken_by_a_dead_worker(stage.redis)
        worker = await stage.victim()

        async def kill() -> None:
            await worker.stop(signal.SIGKILL)

        stage.proxy.arm(Fault(name, moment, cut_after(kill), filled=moment is not Moment.BEFORE))
        if name == "renew":
            stage.upstream.next(Behaviour(hold_at=0))
            asking = asyncio.create_task(stage.ask("whole", text))
        await wait_until(lambda: worker.process.returncode is not None, what=str(point))
        killed = await stage.at_death(point, text, asking)
        await stage.take_over()
        await stage.check([killed])


async def _taken_by_a_dead_worker(redis: Redis) -> None:
    """What waits is in the hands of a worker that will do nothing with it."""
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    await wait_until(lambda: redis.xreadgroup(GROUP, "dead", {KEYS.requests: ">"}), what="a submitted request")


AT_THE_DOOR = [Point(scenario, "submit", 1, moment) for scenario in ("whole", "streamed") for moment in Moment]
AT_THE_DOOR += [Point("cancelled", "cancel", 1, moment) for moment in Moment]


@pytest.mark.timeout(120)
async def test_a_front_door_killed_at_each_write_leaves_what_was_accepted_finished_and_else_nothing(
    tmp_path, record_property
):
    record_property("fault", "a front door killed before and after each write")
    points = AT_THE_DOOR if FULL else [AT_THE_DOOR[1]]
    async with on_stage(tmp_path) as stage:
        await stage.heirs.start_worker("heir")
        for number, point in enumerate(points):
            await _kill_the_door_at(stage, point, str(number))
        stage.upstream.release()
        ids = await submitted(stage.redis)
        await wait_until(lambda: _all_over(stage, set(ids.values())), what="everything accepted has its end")
        for number, point in enumerate(points):
            life = await stage.life(ids.get(str(number), "none"))
            assert life == _life_without_its_door(point), str(point)
        await check_idle(stage.redis, LIMIT, set(ids.values()))
    record_property("points", len(points))


async def _kill_the_door_at(stage: Stage, point: Point, text: str) -> None:
    """A front door that takes one request, and is killed at a point; its client sees the connection break."""
    stage.upstream.hold()
    door = await stage.victims.start_api()

    async def kill() -> None:
        await door.stop(signal.SIGKILL)

    stage.proxy.arm(Fault(point.place, point.moment or Moment.BEFORE, cut_after(kill)))
    body = {"model": MODELS[point.scenario], "messages": [{"role": "user", "content": text}]}
    body["stream"] = point.scenario != "whole"
    asking = asyncio.create_task(_ask(stage.victims.url, body))
    if point.place == "cancel":
        await wait_until(lambda: stage.upstream.calls_for(text), what="a call")
        asking.cancel()
    await wait_until(lambda: door.process.returncode is not None, what=str(point))
    stage.proxy.disarm()
    [told] = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(told, aiohttp.ClientError | asyncio.CancelledError), told


async def _ask(url: str, body: dict[str, Any]) -> bytes:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/v1/chat/completions", json=body) as got,
    ):
        return await got.read()


async def _all_over(stage: Stage, ids: set[str]) -> bool:
    return ids == {event["request_id"] for event in await events_of(stage.redis) if event["event_type"] in TERMINAL}


def _life_without_its_door(point: Point) -> Life:
    """A request is accepted, or cancelled, when Redis has carried that out, whoever heard of it."""
    done = point.moment is not Moment.BEFORE
    if point.place == "cancel":
        return undisturbed("cancelled" if done else "streamed")[0]
    return undisturbed(point.scenario)[0] if done else []
