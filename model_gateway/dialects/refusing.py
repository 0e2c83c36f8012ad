"""How what a chat completion can't say is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import GatewayError

CANT: Final = "can't be said in a chat completion, by which this model's provider is asked"


def only(holder: Mapping[str, Any], known: Collection[str], path: str) -> None:
    """Refuse members that are not known and say anything.

    Args:
        holder: an object of the body.
        known: the members that are seen to elsewhere.
        path: where the object stands; empty for the body itself.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    for name, value in holder.items():
        if name not in known and not is_nothing(value):
            raise unsupported(f"{path}.{name}" if path else name, CANT)


def is_nothing(value: Any) -> bool:
    """Whether a value says nothing: null, false or empty; a 0 says something."""
    return value is None or value is False or value in ("", [], {})


def wrong(param: str, what: str) -> GatewayError:
    """A value that makes no sense; nothing was sent."""
    return GatewayError("invalid_value", f"{param} {what}", param=param, billed=False)
