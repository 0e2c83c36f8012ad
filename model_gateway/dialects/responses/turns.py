"""The input of a response request as the messages of a chat. Pure functions.

- ``instructions`` become the first message, of the system.
- What the model said in one turn (its reasoning, its message, its calls) are items here and one message there: they
  are joined until something of another side follows.
- Reasoning goes back to the model as far as a chat can carry it: what this gateway sealed into ``encrypted_content``,
  and ``content``, the reasoning itself. A ``summary`` is for people, no model is given it; what another provider
  encrypted only that one can read; both are left out.
- ``id`` and ``status`` name an item and say nothing to the model; ``annotations`` and ``logprobs`` of a text are
  about it, not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.dialects.refusing import CANT, only
from model_gateway.dialects.responses import sealing
from model_gateway.dialects.responses.body import item_kind
from model_gateway.dialects.strict_json import unsupported

JSON = dict[str, Any]

_NAMES: Final = frozenset({"type", "id", "status"})
_CALLER: Final = frozenset({"caller", "async"})
EXTRA: Final = "extra_content"
"""A member of a text or a call that some vendors want back as it came: Google's signature of what led to it."""


def messages_of(payload: Mapping[str, Any]) -> list[JSON]:
    """The messages of a chat that says the same.

    Args:
        payload: a response request's body, checked.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    turns = _Turns()
    if payload.get("instructions"):
        turns.messages.append({"role": "system", "content": payload["instructions"]})
    given = payload["input"]
    if isinstance(given, str):
        turns.messages.append({"role": "user", "content": given})
        return turns.messages
    for index, item in enumerate(given):
        _ITEMS[item_kind(item)](turns, item, f"input[{index}]")
    turns.end()
    return turns.messages


class _Turns:
    """Messages, and the model's turn that is being joined."""

    def __init__(self) -> None:
        self.messages: list[JSON] = []
        # In pieces, by member, as there may be a great many: thought of before what comes next, and before what came.
        self._thoughts: dict[str, list[Any]] = {}
        self._reasoned: dict[str, list[Any]] = {}
        self._open: JSON | None = None

    def other(self, message: JSON) -> None:
        """A message of another side."""
        self.end()
        self.messages.append(message)

    def thought(self, members: JSON) -> None:
        """What the model reasoned before what it says next."""
        for name, value in members.items():
            self._thoughts.setdefault(name, []).append(value)

    def said(self, content: Any, extra: JSON) -> None:
        """A message of the model; after its calls it joins them, as nothing may come between them and their results."""
        if self._open is not None and self._open["content"] is not None:
            if "tool_calls" in self._open:
                parts = _as_parts(self._open["content"])
                parts += _as_parts(content)
                self._open |= {"content": parts, **extra}
                return
            self._close()
        self._open = self._turn() | {"content": content, **extra}

    def called(self, call: JSON) -> None:
        """A call of the model."""
        self._turn().setdefault("tool_calls", []).append(call)

    def end(self) -> None:
        """The model's turn is over. Reasoning that nothing followed led to nothing."""
        self._close()
        self._thoughts = {}

    def _close(self) -> None:
        if self._open is not None:
            self.messages.append(self._open | {name: _joined(pieces) for name, pieces in self._reasoned.items()})
        self._open, self._reasoned = None, {}

    def _turn(self) -> JSON:
        if self._open is None:
            self._open = {"role": "assistant", "content": None}
        for name, pieces in self._thoughts.items():
            self._reasoned.setdefault(name, []).extend(pieces)
        self._thoughts = {}
        return self._open


def _joined(pieces: list[Any]) -> Any:
    """Texts as one text, lists as one list."""
    if isinstance(pieces[0], str):
        return "".join(pieces)
    return [entry for piece in pieces for entry in piece]


def _as_parts(content: Any) -> list[JSON]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


# -- items


def _message(turns: _Turns, item: JSON, path: str) -> None:
    content = _content(item["content"], f"{path}.content")
    if item["role"] == "assistant":
        only(item, _NAMES | {"role", "content", EXTRA}, path)
        turns.said(content, _extra(item))
    else:
        only(item, _NAMES | {"role", "content"}, path)
        turns.other({"role": item["role"], "content": content})


