"""Access tokens: fetched with a form from an authority (OAuth 2.0, RFC 6749), kept until shortly before they expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import orjson

from model_gateway.errors import GatewayError
from model_gateway.money import is_count
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.transport import Reply, connect_seconds

_MARGIN_SECONDS: Final = 120.0
"""Before a token's end it is not used any more, or from half of its life on, if that is later."""
_DEFAULT_SECONDS: Final = 300
"""A token's life where the authority does not tell."""
_MAX_BODY_BYTES: Final = 64 * 2**10

_REASONS: Final = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""The authority's own words that are passed on; anything else might repeat what was sent."""


class TokenSource:
    """One account's token. Fetched by one call at a time; the others wait for it, no longer than a connection may take.

    Args:
        settings: the deployment's.
        url: where the authority takes the form.
        form: its fields, made anew each time, since an assertion in them is dated; secrets among them.
        clock: seconds, on a clock that is never set back.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        url: str,
        form: Callable[[], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._url = url
        self._form = form
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0
        self._own: aiohttp.ClientSession | None = None

    async def headers(self) -> Mapping[str, str]:
        """The header that lets a call in: ``Credentials``.

        Raises:
            GatewayError: ``upstream_unauthorized``, ``billed=False``: there is no token to be had.
        """
        return {"Authorization": f"Bearer {await self.token()}"}

    async def token(self) -> str:
        """A token that is good for a while yet; see ``headers``."""
        if self._clock() < self._good_until:
            return self._token
        try:
            async with asyncio.timeout(connect_seconds(self._settings)), self._lock:
                if self._clock() >= self._good_until:
                    await self._fetch()
                return self._token
        except (aiohttp.ClientError, TimeoutError, OSError):
            reason = "did not answer"
        # Outside of the handler: what aiohttp raises tells of the request.
        raise self._failure(reason)

    def forget(self) -> None:
        """Fetch a new one for the next call: the provider refused this one."""
        self._good_until = 0.0

    def without_token(self, text: bytes) -> bytes:
        """What a provider said, lest it repeat the token."""
        return text.replace(self._token.encode(), b"[access token]") if self._token else text

    async def _fetch(self) -> None:
        asked = self._clock()
        async with self._session().post(self._url, data=self._form(), allow_redirects=False) as response:
            reply = Reply(response.status, response.headers, response.content.iter_any())
            members = _object(await reply.rest(_MAX_BODY_BYTES, connect_seconds(self._settings)))
            if response.status != 200:
                raise self._failure(_refusal(response.status, members))
        token, life = members.get("access_token"), _life(members.get("expires_in"))
        if not (isinstance(token, str) and token.isascii() and token.isprintable() and token.strip()):
            raise self._failure("answered without a token")
        self._token = token
        self._good_until = asked + max(life / 2, life - _MARGIN_SECONDS)

    def _session(self) -> aiohttp.ClientSession:
        if self._settings.http is not None:
            return self._settings.http
        if self._own is None:
            self._own = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._own

    def _failure(self, reason: str) -> GatewayError:
        return GatewayError(
            "upstream_unauthorized",
            f"the gateway got no access token for the provider of '{self._settings.name}': its authority {reason}; the "
            "operator has to check the account in the environment",
            billed=False,
        )

    async def close(self) -> None:
        """Close the session, where it is its own."""
        if self._own is not None:
            await self._own.close()


def _refusal(status: int, members: Mapping[str, Any]) -> str:
    error = members.get("error")
    return f"refused with HTTP {status}" + (f", {error}" if error in _REASONS else "")


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        members = orjson.loads(body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _life(value: Any) -> int:
    """Seconds; as text too, which older authorities send."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return value if is_count(value) else _DEFAULT_SECONDS
