"""What a provider's server can be made to do, what is asked of it, and what each failure must come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

KEY: Final = "planted-key-0123456789abcdefghijklmnopqrstuvwxyz"
"""The provider's key in every check. Let the server quote it in its errors: no error may carry it on."""

SAID: Final = "Grüße, gateway 😀: one, two, three, four."
"""What the user says, and what the answer is to be: the server says it back."""

MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": "Say what the user says."},
    {"role": "user", "content": SAID},
]

CALLS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("weather", {"city": "Zürich", "days": [1, 2], "units": {"wind": "m/s"}}),
    ("clock", {"zone": "Europe/Zurich"}),
)
"""The tool calls that the answer is to be: each one's name and arguments."""

TOOLS: Final[list[dict[str, Any]]] = [
    {"type": "function", "function": {"name": name, "description": f"Tells the {name}.", "parameters": parameters}}
    for name, parameters in (
        (
            "weather",
            {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "units": {"type": "object", "properties": {"wind": {"type": "string"}}},
                },
                "required": ["city"],
            },
        ),
        ("clock", {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}),
    )
]

RETRY_AFTER: Final = 7
"""Seconds that a ``RATE_LIMITED`` server asks for."""

UNKNOWN_FIELD: Final = "made_up_field"
"""A field of the request that no provider has heard of."""


class Scenario(Enum):
    """What the server does. Answers are the same each time, whole and streamed.

    Attributes:
        TEXT: answers with ``SAID``, and tells usage.
        TOOLS: answers with the two ``CALLS``, in one turn.
        NO_USAGE: as ``TEXT``, but tells no usage.
        REJECTED: HTTP 400, or what the vendor says where the request is at fault.
        UNAUTHORIZED: HTTP 401.
        RATE_LIMITED: HTTP 429, with ``Retry-After: 7``.
        BROKEN: HTTP 500.
        UNREACHABLE: nobody listens.
        HANGING: takes the first call, and sends nothing; answers the later ones as in ``TEXT``.
        HANGING_MIDWAY: sends the first call a part of a stream (one chunk or more), then nothing; likewise.
        CUT_MIDWAY: closes the connection in the middle of the answer, whole or streamed.
        GARBAGE: HTTP 200, with a body that is not the vendor's language, such as ``<html>``.
    """

    TEXT = "text"
    TOOLS = "tools"
    NO_USAGE = "no usage"
    REJECTED = "rejected"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate limited"
    BROKEN = "broken"
    UNREACHABLE = "unreachable"
    HANGING = "hanging"
    HANGING_MIDWAY = "hanging midway"
    CUT_MIDWAY = "cut midway"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a call must end with: a ``GatewayError`` with these.

    Attributes:
        code: a key of ``model_gateway.errors.KINDS``.
        billed: whether the provider may have been paid.
        retry_after: seconds, where the server asked for some.
    """

    code: str
    billed: bool
    retry_after: int | None = None


FAILURES: Final[Mapping[Scenario, Failure]] = {
    Scenario.REJECTED: Failure("upstream_rejected", billed=False),
    Scenario.UNAUTHORIZED: Failure("upstream_unauthorized", billed=False),
    Scenario.RATE_LIMITED: Failure("rate_limit_exceeded", billed=False, retry_after=RETRY_AFTER),
    Scenario.BROKEN: Failure("upstream_error", billed=False),
    Scenario.UNREACHABLE: Failure("upstream_unavailable", billed=False),
    Scenario.GARBAGE: Failure("upstream_invalid_response", billed=True),
}
"""Those that a call meets the same way, whole or streamed."""

CUT: Final = Failure("upstream_truncated", billed=True)
OUT_OF_TIME: Final = Failure("upstream_timeout", billed=True)
