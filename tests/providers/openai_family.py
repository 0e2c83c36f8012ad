"""What the tests of OpenAI's family share: rows of each kind that lead to the scripted upstream, and calls."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderInterface, ProviderSettings
from tests.upstream import Upstream

KEY = "sk-planted-0123456789abcdefghijklmnopqrstuvwxyz"
HELLO = [{"role": "user", "content": "hello there, gateway 😀"}]
TRANSPORTS = ("http", "sdk")

BASES: Mapping[str, str] = {
    "openai": "/v1",
    "azure": "",
    "mistral": "/v1",
    "groq": "/openai/v1",
    "openrouter": "/api/v1",
}
"""By provider, what follows the server's root in a row's ``api_base``."""


def row(provider: str, upstream: Upstream, session: aiohttp.ClientSession, **settings: Any) -> ProviderInterface:
    """The provider of a row that leads to the upstream."""
    given = {
        "name": "my-row",
        "provider": provider,
        "api_base": f"http://127.0.0.1:{upstream.port}{BASES.get(provider, '/v1')}",
        "api_key": KEY,
        "timeout": 20.0,
        "http": session,
    }
    return ProviderFactory.find(provider)(ProviderSettings(**given | settings))


async def collect(provider: ProviderInterface, model: str = "gpt-x", **fields: Any) -> list[bytes]:
    return [chunk async for chunk in provider.stream(HELLO, model, **fields)]


async def whole(provider: ProviderInterface, model: str = "gpt-x", **fields: Any) -> bytes:
    return await provider.complete(HELLO, model, **fields)


async def failure(call: Any, provider: ProviderInterface, model: str = "gpt-x", **fields: Any) -> GatewayError:
    """The error that a call ends with; it tells no key."""
    with pytest.raises(GatewayError) as caught:
        await call(provider, model, **fields)
    assert KEY not in everything_said(caught.value)
    return caught.value


def everything_said(error: BaseException) -> str:
    """All that a log could print of an error, its causes included."""
    said, seen = "", error
    while seen is not None:
        said += f"{seen}{seen!r}{vars(seen)}{seen.args}"
        seen = seen.__cause__ or seen.__context__
    return said
