import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderSettings
from model_gateway.providers.oauth import TokenSource
from tests.providers.authority import Authority, running_authority
from tests.providers.openai_family import everything_said

SECRET = "planted-secret-0123456789"
Make = Callable[..., TokenSource]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    async with running_authority() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(authority: Authority, clock: Clock) -> AsyncIterator[Make]:
    async with aiohttp.ClientSession() as session:

        def source(url: str = "", **settings: Any) -> TokenSource:
            given = ProviderSettings(**{"name": "my-row", "http": session, "timeout": 20.0} | settings)
            form = {"grant_type": "client_credentials", "client_secret": SECRET}
            return TokenSource(given, url or f"{authority.url}/token", lambda: form, clock)

        yield source


async def failure(source: TokenSource) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await source.headers()
    error = caught.value
    assert SECRET not in everything_said(error)
    assert (error.code, error.status, error.billed) == ("upstream_unauthorized", 502, False)
    assert "my-row" in error.message
    return error


async def test_a_token_is_fetched_with_the_form_and_goes_out_as_a_bearer(make: Make, authority: Authority) -> None:
    assert await make().headers() == {"Authorization": "Bearer token-1"}
    assert authority.forms == [("/token", {"grant_type": "client_credentials", "client_secret": SECRET})]


async def test_a_token_is_kept_until_shortly_before_its_end(make: Make, authority: Authority, clock: Clock) -> None:
    source = make()
    assert [await source.token(), await source.token()] == ["token-1", "token-1"]
    clock.now += 3600 - 121
    assert await source.token() == "token-1"
    clock.now += 2
    assert await source.token() == "token-2"


@pytest.mark.parametrize(("told", "kept"), [(100, 50), ("3600", 3480), (None, 180), ("soon", 180), (-1, 180)])
async def test_a_life_that_is_short_or_makes_no_sense_is_kept_less(
    make: Make, authority: Authority, clock: Clock, told: Any, kept: int
) -> None:
    authority.lifetime = told
    source = make()
    await source.token()
    clock.now += kept - 1
    assert await source.token() == "token-1"
    clock.now += 2
    assert await source.token() == "token-2"


async def test_calls_at_the_same_time_fetch_one_token(make: Make, authority: Authority) -> None:
    source = make()
    assert set(await asyncio.gather(*(source.token() for _ in range(20)))) == {"token-1"}
    assert len(authority.forms) == 1


async def test_a_call_that_gives_up_leaves_the_token_to_the_next(make: Make, authority: Authority) -> None:
    authority.open.clear()
    source = make()
    first = asyncio.create_task(source.token())
    second = asyncio.create_task(source.token())
    await authority.asked.wait()
    first.cancel()
    authority.open.set()
    assert await second == "token-2"
    assert first.cancelled()


async def test_a_token_that_the_provider_refused_is_fetched_anew(make: Make) -> None:
    source = make()
    await source.token()
    source.forget()
    assert await source.token() == "token-2"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, {"error": "invalid_client", "error_description": f"wrong: {SECRET}"}, "HTTP 400, invalid_client"),
        (401, {"error": SECRET}, "HTTP 401"),
        (500, b"<html>", "HTTP 500"),
        (307, b"", "HTTP 307"),
        (200, b"not json", "without a token"),
        (200, [], "without a token"),
        (200, {"access_token": ""}, "without a token"),
        (200, {"access_token": "a\nb"}, "without a token"),
        (200, {"access_token": 5}, "without a token"),
        (200, b'{"access_token":"' + b"x" * 2**20 + b'"}', "without a token"),
    ],
)
async def test_a_refusal_costs_nothing_and_tells_no_secret(
    make: Make, authority: Authority, status: int, body: Any, told: str
) -> None:
    authority.answers = [(status, body)]
    source = make()
    assert told in (await failure(source)).message
    assert await source.token() == "token-2"


async def test_an_authority_that_hangs_is_given_up(make: Make, authority: Authority) -> None:
    authority.open.clear()
    source = make(timeout=0.4)
    for error in await asyncio.gather(failure(source), failure(source)):
        assert "did not answer" in error.message


async def test_an_authority_that_is_not_there_costs_nothing(make: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "did not answer" in (await failure(make(f"http://127.0.0.1:{unused.getsockname()[1]}"))).message


async def test_it_brings_its_own_session_where_none_is_given(authority: Authority) -> None:
    source = TokenSource(ProviderSettings(), f"{authority.url}/token", dict)
    assert await source.token() == "token-1"
    await source.close()
