"""What a chat's message or delta says, wherever its server puts it.

Strictly, as a client is to be told all of it; ``text_of`` only counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.errors import GatewayError

_REASONING: Final = ("reasoning_content", "reasoning")
"""By what name servers tell their reasoning; of two the first, as they say the same."""


def invalid(what: str) -> GatewayError:
    """The provider's answer can't be told."""
    return GatewayError("upstream_invalid_response", f"the provider answered with {what}")


def text_in(holder: Mapping[str, Any], name: str) -> str:
    """A member that is text; empty where there is none.

    Raises:
        GatewayError: ``upstream_invalid_response``: it is something else.
    """
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(f"a message whose {name} is no text")
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """The entries of a list that are objects; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def calls_of(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool calls.

    Raises:
        GatewayError: ``upstream_invalid_response``: they are none.
    """
    calls = said.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise invalid("tool calls that are none")
    return calls


def content_of(said: Mapping[str, Any]) -> str:
    """The text; some servers give it in parts.

    Raises:
        GatewayError: ``upstream_invalid_response``: there is something else in its place.
    """
    if isinstance(said.get("content"), list):
        return "".join(text_in(part, "text") for part in objects(said["content"]))
    return text_in(said, "content")


def reasoning_of(said: Mapping[str, Any]) -> str:
    """The reasoning: in a member of its own, or among the parts of the content, as texts (Mistral's ``thinking``).

    Raises:
        GatewayError: ``upstream_invalid_response``: there is something else in its place.
    """
    told = next((text for name in _REASONING if (text := text_in(said, name))), "")
    if told:
        return told
    thoughts = [objects(part.get("thinking")) for part in objects(said.get("content"))]
    return "".join(text_in(thought, "text") for texts in thoughts for thought in texts)


def text_of(part: Any) -> str:
    """Everything that a message or delta says, for counting: content, refusal, reasoning, tool calls."""
    if not isinstance(part, dict):
        return ""
    reasoning = part.get("reasoning_content") or part.get("reasoning")
    text = "".join(map(_words, (part.get("content"), part.get("refusal"), reasoning)))
    for call in objects(part.get("tool_calls")):
        for function in objects([call.get("function"), call.get("custom")]):
            text += "".join(str(function.get(name) or "") for name in ("name", "arguments", "input"))
    return text


def _words(value: Any) -> str:
    """Text, or the texts of parts; those of reasoning too."""
    if isinstance(value, str):
        return value
    return "".join(_words(part.get("text") or part.get("thinking")) for part in objects(value))
