"""What a provider's failure means for the client: one table from HTTP status to error, for every adapter.

Only where it answered with an error status or could not be reached was it surely not paid (``billed=False``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from model_gateway.errors import GatewayError
from model_gateway.providers.interface import ProviderSettings

MAX_RETRY_AFTER: Final = 86_400
_MAX_MESSAGE: Final = 2_000
_MAX_PARAM: Final = 200

CODES: Final[Mapping[int, str]] = {
    401: "upstream_unauthorized",
    402: "upstream_unauthorized",
    403: "upstream_unauthorized",
    408: "upstream_error",
    429: "rate_limit_exceeded",
    503: "upstream_unavailable",
    504: "upstream_timeout",
    524: "upstream_timeout",
    529: "upstream_unavailable",
}
"""Statuses with a meaning of their own; any other 4xx is the request's fault, the rest is the provider's."""

_PASSED_ON: Final = frozenset({409, 413, 422})
"""Rejections whose status the client sees; any other is a 400. So is a 404: passed on, it would say that the
gateway has no such model or path, while it is the row's ``engine`` or ``api_base`` that leads nowhere."""

_MESSAGES: Final[Mapping[str, str]] = {
    "upstream_unauthorized": (
        "the provider of '{name}' refused the gateway's account (HTTP {status}): the operator has to check "
        "the API key in the environment (this model's api_key_env, else the provider's own variable)"
    ),
    "rate_limit_exceeded": "the provider of '{name}' limits the rate (HTTP {status}); try again later",
    "upstream_rejected": "the provider of '{name}' rejected the request (HTTP {status})",
    "upstream_error": "the provider of '{name}' failed (HTTP {status})",
    "upstream_unavailable": "the provider of '{name}' is overloaded or down (HTTP {status}); try again later",
    "upstream_timeout": "the provider of '{name}' gave up on the request (HTTP {status})",
}


def from_status(settings: ProviderSettings, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error for a status that is not 2xx.

    Only a rejection (``upstream_rejected``) carries the provider's own words; what it says about accounts and
    limits may name a part of the key or the organisation.
    """
    code = CODES.get(status) or ("upstream_rejected" if 400 <= status < 500 else "upstream_error")
    message, param = _MESSAGES[code].format(name=settings.name, status=status), None
    if code == "upstream_rejected":
        text, param = _provider_words(_object(body), settings.api_key)
        message = f"{message}: {text}" if text else message
    return GatewayError(
        code,
        message,
        param=param,
        status=status if status in _PASSED_ON else None,
        retry_after=retry_after(headers) if code in ("rate_limit_exceeded", "upstream_unavailable") else None,
        billed=status < 400,
    )


def in_reply(settings: ProviderSettings, members: Mapping[str, Any]) -> GatewayError | None:
    """The error that a 2xx reply or a chunk turns out to be; None when it is none."""
    if not members.get("error") and "error" not in (members.get("object"), members.get("type")):
        return None
    text, _ = _provider_words(members, settings.api_key)
    message = f"the provider of '{settings.name}' reported an error in place of its reply"
    return GatewayError("upstream_error", f"{message}: {text}" if text else message)


def unreachable(settings: ProviderSettings) -> GatewayError:
    """No connection came about: nothing was sent."""
    message = f"the provider of '{settings.name}' can't be reached"
    return GatewayError("upstream_unavailable", message, billed=False)


def cut(settings: ProviderSettings) -> GatewayError:
    """The connection ended after the request went out and before the reply was whole."""
    message = f"the provider of '{settings.name}' closed the connection before its reply was whole"
    return GatewayError("upstream_truncated", message)


def timed_out(settings: ProviderSettings) -> GatewayError:
    """The request went out, and its time ran out."""
    message = f"the provider of '{settings.name}' did not finish within {settings.timeout:g} s"
    return GatewayError("upstream_timeout", message)


def invalid(settings: ProviderSettings, what: str) -> GatewayError:
    """A 2xx whose body is no chat completion."""
    return GatewayError("upstream_invalid_response", f"the provider of '{settings.name}' answered with {what}")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> int | None:
    """Whole seconds until a retry may help, out of ``retry-after-ms`` or ``retry-after``; a day at most."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    text = headers.get("retry-after", "")
    seconds = milliseconds / 1000 if milliseconds is not None else _number(text)
    if seconds is None:
        seconds = _until(text, time.time() if now is None else now)
    if seconds is None:
        return None
    return math.ceil(min(max(seconds, 0.0), MAX_RETRY_AFTER))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _until(date: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        members = orjson.loads(body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _provider_words(members: Mapping[str, Any], key: str) -> tuple[str, str | None]:
    """An error object's message and ``param``, without the key; servers vary in where they stand."""
    error = members.get("error")
    details: Mapping[str, Any] = error if isinstance(error, dict) else members
    message = error if isinstance(error, str) else details.get("message") or details.get("detail")
    param = details.get("param")
    return (
        _without_key(message, key)[:_MAX_MESSAGE] if isinstance(message, str) else "",
        _without_key(param, key)[:_MAX_PARAM] if isinstance(param, str) else None,
    )


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "[api key]") if key else text
