"""Who may come in: tokens, as a bearer's or in ``x-api-key``, compared in constant time."""

from __future__ import annotations

import hmac
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from model_gateway.errors import GatewayError

ADMIN: Final = "admin"
"""The principal of whoever holds ``ADMIN_TOKEN``."""

_OPEN: Final = frozenset({"/health", "/health/live", "/health/ready", "/models", "/metrics"})


class BearerToken:
    """One token; compared as bytes, so that any text a header can carry is only wrong, never an error."""

    def __init__(self, token: str) -> None:
        self._token = _raw(token)

    def is_in(self, header: str) -> bool:
        """Whether an ``Authorization`` header carries the token."""
        scheme, _, given = header.partition(" ")
        return scheme.lower() == "bearer" and self.equals(given.strip())

    def equals(self, given: str) -> bool:
        """Whether ``given`` is the token."""
        return hmac.compare_digest(_raw(given), self._token)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def unauthorized() -> GatewayError:
    """No token, or a wrong one."""
    return GatewayError("invalid_api_key", "this needs the header 'Authorization: Bearer <token>' with a valid token")


def require(token: BearerToken, request: web.Request) -> None:
    """Let only the bearer of ``token`` pass, who may have it in ``x-api-key``, as Anthropic's SDKs do.

    Raises:
        GatewayError: ``invalid_api_key``.
    """
    headers = request.headers
    as_bearer, as_key = token.is_in(headers.get("Authorization", "")), token.equals(headers.get("x-api-key", ""))
    if not (as_bearer or as_key):
        raise unauthorized()


def guard(token: BearerToken) -> Middleware:
    """The middleware that lets only the bearer of ``token`` past the open routes, before any body is read."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN and request.match_info.http_exception is None:
            require(token, request)
        return await handler(request)

    return authenticate
