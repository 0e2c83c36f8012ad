"""A conversation of the Messages API in chat messages: pure functions.

- The system prompt is one message in front, its blocks a blank line apart. Chat templates often know only one.
- A user's turn with tool results becomes the ``tool`` messages, in order, then the rest as a ``user`` message.
- A ``tool`` message holds text only: what else a result has is shown in that ``user`` message, under the call's id. The
  text of a failed one (``is_error``) begins with ``Error:``, as a chat has no other way to say so.
- An assistant's texts are one text, its calls follow. Its thinking is left out: it is signed for the vendor whose
  model thought it, no other can read it, and an answer does not depend on it.
- A last turn that is the assistant's is to be continued by the Messages API, and by no chat: it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from model_gateway.dialects.messages.content import JSON, blocks_in
from model_gateway.dialects.messages.parts import block_parts, parts, plain, text_of
from model_gateway.dialects.refusing import CANT, only, wrong
from model_gateway.dialects.strict_json import unsupported

_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
_CALL: Final = frozenset({"type", "id", "name", "input", "caller", "cache_control"})
_RESULT: Final = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})
_OWN_CALLER: Final = (None, {"type": "direct"})


def conversation(payload: Mapping[str, Any]) -> list[JSON]:
    """The chat messages.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    found = _system(payload.get("system") or "", "system")
    turns = payload["messages"]
    for index, turn in enumerate(turns):
        path = f"messages[{index}]"
        only(turn, frozenset({"role", "content"}), path)
        found += _ROLES[turn["role"]](turn["content"], f"{path}.content")
    if turns[-1]["role"] == "assistant":
        raise unsupported(f"messages[{len(turns) - 1}].role", f"of the last message is 'assistant': that {CANT}")
    return found


def chat_indexes(payload: Mapping[str, Any]) -> dict[int, int]:
    """Of which turn each chat message was made, by its place there; one of none is the system prompt.

    Args:
        payload: a body that ``conversation`` takes.
    """
    found: list[int] = []
    first = len(_system(payload.get("system") or "", "system"))
    for index, turn in enumerate(payload["messages"]):
        found += [index] * len(_ROLES[turn["role"]](turn["content"], ""))
    return dict(enumerate(found, first))


def _system(content: Any, path: str) -> list[JSON]:
    text = _joined(parts(content, path), path, "\n\n")
    return [{"role": "system", "content": text}] if text else []


def _user(content: Any, path: str) -> list[JSON]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[JSON] = []
    shown: list[JSON] = []
    said: list[JSON] = []
    for place, block in blocks_in(content, path):
        if block["type"] == "tool_result":
            result, attached = _result(block, place)
            results.append(result)
            shown += attached
        else:
            said += block_parts(block, place)
    rest = shown + said
    return [*results, {"role": "user", "content": plain(rest)}] if rest else results


def _assistant(content: Any, path: str) -> list[JSON]:
    texts = [content] if isinstance(content, str) else []
    calls = []
    for place, block in blocks_in(content, path):
        match block["type"]:
            case "text":
                texts.append(text_of(block, place))
            case "tool_use":
                calls.append(_call(block, place))
            case kind if kind not in _THINKING:
                raise unsupported(f"{place}.type", f"{kind!r} of an assistant {CANT}")
    message: JSON = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        return [{**message, "tool_calls": calls}]
    return [message] if message["content"] else []


def _call(block: JSON, path: str) -> JSON:
    only(block, _CALL, path)
    if block.get("caller") not in _OWN_CALLER:
        raise unsupported(f"{path}.caller", CANT)
    arguments = orjson.dumps(block.get("input") or {}).decode()
    function = {"name": _string(block, "name", path), "arguments": arguments}
    return {"id": _string(block, "id", path), "type": "function", "function": function}


def _result(block: JSON, path: str) -> tuple[JSON, list[JSON]]:
    """A tool's message, and what of its result only a user's message can show."""
    only(block, _RESULT, path)
    call = _string(block, "tool_use_id", path)
    found = parts(block.get("content") or "", f"{path}.content")
    texts = [part for part in found if part["type"] == "text"]
    others = [part for part in found if part["type"] != "text"]
    text = _joined(texts, path, "\n\n")
    if block.get("is_error"):
        text = f"Error: {text}"
    message = {"role": "tool", "tool_call_id": call, "content": text}
    return message, [{"type": "text", "text": f"Attached to the result of {call}:"}, *others] if others else []


def _joined(found: list[JSON], path: str, between: str) -> str:
    if any(part["type"] != "text" for part in found):
        raise unsupported(path, f"with anything but text {CANT}")
    return between.join(part["text"] for part in found)


def _string(block: JSON, name: str, path: str) -> str:
    value = block.get(name)
    if not isinstance(value, str) or not value:
        raise wrong(f"{path}.{name}", "must be a text")
    return value


_ROLES: Final[Mapping[str, Callable[[Any, str], list[JSON]]]] = {
    "system": _system,
    "user": _user,
    "assistant": _assistant,
}
