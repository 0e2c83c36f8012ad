"""The insights process's HTTP: what it lets in, what it says to bad input, and what it does without PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from gateway_insights.database import connect, migrate
from gateway_insights.embedding.wordllama import WordLlama
from gateway_insights.server import create_app, serving
from model_gateway.clock import SetClock
from model_gateway.errors import GatewayError
from model_gateway.settings import Insights
from tests.insights.test_similar import ANGLES, NOW, store
from tests.postgres_server import PostgresServer, empty_database

SECRET = "the-secret-of-front-doors"
QUERIES = ("/insights/stats", "/insights/trends", "/insights/similar?query=1")

__all__ = ["store"]


class Client:
    """Asks a server; the path is sent as it stands."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def __call__(self, path: str, method: str = "GET", token: str = SECRET):
        """The status and the JSON."""
        url = aiohttp.client.URL(self._url + path, encoded=True)
        async with self._session.request(method, url, headers={"Authorization": f"Bearer {token}"}) as response:
            assert response.content_type == "application/json"
            return response.status, orjson.loads(await response.read())

    async def raw(self, target: bytes) -> bytes:
        """The status line that follows a request line of any bytes."""
        host, port = self._url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % (target, SECRET.encode()))
        line = await reader.readline()
        writer.close()
        return line


@asynccontextmanager
async def asking(pool, embedder=ANGLES, settings: Insights | None = None):
    clock = SetClock(int(NOW.timestamp() * 1000))
    app = create_app(pool, embedder, settings or Insights(), SECRET, clock)
    async with serving(app) as url, aiohttp.ClientSession() as session:
        yield Client(url, session)


@pytest.fixture
async def ask(pool):
    async with asking(pool) as client:
        yield client


def error(answer) -> dict:
    return answer[1]["error"]


@pytest.mark.parametrize("token", ["", "wrong", SECRET + "x", "ä"])
async def test_only_who_knows_the_secret_is_answered(ask, token):
    for path in QUERIES:
        status, body = await ask(path, token=token)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_each_query_is_answered_with_its_defaults(ask, store):
    await store("10")
    stats, trends, similar = [(await ask(path)) for path in QUERIES]
    assert (stats[0], stats[1]["hours"], stats[1]["to"]) == (200, 24, "2026-03-18T12:00:00+00:00")
    assert (trends[0], trends[1]["days"], trends[1]["to"]) == (200, 7, "2026-03-18")
    assert (similar[0], similar[1]["store_text"]) == (200, "full")
    assert [result["request_id"] for result in similar[1]["results"]] == ["10"]


async def test_filters_arrive_as_they_were_meant(ask, store):
    await store("10", model="a/b+c d%", minutes_ago=60)
    await store("20", model="a/b+c d%", status="failed")
    await store("30")
    found = f"/insights/similar?query=0&model={quote('a/b+c d%', safe='')}"
    for more, ids in {
        "": ["10", "20"],
        "&limit=1": ["10"],
        "&status=failed": ["20"],
        "&since=2026-03-18": ["10", "20"],
        "&since=2026-03-18T11:30:00Z": ["20"],
        "&since=2026-03-18T13:30:00+02:00": ["20"],
        "&since=2026-03-18T11:30": ["20"],
        "&principal=nobody": [],
    }.items():
        status, body = await ask(found + more)
        assert (status, [result["request_id"] for result in body["results"]]) == (200, ids), more


@pytest.mark.parametrize(
    ("path", "param"),
    [
        *(
            (f"/insights/stats?hours={value}", "hours")
            for value in ("0", "8761", "-1", "1.5", "x", "", "1e3", "%D9%A1")
        ),
        *((f"/insights/stats?hours={value}", "hours") for value in ("9" * 5_000, "+1", "%201", "0x10", "1_0", "24%00")),
        *(
            (f"/insights/trends?days={value}", "days")
            for value in ("0", "3651", "-1", "7%00", "%27;%20SELECT%201%20--")
        ),
        ("/insights/stats?hours=1&hours=2", "hours"),
        ("/insights/stats?hour=1", None),
        ("/insights/trends?hours=1", None),
        ("/insights/similar", "query"),
        ("/insights/similar?query=", "query"),
        ("/insights/similar?query=%20%0A%09", "query"),
        ("/insights/similar?query=a%00b", "query"),
        (f"/insights/similar?query={'a' * 8_193}", "query"),
        (f"/insights/similar?query={'%C3%A4' * 4_097}", "query"),
        *((f"/insights/similar?query=1&limit={value}", "limit") for value in ("0", "101", "x", "")),
        ("/insights/similar?query=1&status=ok", "status"),
        ("/insights/similar?query=1&status=", "status"),
        ("/insights/similar?query=1&model=", "model"),
        ("/insights/similar?query=1&model=a%00", "model"),
        ("/insights/similar?query=1&principal=%00", "principal"),
        *(
            (f"/insights/similar?query=1&since={value}", "since")
            for value in (
                "",
                "yesterday",
                "2026-13-01",
                "0001-01-01T00:00:00%2B14:00",
                "9999-12-31T23:59:59-14:00",
                "12",
            )
        ),
        ("/insights/similar?query=1&%00=1", None),
        ("/insights/similar?query=1&models=m", None),
    ],
)
async def test_bad_input_is_refused_with_the_parameter_that_is_wrong(ask, path, param):
    status, body = await ask(path)
    assert (status, body["error"]["param"], body["error"]["type"]) == (400, param, "invalid_request_error")
    assert body["error"]["message"]


