"""The insights process, really killed, with a real PostgreSQL that really goes away; then every sum is compared."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from gateway_insights.database import connect, migrate
from model_gateway.insights import find, insights_secret
from tests.insights.event_maker import DAY, KEYS, EventMaker
from tests.insights.sums import check_sums, taken_in
from tests.invariants import check_idle
from tests.postgres_server import PostgresServer, wait_until_answering
from tests.processes import HMAC_SECRET, gateway, wait_until

LIMIT = 20_000_000_000
CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001234567, output_cost: 0.000002, max_tokens: 100}
  slow: {provider: echo, input_cost: 0.000001234567, output_cost: 0.000002, max_tokens: 100, options: {delay_ms: 400}}
agents: {test: {secret_env: AGENT_TEST_SECRET}}
worker: {lease_seconds: 1}
insights: {embedding: "off", batch: 20}
"""


@pytest.fixture
async def house(redis, redis_url, tmp_path, database_url):
    async with gateway(redis, redis_url, tmp_path, CONFIG, DATABASE_URL=database_url) as running:
        yield running


@pytest.fixture
async def tables(database_url):
    """The same database as a test sees it."""
    pool = await connect(database_url)
    await migrate(pool)
    yield pool
    await pool.close()


async def until_in(tables, redis, part=None):
    async def all_in():
        assert part is None or part.process.returncode is None, part.log.read_text()
        return await taken_in(tables, redis)

    await wait_until(all_in, what="every event taken in", within=60)


async def well(redis):
    state = await find(redis, KEYS)
    return state if state is not None and not state.problem else None


