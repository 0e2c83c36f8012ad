"""Every error the gateway can answer with, in one table.

The body follows OpenAI's shape, ``{"error": {"message", "type", "param", "code"}}``, so that the official
SDKs raise their own exception classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
RATE: Final = "rate_limit_error"


@dataclass(frozen=True, slots=True)
class Kind:
    """What an error code stands for: its HTTP status, OpenAI's type, and whether trying again can help."""

    status: int
    type: str
    retryable: bool = False


KINDS: Final[dict[str, Kind]] = {
    # the client's own mistakes
    "invalid_json": Kind(400, INVALID),
    "invalid_type": Kind(400, INVALID),
    "invalid_value": Kind(400, INVALID),
    "missing_required_parameter": Kind(400, INVALID),
    "unsupported_parameter": Kind(400, INVALID),
    "unsupported_operation": Kind(400, INVALID),
    "upstream_rejected": Kind(400, INVALID),
    "stale_request": Kind(400, INVALID),
    "invalid_api_key": Kind(401, "authentication_error"),
    "forbidden": Kind(403, "permission_error"),
    "model_not_found": Kind(404, INVALID),
    "not_found": Kind(404, INVALID),
    "method_not_allowed": Kind(405, INVALID),
    "request_too_large": Kind(413, INVALID),
    "cancelled": Kind(499, INVALID),
    # limits
    "budget_exceeded": Kind(429, "insufficient_quota"),
    "model_overloaded": Kind(429, RATE, retryable=True),
    "rate_limit_exceeded": Kind(429, RATE, retryable=True),
    # the gateway's own trouble
    "internal_error": Kind(500, SERVER),
    "queue_full": Kind(503, SERVER, retryable=True),
    "overloaded": Kind(503, SERVER, retryable=True),
    "storage_full": Kind(503, SERVER, retryable=True),
    "redis_unavailable": Kind(503, SERVER, retryable=True),
    "insights_unavailable": Kind(503, SERVER, retryable=True),
    "ledger_lost": Kind(503, SERVER),
    "request_timeout": Kind(504, SERVER),
    # the provider's trouble
    "upstream_unauthorized": Kind(502, SERVER),
    "upstream_error": Kind(502, SERVER, retryable=True),
    "upstream_invalid_response": Kind(502, SERVER),
    "upstream_truncated": Kind(502, SERVER),
    "outcome_unknown": Kind(502, SERVER),
    "upstream_unavailable": Kind(503, SERVER, retryable=True),
    "upstream_timeout": Kind(504, SERVER),
}


MAX_MESSAGE: Final = 4_000
MAX_PARAM: Final = 500
"""Characters; a field's name may be as long as the body, and an error is written down in several places."""


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class GatewayError(Exception):
    """An error with a code out of ``KINDS``: what happened, to what, and what to do.

    Args:
        code: a key of ``KINDS``; decides the HTTP status and the type.
        message: for a person; never holds a secret.
        param: the request's field at fault, as in OpenAI's errors.
        retry_after: whole seconds after which to try again, or None.
        status: overrides the table's HTTP status (a reply that came from another process).
        billed: whether a provider may have been paid for the call that failed. Only an HTTP error status or a
            failure to connect is sure not to be.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        status: int | None = None,
        billed: bool = True,
    ) -> None:
        message = _clipped(message, MAX_MESSAGE)
        super().__init__(message)
        kind = KINDS.get(code, KINDS["internal_error"])
        self.code = code
        self.message = message
        self.param = param if param is None else _clipped(param, MAX_PARAM)
        self.retry_after = retry_after
        self.status = status or kind.status
        self.type = kind.type
        self.retryable = kind.retryable
        self.billed = billed

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def json(self) -> bytes:
        """The error in OpenAI's shape, as UTF-8 JSON."""
        return orjson.dumps(self.body())
