"""JSON by the strict rules, and Pydantic's complaints in OpenAI's terms."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, Final, TypeVar

import jiter
from pydantic import BaseModel, ConfigDict, ValidationError

from model_gateway.errors import GatewayError

_HUGE_EXPONENT: Final = re.compile(rb"\d[eE]\+?\d{3}")
_MAX_INT: Final = 2**63


class Checked(BaseModel):
    """The fields of a body that are checked; the rest is the provider's business.

    Lists should fail at their first bad item (``Field(fail_fast=True)``): a report of every one of a million costs
    seconds and gigabytes.
    """

    model_config = ConfigDict(strict=True)


CheckedT = TypeVar("CheckedT", bound=Checked)


def parse_json(body: bytes) -> Any:
    """JSON by the strict rules: no duplicate keys, NaN, lone surrogates, huge numbers or deep nesting.

    Raises:
        GatewayError: ``invalid_json``.
    """
    try:
        value = jiter.from_json(
            body, catch_duplicate_keys=True, allow_inf_nan=False, partial_mode=False, cache_mode="none"
        )
    except ValueError as error:
        raise GatewayError("invalid_json", f"the body is not valid JSON: {error}") from None
    if _HUGE_EXPONENT.search(body) or re.search(rb"\d{19}", body):
        _check_numbers(value)
    return value


def _check_numbers(root: Any) -> None:
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif (isinstance(value, float) and not math.isfinite(value)) or (
            isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT
        ):
            raise GatewayError("invalid_json", "the body holds a number beyond 64 bits")


def parse_object(body: bytes, model: type[CheckedT], unions: Collection[str] = ()) -> tuple[dict[str, Any], CheckedT]:
    """A body as a JSON object, and its fields as checked by ``model``.

    Args:
        body: the text.
        model: which fields are checked, and how.
        unions: Pydantic's names for the branches of the model's unions, which no client has heard of.

    Raises:
        GatewayError: 400 with ``param`` and ``code``.
    """
    payload = parse_json(body)
    if not isinstance(payload, dict):
        raise GatewayError("invalid_type", "the body must be a JSON object")
    try:
        return payload, model.model_validate(payload)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_input=False), unions) from None


def _invalid(errors: list[Any], unions: Collection[str]) -> GatewayError:
    """One of Pydantic's complaints, in OpenAI's terms: the deepest, since of a union's it is the one that fits."""
    error = max(errors, key=lambda found: len(found["loc"]))
    location = [part for part in error["loc"] if not (isinstance(part, str) and part in unions)]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if error["type"] == "missing":
        return GatewayError("missing_required_parameter", f"{param} is required", param=param)
    code = "invalid_type" if error["type"].endswith("_type") else "invalid_value"
    return GatewayError(code, f"{param}: {error['msg']}", param=param)


def unsupported(param: str, why: str) -> GatewayError:
    """The request has a field that can't be served; nothing was sent, nothing is owed."""
    return GatewayError("unsupported_parameter", f"{param} {why}", param=param, billed=False)
