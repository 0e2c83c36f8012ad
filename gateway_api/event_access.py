"""Who may listen to events: browsers can't set headers, and any page may try to open a WebSocket."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from gateway_api.auth import BearerToken, unauthorized
from model_gateway.errors import GatewayError

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


def check_listener(request: web.Request, token: BearerToken, *, on_loopback: bool) -> None:
    """Let a listener pass that has the token, or needs none.

    Args:
        request: the WebSocket's handshake.
        token: what opens the events.
        on_loopback: whether the gateway can be reached from this machine only.

    Raises:
        GatewayError: ``forbidden`` for a foreign page, ``invalid_api_key`` for a missing or wrong token.
    """
    _check_origin(request)
    header = request.headers.get("Authorization")
    offered = _subprotocols(request)
    if header is not None:
        allowed = token.is_in(header)
    elif offered:
        allowed = offered[0] == "bearer" and len(offered) == 2 and token.equals(offered[1])
    else:
        allowed = on_loopback and _is_from_here(request)
    if not allowed:
        raise unauthorized()


def _check_origin(request: web.Request) -> None:
    """A browser names the page that asks: it must be the gateway's own, or one of this machine."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    page = _host(origin)
    if page is None or (page != _host(f"//{request.host}") and not _is_loopback(page)):
        raise GatewayError("forbidden", "this page may not listen to events")


def _subprotocols(request: web.Request) -> list[str]:
    """``["bearer", "<token>"]``, from a browser."""
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return [name.strip() for name in offered.split(",") if name.strip()]


def _is_from_here(request: web.Request) -> bool:
    """Whether this machine asks for itself: not as a proxy, nor under a name that was made to point here."""
    host = _host(f"//{request.host}")
    proxied = any(name in request.headers for name in _FORWARDED)
    return not proxied and _is_loopback(request.remote) and _is_loopback(host)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