def _extra(item: JSON) -> JSON:
    return {EXTRA: item[EXTRA]} if item.get(EXTRA) is not None else {}


def _function_call(turns: _Turns, item: JSON, path: str) -> None:
    _refuse_caller(item, path)
    only(item, _NAMES | _CALLER | {"call_id", "name", "arguments", "namespace", EXTRA}, path)
    function = {"name": item["name"], "arguments": item["arguments"]}
    turns.called({"id": item["call_id"], "type": "function", "function": function, **_extra(item)})


def _custom_call(turns: _Turns, item: JSON, path: str) -> None:
    _refuse_caller(item, path)
    only(item, _NAMES | _CALLER | {"call_id", "name", "input", "namespace"}, path)
    custom = {"name": item["name"], "input": item["input"]}
    turns.called({"id": item["call_id"], "type": "custom", "custom": custom})


def _call_output(turns: _Turns, item: JSON, path: str) -> None:
    """What a tool gave; the ``name`` of the tool stands in its call."""
    _refuse_caller(item, path)
    only(item, _NAMES | _CALLER | {"call_id", "output", "name", "namespace"}, path)
    content = _content(item["output"], f"{path}.output")
    turns.other({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _refuse_caller(item: JSON, path: str) -> None:
    caller = item.get("caller")
    if caller is not None and caller != {"type": "direct"}:
        raise unsupported(f"{path}.caller", CANT)
    if item.get("async") not in (None, False):
        raise unsupported(f"{path}.async", CANT)
    # A tool of its own that was loaded later bears its own name as the namespace.
    if item.get("namespace") not in (None, item.get("name")):
        raise unsupported(f"{path}.namespace", CANT)


def _reasoning(turns: _Turns, item: JSON, path: str) -> None:
    only(item, _NAMES | {"summary", "content", "encrypted_content"}, path)
    sealed = item.get("encrypted_content")
    members = sealing.unseal(sealed, f"{path}.encrypted_content") if sealed else None
    if members is None:
        text = "".join(part["text"] for part in item.get("content") or ())
        members = {"reasoning_content": text} if text else {}
    turns.thought(members)


_ITEMS: Final[Mapping[str, Callable[[_Turns, JSON, str], None]]] = {
    "message": _message,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    "function_call_output": _call_output,
    "custom_tool_call_output": _call_output,
    "reasoning": _reasoning,
}


# -- content parts


def _content(content: Any, path: str) -> Any:
    """Text stays text; so does a list of one plain text, since not every server takes lists everywhere."""
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]
    return parts


def _part(part: JSON, path: str) -> JSON:
    made = _PARTS[part["type"]](part, path)
    mark = part.get("prompt_cache_breakpoint")
    return made if mark is None else {**made, "prompt_cache_breakpoint": mark}


def _known(part: JSON, path: str, *members: str) -> None:
    only(part, {"type", "prompt_cache_breakpoint", *members}, path)


def _text(part: JSON, path: str) -> JSON:
    _known(part, path, "text", "annotations", "logprobs")
    return {"type": "text", "text": part["text"]}


def _refusal(part: JSON, path: str) -> JSON:
    _known(part, path, "refusal")
    return {"type": "refusal", "refusal": part["refusal"]}


def _image(part: JSON, path: str) -> JSON:
    _known(part, path, "image_url", "detail")
    if part.get("image_url") is None:
        raise unsupported(path, f"is an image without image_url, which {CANT}")
    detail = {} if part.get("detail") in (None, "auto") else {"detail": part["detail"]}
    return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}


def _file(part: JSON, path: str) -> JSON:
    _known(part, path, "file_data", "file_id", "filename", "detail")
    if part.get("detail") not in (None, "auto"):
        raise unsupported(f"{path}.detail", CANT)
    file = {name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name) is not None}
    return {"type": "file", "file": file}


def _audio(part: JSON, path: str) -> JSON:
    _known(part, path, "input_audio")
    return {"type": "input_audio", "input_audio": part["input_audio"]}


_PARTS: Final[Mapping[str, Callable[[JSON, str], JSON]]] = {
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
