"""What Google's errors mean, beyond their status: ``error.details`` name a reason and a delay.

The shape: https://cloud.google.com/apis/design/errors (``google.rpc.Status`` as JSON).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.google.terms import JSON
from model_gateway.providers.interface import ProviderSettings

_BAD_KEYS: Final = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})
"""Reasons for which a 400 is no fault of the request's."""

_SILENT: Final = frozenset({"upstream_unauthorized", "rate_limit_exceeded"})
"""Codes without the vendor's words, which may name the account."""

_WAITS: Final = frozenset({"rate_limit_exceeded", "upstream_unavailable"})
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")


def failure(settings: ProviderSettings, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error for a status that is not 2xx: 400 for a bad key is the operator's; a delay may stand in the body."""
    details = _details(body)
    if status == 400 and _reasons(details) & _BAD_KEYS:
        return _bad_key(settings)
    error = upstream_errors.from_status(settings, status, headers, body)
    if error.retry_after is None and error.code in _WAITS:
        error.retry_after = _delay(details)
    return error


def in_reply(settings: ProviderSettings, members: Mapping[str, Any]) -> GatewayError | None:
    """The error that a 200's body or event turns out to be; None when it is none. The call may have been paid."""
    error = upstream_errors.in_reply(settings, members)
    details = members.get("error")
    if error is None or not isinstance(details, dict):
        return error
    status = details.get("code")
    if not isinstance(status, int):
        return error
    rejected = "upstream_rejected" if 400 <= status < 500 else error.code
    code = upstream_errors.CODES.get(status, rejected)
    told = f"the provider of '{settings.name}' reported an error in place of its reply ({status})"
    wait = _delay(_list(details)) if code in _WAITS else None
    return GatewayError(code, told if code in _SILENT else error.message, retry_after=wait)


def _bad_key(settings: ProviderSettings) -> GatewayError:
    message = (
        f"the provider of '{settings.name}' refused the gateway's API key (HTTP 400): the operator has to check it in "
        "the environment (this model's api_key_env, else the provider's own variable)"
    )
    return GatewayError("upstream_unauthorized", message, billed=False)


def _details(body: bytes) -> list[JSON]:
    """``error.details``; some errors come as a list of one."""
    try:
        members = orjson.loads(body)
    except ValueError:
        return []
    if isinstance(members, list) and members:
        members = members[0]
    error = members.get("error") if isinstance(members, dict) else None
    return _list(error) if isinstance(error, dict) else []


def _list(error: Mapping[str, Any]) -> list[JSON]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _reasons(details: list[JSON]) -> set[str]:
    return {str(detail.get("reason")) for detail in details}


def _delay(details: list[JSON]) -> int | None:
    """Whole seconds out of a ``RetryInfo``: ``34.5s``."""
    for detail in details:
        found = _SECONDS.fullmatch(str(detail.get("retryDelay")))
        if found:
            return math.ceil(min(float(found[1]), upstream_errors.MAX_RETRY_AFTER))
    return None
