"""Reasoning that the client is to send back and need not read: how it stands in ``encrypted_content``.

Some providers want what they reasoned back with the calls it led to, in a form that a reasoning item has no place for
(Anthropic's signed blocks). It is what the client asks for by ``include: ["reasoning.encrypted_content"]``: opaque, but
no secret, since the provider told it to this client.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import orjson

from model_gateway.dialects.strict_json import parse_json
from model_gateway.errors import GatewayError

_MARK: Final = "gateway.1."
_MEMBERS: Final = {"reasoning_content": str, "thinking_blocks": list}


def seal(members: dict[str, Any]) -> str:
    """Members of a chat's message that hold reasoning, as one text."""
    return _MARK + base64.b64encode(orjson.dumps(members)).decode()


def unseal(text: str, param: str) -> dict[str, Any] | None:
    """The inverse; None for what another has encrypted.

    Args:
        text: ``encrypted_content`` as the client sent it.
        param: where it stands, for the error.

    Raises:
        GatewayError: ``invalid_value``: it was sealed here, and changed since.
    """
    if not text.startswith(_MARK):
        return None
    try:
        members = parse_json(base64.b64decode(text[len(_MARK) :], validate=True))
    except (binascii.Error, ValueError, GatewayError):
        members = None
    if not isinstance(members, dict) or any(
        not isinstance(value, _MEMBERS.get(name, ())) for name, value in members.items()
    ):
        raise GatewayError("invalid_value", f"{param} is not as it was given", param=param, billed=False)
    return members
