"""Errors in Anthropic's shape, so that its SDKs raise their own exception classes.

``{"type": "error", "error": {"type", "message", "details": {"error_code", "param"}}}``: the SDK takes the class from
the HTTP status, the broad category from ``type`` and the cause, here the gateway's code, from ``details.error_code``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.errors import GatewayError

_BY_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Any other 4xx is the request's fault, the rest is the API's."""

_BY_CODE: Final[Mapping[str, str]] = {
    "budget_exceeded": "billing_error",
    "ledger_lost": "api_error",
}
"""Where the status says less than the code: trying again soon does not help."""


def anthropic_error(error: GatewayError) -> dict[str, Any]:
    """An error's object, the same in one piece and as a stream's event ``error``."""
    details = {"error_code": error.code} | ({"param": error.param} if error.param else {})
    return {
        "type": "error",
        "error": {"type": error_type(error), "message": error.message, "details": details},
    }


def error_type(error: GatewayError) -> str:
    """Anthropic's category for an error."""
    found = _BY_CODE.get(error.code) or _BY_STATUS.get(error.status)
    return found or ("invalid_request_error" if 400 <= error.status < 500 else "api_error")
