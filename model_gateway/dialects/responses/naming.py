"""What a client of the Responses API calls the fields of the chat completion that its request became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.dialects.naming import MESSAGE, Names, renamed

_NAMES: Final[Names] = (
    (r"reasoning_effort$", "reasoning.effort"),
    (r"verbosity$", "text.verbosity"),
    (r"response_format(\.json_schema)?", "text.format"),
    (r"(tools\[\d+\])\.(function|custom)", r"\1"),
    (r"tool_choice\.(function|custom)(?=\.)", "tool_choice"),
    (r"tool_choice\.allowed_tools(\.tools\[\d+\])?(\.function|\.custom)?", r"tool_choice\1"),
    (r"(max_tokens|max_completion_tokens)$", "max_output_tokens"),
)


def own_name(payload: Mapping[str, Any], param: str) -> str:
    """The client's name for a path of the chat completion; of a message only where it was made of.

    Args:
        payload: the client's body.
        param: the path.
    """
    found = MESSAGE.match(param)
    if found:
        return "instructions" if payload.get("instructions") and found[1] == "0" else "input"
    if param in ("logprobs", "top_logprobs"):
        return "top_logprobs" if payload.get("top_logprobs") else "include"
    return renamed(param, _NAMES)