@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31", "2026-03-18T12:00:00.123456789Z", "20260318"])
async def test_any_time_that_there_is_can_be_asked_for(ask, since):
    assert (await ask(f"/insights/similar?query=1&since={since}"))[0] == 200


async def test_a_query_of_the_longest_length_is_answered_however_it_is_written(pool):
    async with asking(pool, WordLlama()) as ask:
        for query in ("a" * 8_192, "%61" * 8_192, "%F0%9F%90%98" * 2_048, "%20" * 100 + "a" * 8_192):
            assert (await ask(f"/insights/similar?query={query}"))[0] == 200


@pytest.mark.parametrize(
    "query",
    ["%25", "_", "%27%3B%20DROP%20TABLE%20model_insights%3B--", "%5C", "$1", "{}", "%FF", "%ED%A0%80", "%EF%BF%BE"],
)
async def test_whatever_a_query_is_made_of_it_is_only_text(pool, query):
    async with asking(pool, WordLlama()) as ask:
        status, body = await ask(f"/insights/similar?query={query}&model={query}&principal={query}")
        assert (status, body["results"]) == (200, [])
    assert await pool.fetchval("SELECT count(*) FROM model_insights") == 0


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80"])
async def test_bytes_that_are_not_utf_8_are_refused(ask, raw):
    for path in (b"/insights/similar?query=", b"/insights/similar?query=1&model=", b"/insights/stats?hours="):
        assert (await ask.raw(path + raw)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_without_an_embedding_model_similar_says_so_and_the_rest_is_answered(pool):
    async with asking(pool, None) as ask:
        status, body = await ask("/insights/similar?query=1")
        assert (status, body["error"]["code"]) == (400, "unsupported_operation")
        assert "insights.embedding" in body["error"]["message"]
        assert (await ask("/insights/stats"))[0] == 200


async def test_an_error_of_the_embedding_model_is_the_answers_error(pool):
    class Spent:
        name, dimensions = "spent", 2

        def embed(self, texts):
            raise GatewayError("budget_exceeded", "the day's budget is used up")

    async with asking(pool, Spent()) as ask:
        assert error(await ask("/insights/similar?query=1"))["code"] == "budget_exceeded"


async def test_a_bug_is_an_error_without_the_query_in_it(pool):
    class Broken:
        name, dimensions = "broken", 2

        def embed(self, texts):
            raise RuntimeError(texts[0])

    async with asking(pool, Broken()) as ask:
        status, body = await ask("/insights/similar?query=a-private-matter")
        assert (status, body["error"]["code"]) == (500, "internal_error")
        assert "private" not in body["error"]["message"]


async def test_the_rows_of_a_principal_can_be_deleted_and_those_of_others_stay(ask, store, pool):
    await store("10", principal="agent-a")
    await store("20", principal="agent-a", minutes_ago=60 * 24 * 3)
    await store("30", principal="agent-ab")
    await store("40", principal="%")
    assert await ask("/insights/data?principal=agent-a", "DELETE") == (200, {"principal": "agent-a", "deleted": 2})
    assert await ask("/insights/data?principal=agent-a", "DELETE") == (200, {"principal": "agent-a", "deleted": 0})
    assert await ask("/insights/data?principal=%25", "DELETE") == (200, {"principal": "%", "deleted": 1})
    assert await pool.fetchval("SELECT request_id FROM model_insights") == "30"


@pytest.mark.parametrize(
    "query", ["", "?principal=", "?principal=%00", "?principal=a&principal=b", "?principal=a&all=1"]
)
async def test_a_deletion_that_is_not_clear_deletes_nothing(ask, store, pool, query):
    await store("10", principal="a")
    assert (await ask(f"/insights/data{query}", "DELETE"))[0] == 400
    assert await pool.fetchval("SELECT count(*) FROM model_insights") == 1


async def test_other_paths_and_methods_are_refused(ask):
    assert (await ask("/insights/else"))[0] == 404
    assert (await ask("/insights/data"))[0] == 405
    assert (await ask("/insights/stats", "DELETE"))[0] == 405


async def test_while_postgresql_is_away_it_says_so_and_answers_when_it_is_back(tmp_path):
    server = PostgresServer(tmp_path / "own")
    await server.start()
    try:
        async with empty_database(server.url) as url:
            pool = await connect(url)
            await migrate(pool)
            async with asking(pool) as ask:
                assert (await ask("/insights/stats"))[0] == 200
                server.kill()
                for path in QUERIES:
                    status, body = await ask(path)
                    assert (status, body["error"]["code"]) == (503, "insights_unavailable")
                    assert "PostgreSQL" in body["error"]["message"]
                await server.start()
                for path in QUERIES:
                    assert (await ask(path))[0] == 200
            await pool.close()
    finally:
        server.close()


async def test_many_queries_at_once_are_all_answered(ask, store):
    await store("10")
    answers = await asyncio.gather(*(ask(path) for path in QUERIES * 20))
    assert {status for status, _ in answers} == {200}