def _maker(redis):
    """Events from yesterday on: within the retention, and over a midnight."""
    return EventMaker(redis, start=int(datetime.now(UTC).timestamp() * 1000) // DAY * DAY - 900_000)


@pytest.mark.parametrize("point", ["before", "inside", "committed"])
@pytest.mark.parametrize("nth", [1, 4])
async def test_killed_at_any_point_it_counts_each_event_once(house, redis, tables, point, nth):
    await _maker(redis).requests(60)
    victim = await house.start_insights(f"tests.insights.dying KILL {point} {nth}")
    assert await asyncio.wait_for(victim.process.wait(), 30) == -signal.SIGKILL, victim.log.read_text()
    assert not await taken_in(tables, redis)
    heir = await house.start_insights()
    await until_in(tables, redis, heir)
    print(point, nth, "nano-dollars:", await check_sums(tables, redis))


@pytest.mark.parametrize("point", ["before", "inside", "committed"])
async def test_frozen_at_any_point_it_loses_its_charge_and_writes_nothing_twice_when_it_wakes(
    house, redis, tables, point
):
    maker = _maker(redis)
    await maker.requests(60)
    frozen = await house.start_insights(f"tests.insights.dying STOP {point} 4")
    await wait_until(lambda: _is_frozen(frozen), what="the process to freeze")
    heir = await house.start_insights()
    await until_in(tables, redis, heir)
    frozen.send(signal.SIGCONT)
    await maker.requests(60)
    await until_in(tables, redis, frozen)
    await heir.stop(signal.SIGKILL)
    await maker.requests(20)
    await until_in(tables, redis, frozen)
    print(point, "nano-dollars:", await check_sums(tables, redis))


def _is_frozen(part):
    state = Path(f"/proc/{part.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


async def test_killed_again_and_again_under_load_it_counts_each_event_once(house, redis, tables):
    maker = _maker(redis)
    for number in range(4):
        part = await house.start_insights()
        before = await tables.fetchval("SELECT events FROM insights_cursor")
        for _ in range(6):
            await maker.requests(50)
        await wait_until(lambda seen=before: _is_past(tables, seen), what=f"progress of process {number}")
        await part.stop(signal.SIGKILL)
    last = await house.start_insights()
    await until_in(tables, redis, last)
    print("nano-dollars:", await check_sums(tables, redis))


async def _is_past(tables, events):
    return await tables.fetchval("SELECT events FROM insights_cursor") > events


async def test_of_two_processes_one_takes_events_in_and_the_other_takes_over_when_it_is_killed(house, redis, tables):
    maker = _maker(redis)
    leader = await house.start_insights()
    first = await wait_until(lambda: well(redis), what="a heartbeat")
    await house.start_insights()
    await wait_until(lambda: _both_connected(tables), what="two processes at the database")
    await maker.requests(200)
    await leader.stop(signal.SIGKILL)
    await maker.requests(50)
    await until_in(tables, redis)

    async def taken_over():
        state = await well(redis)
        return state is not None and state.url != first.url

    await wait_until(taken_over, what="the other's heartbeat")
    print("nano-dollars:", await check_sums(tables, redis))


async def _both_connected(tables):
    """Whether one holds the consumer's lock and another has asked for it."""
    asked = await tables.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE '%pg_try_advisory_lock%'"
    )
    held = await tables.fetchval(
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database() "
        "WHERE locktype = 'advisory' AND granted"
    )
    return asked and held


@asynccontextmanager
async def _postgres(folder):
    server = PostgresServer(folder / "own-postgres")
    await server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
async def test_while_postgresql_is_away_no_request_is_lost_and_afterwards_the_sums_are_right(
    redis, redis_url, tmp_path, number
):
    async with (
        _postgres(tmp_path) as server,
        gateway(redis, redis_url, tmp_path, CONFIG, DATABASE_URL=server.url) as house,
        house.agent() as agent,
    ):
        await house.start_worker()
        insights = await house.start_insights()
        await wait_until(lambda: well(redis), what="a heartbeat")
        await _ask_many(agent, "with", 40)
        server.stop(number)
        await _ask_many(agent, "without", 40)

        async def has_problem():
            state = await find(redis, KEYS)
            return state is not None and "PostgreSQL" in state.problem

        await wait_until(has_problem, what="the heartbeat that tells of it")
        await server.start()
        await _ask_many(agent, "again", 20)
        await wait_until_answering(server.url, 30)
        pool = await connect(server.url)
        try:
            await until_in(pool, redis, insights)
            await wait_until(lambda: well(redis), what="a heartbeat without a problem")
            await check_idle(redis, LIMIT)
            print("nano-dollars:", await check_sums(pool, redis))
            texts = await pool.fetch("SELECT request_text, reply_text FROM model_insights")
            assert {(row["request_text"], row["reply_text"]) for row in texts} == {
                (f"{name} {index}", f"{name} {index}")
                for name, count in (("with", 40), ("without", 40), ("again", 20))
                for index in range(count)
            }
        finally:
            await pool.close()


async def _ask_many(agent, name, count):
    """So many requests at once, whole and streamed; each must be answered."""

    async def one(index):
        messages = [{"role": "user", "content": f"{name} {index}"}]
        if index % 2:
            await agent.complete(model="echo", messages=messages)
        else:
            assert [chunk async for chunk in agent.stream(model="echo", messages=messages)]

    await asyncio.gather(*(one(index) for index in range(count)))


async def test_an_attempt_lost_with_its_worker_is_one_row_with_its_request(house, redis, tables):
    async with house.agent() as agent:
        victim = await house.start_worker("victim")
        insights = await house.start_insights()
        asking = asyncio.create_task(agent.complete(model="slow", messages=[{"role": "user", "content": "x"}]))
        await wait_until(lambda: redis.hlen(KEYS.open), what="a request that runs")
        await victim.stop(signal.SIGKILL)
        await house.start_worker("heir")
        await asking
    await until_in(tables, redis, insights)
    await check_sums(tables, redis)
    (row,) = await tables.fetch("SELECT attempt, status FROM model_insights")
    assert tuple(row) == (2, "done")


async def test_without_a_database_it_lives_and_says_why_it_cannot_answer(house, redis):
    part = await house.start_insights(DATABASE_URL="")
    state = await wait_until(lambda: find(redis, KEYS), what="a heartbeat")
    assert "DATABASE_URL" in state.problem
    assert not await redis.exists(KEYS.events)  # no group that would keep events for nobody
    assert await part.stop() == 0
    assert await find(redis, KEYS) is None


async def test_a_database_that_comes_later_is_taken(redis, redis_url, tmp_path):
    async with _postgres(tmp_path) as server:
        server.stop()
        async with gateway(redis, redis_url, tmp_path, CONFIG, DATABASE_URL=server.url) as house:
            await house.start_insights()
            state = await wait_until(lambda: find(redis, KEYS), what="a heartbeat")
            assert "PostgreSQL" in state.problem
            assert server.url.split(":")[2].split("@")[0] not in state.problem
            await server.start()
            await wait_until(lambda: well(redis), what="a heartbeat without a problem")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_answers_front_doors_and_leaves_when_it_is_told_to(house, redis, number):
    part = await house.start_insights()
    state = await wait_until(lambda: well(redis), what="a heartbeat")
    token = {"Authorization": f"Bearer {insights_secret(HMAC_SECRET)}"}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{state.url}/insights/stats?hours=1", headers=token) as answer:
            assert answer.status == 200
        async with session.get(f"{state.url}/insights/stats?hours=1") as answer:
            assert answer.status == 401
    assert await part.stop(number) == 0, part.log.read_text()
    assert await find(redis, KEYS) is None


async def test_partitions_of_today_and_tomorrow_are_there_from_the_start(house, redis, tables):
    await house.start_insights()
    await wait_until(lambda: well(redis), what="a heartbeat")
    names = {row["relname"] for row in await tables.fetch("SELECT relname FROM pg_class")}
    today = datetime.now(UTC)
    assert {f"model_insights_{today + timedelta(days=ahead):%Y%m%d}" for ahead in (0, 1)} <= names


async def test_a_wrong_pattern_is_refused_with_its_place(house):
    path = house.folder / "models.yaml"
    path.write_text(path.read_text().replace("batch: 20", 'batch: 20, redact: ["("]'))
    part = await house.start_insights()
    assert await asyncio.wait_for(part.process.wait(), 20) == 2
    assert "insights.redact.0" in part.log.read_text()


async def test_no_secret_and_no_text_stands_in_its_log(house, redis, tables):
    async with house.agent() as agent:
        await house.start_worker()
        part = await house.start_insights(OPENAI_API_KEY="sk-canary-0123456789abcdef")
        said = "prompt-canary sk-canary-0123456789abcdef"
        await agent.complete(model="echo", messages=[{"role": "user", "content": said}])
        await until_in(tables, redis, part)
    await part.stop()
    log = part.log.read_text()
    password = house.variables["DATABASE_URL"].split(":")[2].split("@")[0]
    for canary in ("prompt-canary", "sk-canary", HMAC_SECRET, password):
        assert canary not in log
    assert await tables.fetchval("SELECT request_text FROM model_insights") == "prompt-canary [redacted]"
