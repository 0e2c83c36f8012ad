"""What adapters that translate read of a chat's messages alike. Pure functions; errors name the path."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from model_gateway.dialects.refusing import wrong
from model_gateway.dialects.strict_json import parse_json, unsupported
from model_gateway.errors import GatewayError
from model_gateway.providers.refusing import Refusing

JSON = dict[str, Any]

_CALL: Final = frozenset({"id", "type", "function", "index", "extra_content"})
_FUNCTION: Final = frozenset({"name", "arguments"})
_IMAGE: Final = frozenset({"url", "detail"})
_NO_DETAIL: Final = (None, "auto")


class Called(NamedTuple):
    """One call of a function, as an assistant's message tells it."""

    id: str
    name: str
    arguments: JSON


def called(call: Any, path: str, terms: Refusing) -> Called:
    """A member of ``tool_calls``.

    Raises:
        GatewayError: ``invalid_value`` or ``unsupported_parameter``.
    """
    if not isinstance(call, dict):
        raise wrong(path, "must be an object")
    if call.get("type", "function") != "function":
        # Never left out: its result would stand alone.
        raise unsupported(f"{path}.type", f"is not a function's, and the {terms.api} has no other tools of the client")
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise wrong(f"{path}.function", "must have a name and arguments")
    terms.only(call, _CALL, path)
    terms.only(function, _FUNCTION, f"{path}.function")
    arguments = _arguments(function.get("arguments"), f"{path}.function.arguments")
    return Called(call_id(call.get("id"), f"{path}.id"), function["name"], arguments)


def _arguments(text: Any, path: str) -> JSON:
    try:
        value = parse_json(text.encode()) if text else {}
    except (GatewayError, AttributeError):
        raise wrong(path, "is not valid JSON") from None
    if not isinstance(value, dict):
        raise wrong(path, "must be a JSON object")
    return value


def call_id(value: Any, path: str) -> str:
    """A call's id.

    Raises:
        GatewayError: ``invalid_value``.
    """
    if not isinstance(value, str) or not value:
        raise wrong(path, "must be the id of a tool call")
    return value


def image_url(value: Any, path: str, terms: Refusing) -> str:
    """The URL of an image's part.

    Raises:
        GatewayError: ``invalid_value``; ``unsupported_parameter`` for a ``detail``.
    """
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise wrong(f"{path}.url", "must be a URL")
    terms.only(value, _IMAGE, path)
    if value.get("detail") not in _NO_DETAIL:
        terms.refuse(f"{path}.detail", f"can't be chosen in the {terms.api}")
    url: str = value["url"]
    return url


def data_url(url: Any, path: str) -> tuple[str, str]:
    """The media type and the base64 text of a data URL.

    Raises:
        GatewayError: ``invalid_value``.
    """
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    media_type, _, encoding = head.removeprefix("data:").rpartition(";")
    if not (comma and head.startswith("data:") and media_type and encoding == "base64"):
        raise wrong(path, "must be data:<media type>;base64,<data>")
    return media_type.partition(";")[0].lower(), data
