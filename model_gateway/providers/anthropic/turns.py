"""A conversation in chat messages as the Messages API has it: a system prompt, and turns. Pure functions.

- ``system`` and ``developer`` messages become the system prompt, in order, wherever they stand: what the vendor's own
  OpenAI-compatible endpoint does too. Only some models know a system message between turns.
- Messages of one side that follow each other become one turn; tool results come first in it.
- ``thinking_blocks`` of an assistant message (out of an earlier reply) go back untouched, in front; the ``index`` that
  a stream gave them is none of theirs. Its ``citations`` tell where the text had it from, and say nothing to the model.
- What another vendor's model thought (``reasoning_content`` without ``thinking_blocks``) or signed (``extra_content``)
  says nothing to this one and is left out, so that a conversation can go on here after a fallback.
- ``cache_control`` of a message or a part marks the last block made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.providers.anthropic.content import blocks, cached
from model_gateway.providers.anthropic.terms import JSON, Terms, wrong
from model_gateway.providers.chat_reading import call_id, called

_COMMON: Final = frozenset({"role", "content", "cache_control"})
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    # What was reasoned is in thinking_blocks; a tool's name in its call.
    "assistant": _COMMON
    | {"tool_calls", "refusal", "thinking_blocks", "reasoning_content", "citations", "extra_content"},
    "tool": _COMMON | {"tool_call_id", "name", "is_error"},
}
"""Members of a message by role; ``is_error`` and ``thinking_blocks`` are the gateway's own."""

_THINKING: Final[Mapping[str, frozenset[str]]] = {
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
}
_NO_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


def conversation(messages: list[JSON], terms: Terms) -> tuple[list[JSON], list[JSON]]:
    """The system prompt's blocks, and the turns.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    system: list[JSON] = []
    turns: list[JSON] = []
    for index, message in enumerate(messages):
        path, role = f"messages[{index}]", message.get("role")
        made = _blocks(message, path, terms)
        if role in ("system", "developer"):
            system += made
        elif made:
            _append(turns, "assistant" if role == "assistant" else "user", made)
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return system, turns


def _append(turns: list[JSON], role: str, made: list[JSON]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += made
    else:
        turns.append({"role": role, "content": made})


def _blocks(message: JSON, path: str, terms: Terms) -> list[JSON]:
    role = str(message.get("role"))
    make = _ROLES.get(role)
    if make is None:
        terms.refuse(f"{path}.role", f"is {role!r}, which the Messages API does not have; use tools")
        return []
    terms.only(message, _KNOWN[role], path)
    return make(message, path, terms)


def _system(message: JSON, path: str, terms: Terms) -> list[JSON]:
    made = blocks(message.get("content"), f"{path}.content", terms)
    if any(block["type"] != "text" for block in made):
        terms.refuse(f"{path}.content", "of a system message is text only")
    return cached([block for block in made if block["type"] == "text"], message)


def _user(message: JSON, path: str, terms: Terms) -> list[JSON]:
    return cached(blocks(message.get("content"), f"{path}.content", terms), message)


def _assistant(message: JSON, path: str, terms: Terms) -> list[JSON]:
    given = message.get("thinking_blocks") or []
    if not isinstance(given, list):
        raise wrong(f"{path}.thinking_blocks", "must be a list")
    thoughts = [_thought(block, path) for block in given]
    said = blocks(message.get("content"), f"{path}.content", terms)
    said += blocks(message.get("refusal"), f"{path}.refusal", terms)
    calls = message.get("tool_calls") or ()
    said += [_call(call, f"{path}.tool_calls[{index}]", terms) for index, call in enumerate(calls)]
    return thoughts + cached(said, message)


def _thought(block: Any, path: str) -> JSON:
    known = _THINKING.get(str(block.get("type"))) if isinstance(block, dict) else None
    if known is None or block.keys() - {"index"} != known:
        raise wrong(f"{path}.thinking_blocks", "must be those of an earlier reply, unchanged")
    return {name: value for name, value in block.items() if name != "index"}


def _call(call: Any, path: str, terms: Terms) -> JSON:
    number, name, arguments = called(call, path, terms)
    return {"type": "tool_use", "id": _fit(number), "name": name, "input": arguments}


def _tool(message: JSON, path: str, terms: Terms) -> list[JSON]:
    result: JSON = {
        "type": "tool_result",
        "tool_use_id": _fit(call_id(message.get("tool_call_id"), f"{path}.tool_call_id")),
    }
    content = blocks(message.get("content"), f"{path}.content", terms)
    if content:
        result["content"] = content
    if message.get("is_error"):
        result["is_error"] = True
    return cached([result], message)


def _fit(number: str) -> str:
    """A call's id; characters that the API refuses, which other vendors' ids have, become their numbers."""
    return _NO_ID.sub(lambda found: f"-{ord(found[0]):x}-", number)


_ROLES: Final[Mapping[str, Callable[[JSON, str, Terms], list[JSON]]]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
}
