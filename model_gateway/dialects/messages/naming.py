"""What a client of the Messages API calls the fields of the chat completion that its request became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from model_gateway.dialects.messages.turns import chat_indexes
from model_gateway.dialects.naming import MESSAGE, Names, renamed

_NAMES: Final[Names] = (
    (r"stop(?=$|\[)", "stop_sequences"),
    (r"(user|safety_identifier)$", "metadata.user_id"),
    (r"parallel_tool_calls$", "tool_choice.disable_parallel_tool_use"),
    (r"tool_choice\.function(?=\.)", "tool_choice"),
    (r"(tools\[\d+\])\.function\.parameters", r"\1.input_schema"),
    (r"(tools\[\d+\])\.function", r"\1"),
    (r"max_completion_tokens$", "max_tokens"),
)


def own_name(payload: Mapping[str, Any], param: str) -> str:
    """The client's name for a path of the chat completion; of a message only which turn it was made of.

    Args:
        payload: the client's body.
        param: the path.
    """
    found = MESSAGE.match(param)
    if found:
        turn = chat_indexes(payload).get(int(found[1]))
        return "system" if turn is None else f"messages[{turn}]"
    config = payload.get("output_config") or {}
    if param.startswith("response_format"):
        return "output_config.format" if config.get("format") else "output_format"
    if param == "reasoning_effort":
        return "output_config.effort" if config.get("effort") else "thinking"
    return renamed(param, _NAMES)
