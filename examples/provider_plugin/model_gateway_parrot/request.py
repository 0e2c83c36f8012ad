"""A chat completion's request in the Parrot API's words: pure functions.

A parrot is given a script, each line of which somebody says. Each field of the request is said by one of ``_FIELDS``,
asks for nothing (``_NO_EFFECT``), or is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import GatewayError

JSON = dict[str, Any]

_WHO: Final[Mapping[str, str]] = {
    "system": "trainer",
    "developer": "trainer",
    "user": "visitor",
    "assistant": "parrot",
    "tool": "trick",
}

_NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto",),
}
"""Values that ask for what happens anyway; so do null, false and whatever is empty."""


def squawk_body(messages: list[JSON], model: str, fields: Mapping[str, Any], *, drop: bool) -> JSON:
    """The body for ``/v1/squawk``.

    Args:
        messages: of the chat.
        model: the vendor's name for the parrot.
        fields: the chat completion's others.
        drop: leave out fields that parrots do not have, rather than refuse them.

    Raises:
        GatewayError: ``unsupported_parameter``; nothing was sent.
    """
    body: JSON = {"parrot": model, "script": [_line(message, f"messages[{i}]") for i, message in enumerate(messages)]}
    for name, value in fields.items():
        if _asks_for_nothing(name, value):
            continue
        if name in _FIELDS:
            _add(body, name, *_FIELDS[name](value))
        elif not drop:
            raise _refused(name)
    return body


def _add(body: JSON, name: str, own: str, value: Any) -> None:
    if body.get(own, value) != value:
        raise unsupported(name, f"says something else than another field: both are '{own}' at parrots")
    body[own] = value


def _asks_for_nothing(name: str, value: Any) -> bool:
    return _is_nothing(value) or value in _NO_EFFECT.get(name, ())


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _breath(value: int) -> tuple[str, int]:
    return "breath", value


def _mood(value: float) -> tuple[str, int]:
    """A mood goes from 0 to 100, a temperature from 0 to 2."""
    return "mood", round(value * 50)


def _hush(value: str | list[str]) -> tuple[str, list[str]]:
    return "hush", [value] if isinstance(value, str) else value


def _tricks(value: list[JSON]) -> tuple[str, list[JSON]]:
    return "tricks", [_trick(tool, f"tools[{i}]") for i, tool in enumerate(value)]


_FIELDS: Final[Mapping[str, Callable[[Any], tuple[str, Any]]]] = {
    "max_tokens": _breath,
    "max_completion_tokens": _breath,
    "temperature": _mood,
    "stop": _hush,
    "tools": _tricks,
}
"""What says a field: the vendor's name for it, and its value."""


def _trick(tool: JSON, path: str) -> JSON:
    if tool.get("type") != "function":
        raise _refused(f"{path}.type")
    tool = _only(tool, ("type", "function"), path)
    function = _only(tool.get("function"), ("name", "description", "parameters"), f"{path}.function")
    return {
        "name": function.get("name"),
        "about": function.get("description") or "",
        "takes": function.get("parameters") or {},
    }


def _line(message: JSON, path: str) -> JSON:
    known = _only(message, ("role", "content", "tool_calls", "tool_call_id"), path)
    role = str(known.get("role"))
    if role not in _WHO:
        raise _refused(f"{path}.role")
    line: JSON = {"who": _WHO[role], "says": _says(known.get("content"), f"{path}.content")}
    if known.get("tool_calls"):
        line["tricks"] = [_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(known["tool_calls"])]
    if known.get("tool_call_id"):
        line["trick"] = known["tool_call_id"]
    return line


def _says(content: Any, path: str) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    for index, part in enumerate(content):
        if part["type"] != "text":
            raise _refused(f"{path}[{index}].type")
    return "".join(part["text"] for part in content)


def _call(call: JSON, path: str) -> JSON:
    call = _only(call, ("id", "type", "function"), path)
    function = _only(call.get("function"), ("name", "arguments"), f"{path}.function")
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except ValueError:
        where = f"{path}.function.arguments"
        raise GatewayError("invalid_value", f"{where} is not JSON", param=where, billed=False) from None
    return {"id": call.get("id"), "name": function.get("name"), "with": arguments}


def _only(members: Any, known: tuple[str, ...], path: str) -> JSON:
    """The members, of which only those that are known may say something."""
    if not isinstance(members, dict):
        raise _refused(path)
    for name, value in members.items():
        if name not in known and not _is_nothing(value):
            raise _refused(f"{path}.{name}")
    return members


def _refused(param: str) -> GatewayError:
    return unsupported(param, "is nothing that parrots can do")
