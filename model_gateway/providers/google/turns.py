"""A conversation in chat messages as the Gemini API has it: a system instruction, and contents. Pure functions.

- ``system`` and ``developer`` messages become the system instruction, in order, wherever they stand.
- Messages of one side that follow each other become one content.
- What a model thought and signed goes back where it was: a call's signature with the call
  (``tool_calls[].extra_content.google.thought_signature``), a text's with the text (the message's ``extra_content``),
  ``reasoning_content`` as the thought that it was. Another vendor's (with ``thinking_blocks``) says nothing to this
  model and is left out, so that a conversation can go on here after a fallback.
- Gemini 3 refuses a step whose first call bears no signature. Where it has none, since another model made it or the
  client's dialect can't carry it, it gets the value that the vendor has for this (``UNSIGNED``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from model_gateway.providers.chat_reading import call_id, called
from model_gateway.providers.google.content import parts
from model_gateway.providers.google.terms import JSON, Terms, wrong

UNSIGNED: Final = "skip_thought_signature_validator"
"""https://ai.google.dev/gemini-api/docs/thought-signatures: for calls that the model did not make itself."""

EXTRA: Final = "extra_content"
_COMMON: Final = frozenset({"role", "content"})
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    # Citations only describe an earlier answer.
    "assistant": _COMMON | {"tool_calls", "refusal", "reasoning_content", "thinking_blocks", "citations", EXTRA},
    "tool": _COMMON | {"tool_call_id", "name", "is_error"},
}
"""Members of a message by role; ``is_error`` is the gateway's own."""


@dataclass(slots=True)
class _Conversation:
    """What was read until now.

    Attributes:
        signed: whether the model wants signatures.
        names: of the functions, by their calls' ids.
    """

    terms: Terms
    signed: bool
    system: list[JSON] = field(default_factory=list)
    contents: list[JSON] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def say(self, role: str, said: list[JSON]) -> None:
        """Add parts to a side's content, a new one where the other side spoke last."""
        if not said:
            return
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"] += said
        else:
            self.contents.append({"role": role, "parts": said})


def conversation(messages: list[JSON], terms: Terms, *, signed: bool) -> tuple[list[JSON], list[JSON]]:
    """The system instruction's parts, and the contents.

    Args:
        messages: of the chat.
        terms: how the deployment wants it.
        signed: whether the model refuses calls without a signature.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    found = _Conversation(terms, signed)
    for index, message in enumerate(messages):
        path, role = f"messages[{index}]", str(message.get("role"))
        if role not in _ROLES:
            terms.refuse(f"{path}.role", f"is {role!r}, which the Gemini API does not have; use tools")
            continue
        terms.only(message, _KNOWN[role], path)
        _ROLES[role](found, message, path)
    return found.system, found.contents


def _system(found: _Conversation, message: JSON, path: str) -> None:
    made = parts(message.get("content"), f"{path}.content", found.terms)
    if any("text" not in part for part in made):
        found.terms.refuse(f"{path}.content", "of a system message is text only")
    found.system += [part for part in made if "text" in part]


def _user(found: _Conversation, message: JSON, path: str) -> None:
    found.say("user", parts(message.get("content"), f"{path}.content", found.terms))


def _assistant(found: _Conversation, message: JSON, path: str) -> None:
    own = None if message.get("thinking_blocks") else message.get("reasoning_content")
    thought = parts(own, f"{path}.reasoning_content", found.terms)
    said = parts(message.get("content"), f"{path}.content", found.terms)
    said += parts(message.get("refusal"), f"{path}.refusal", found.terms)
    signature = _signature(message, path, found.terms)
    if signature:
        said = said or [{"text": ""}]
        said[-1] = {**said[-1], "thoughtSignature": signature}
    calls = message.get("tool_calls") or ()
    called_here = [_call(found, call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls)]
    if called_here and found.signed:
        called_here[0] = {"thoughtSignature": UNSIGNED, **called_here[0]}
    found.say("model", [{**part, "thought": True} for part in thought] + said + called_here)


def _call(found: _Conversation, call: Any, path: str) -> JSON:
    number, name, arguments = called(call, path, found.terms)
    found.names[number] = name
    made: JSON = {"functionCall": {"id": number, "name": name, "args": arguments}}
    signature = _signature(call, path, found.terms)
    return {**made, "thoughtSignature": signature} if signature else made


def _signature(holder: JSON, path: str, terms: Terms) -> str:
    """What the model signed, out of ``extra_content``; other vendors' contents of it are refused."""
    extra = holder.get(EXTRA)
    if extra is None:
        return ""
    google = extra.get("google") if isinstance(extra, dict) else None
    if not isinstance(google, dict):
        terms.refuse(f"{path}.{EXTRA}", "is not known to the Gemini API")
        return ""
    terms.only(extra, frozenset({"google"}), f"{path}.{EXTRA}")
    # The others say why an earlier reply ended.
    known = frozenset({"thought_signature", "finish_message", "block_reason"})
    terms.only(google, known, f"{path}.{EXTRA}.google")
    signature = google.get("thought_signature", "")
    if not isinstance(signature, str):
        raise wrong(f"{path}.{EXTRA}.google.thought_signature", "must be that of an earlier reply, unchanged")
    return signature


def _tool(found: _Conversation, message: JSON, path: str) -> None:
    """A result: its text as ``output``, or as ``error``; images and files beside it."""
    number = call_id(message.get("tool_call_id"), f"{path}.tool_call_id")
    name = found.names.get(number) or message.get("name")
    if not isinstance(name, str) or not name:
        raise wrong(f"{path}.tool_call_id", "must be the id of an earlier tool call")
    made = parts(message.get("content"), f"{path}.content", found.terms)
    text = "".join(part["text"] for part in made if "text" in part)
    response: JSON = {"id": number, "name": name, "response": {"error" if message.get("is_error") else "output": text}}
    attached = [part for part in made if "text" not in part]
    if attached:
        response["parts"] = attached
    found.say("user", [{"functionResponse": response}])


_ROLES: Final[Mapping[str, Callable[[_Conversation, JSON, str], None]]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
}
