"""Errors about a chat completion in the words of the client, who asked in another dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from model_gateway.dialects.request import Request
from model_gateway.errors import GatewayError

Names = Sequence[tuple[str, str]]
"""Patterns of a chat's paths, with what the client calls them (as ``re.sub`` has it); the first that fits holds."""


def in_own_words(request: Request, error: GatewayError) -> GatewayError:
    """The same error, naming the field at fault as the client knows it.

    Args:
        request: as the client put it.
        error: about the chat completion that was made of it.
    """
    param = error.param
    own = request.own_name(param) if param else param
    if param and own != param:
        error.param = own
        if error.message.startswith(f"{param} "):
            error.message = f"{own}{error.message.removeprefix(param)}"
    return error


def renamed(param: str, names: Names) -> str:
    """A path by its first name that fits, else as it is."""
    for pattern, own in names:
        found = re.match(pattern, param)
        if found:
            return found.expand(own) + param[found.end() :]
    return param


MESSAGE: Final = re.compile(r"messages\[(\d+)\]")
"""Which message of a chat a path leads into."""
