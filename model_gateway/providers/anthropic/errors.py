"""What an error inside a 200 means: Anthropic names its kind, where a status could not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.errors import GatewayError
from model_gateway.providers import upstream_errors
from model_gateway.providers.interface import ProviderSettings

_CODES: Final[Mapping[str, str]] = {
    "overloaded_error": "upstream_unavailable",
    "rate_limit_error": "rate_limit_exceeded",
    "timeout_error": "upstream_timeout",
    "invalid_request_error": "upstream_rejected",
    "request_too_large": "upstream_rejected",
    "not_found_error": "upstream_rejected",
    "authentication_error": "upstream_unauthorized",
    "permission_error": "upstream_unauthorized",
    "billing_error": "upstream_unauthorized",
}
"""By the error's ``type``; any other, ``api_error`` too, is ``upstream_error``."""

_SILENT: Final = frozenset({"upstream_unauthorized", "rate_limit_exceeded"})
"""Codes without the vendor's words, which may name the account."""


def in_message(settings: ProviderSettings, members: Mapping[str, Any]) -> GatewayError | None:
    """The error that a 200's body or event turns out to be; None when it is none. The call may have been paid."""
    error = upstream_errors.in_reply(settings, members)
    details = members.get("error")
    if error is None or not isinstance(details, dict):
        return error
    code = _CODES.get(str(details.get("type")), error.code)
    if code in _SILENT:
        return GatewayError(code, f"the provider of '{settings.name}' reported {details['type']} in place of its reply")
    return GatewayError(code, error.message)
