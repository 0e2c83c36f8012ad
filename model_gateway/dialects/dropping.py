"""Leaving out what a chat completion can't say, for rows with ``drop_params``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model_gateway.dialects.chat import ChatRequest
from model_gateway.dialects.request import Request
from model_gateway.errors import GatewayError

_MOST: Final = 64
"""Parameters that are left out of one request at most."""

_KEPT: Final = ("messages", "input", "system", "instructions", "max_tokens", "max_output_tokens")
"""What the model is told, and how much it may say: never left out, as the answer would be to another question."""


def chat_of(request: Request, *, drop_params: bool) -> ChatRequest:
    """The request as a chat completion.

    Args:
        request: in any dialect.
        drop_params: leave out the parameters that a chat completion can't say, rather than refuse them. What stands in
            the content or in a list, such as one of several tools, is refused all the same.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    for _ in range(_MOST):
        try:
            return request.to_chat()
        except GatewayError as error:
            path = (error.param or "").removesuffix(".type")
            if not drop_params or error.code != "unsupported_parameter" or not _is_parameter(path):
                raise
            request = replace(request, payload=_without(request.payload, path.split(".")))
    return request.to_chat()


def _is_parameter(path: str) -> bool:
    return bool(path) and "[" not in path and path.partition(".")[0] not in _KEPT


def _without(holder: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    """A copy without the member at a path."""
    name, *rest = path
    if rest and isinstance(holder.get(name), dict):
        return {**holder, name: _without(holder[name], rest)}
    return {member: value for member, value in holder.items() if member != name}
