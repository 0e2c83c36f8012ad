"""What a response that a provider gave in its own words tells: its cost and its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from typing_extensions import override

from model_gateway.dialects.answers import Reader
from model_gateway.money import Usage, usage_from_openai

_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Events that end a stream properly; each holds the whole response."""

_TELLS: Final = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
    }
)
"""Events whose ``delta`` is text that was generated."""

_TEXTS: Final = ("name", "arguments", "input", "text", "refusal")
"""Members of items and their parts that are text, for counting."""


def response_usage(response: Mapping[str, Any]) -> Usage | None:
    """Tokens by kind out of a response; None where it tells none."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    as_chat = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    return usage_from_openai(as_chat, response.get("service_tier"))


class ResponsesReader(Reader):
    """Reads responses and their events."""

    _complete = False

    @property
    @override
    def complete(self) -> bool:
        return self._complete

    @override
    def reply(self, parsed: dict[str, Any]) -> None:
        self._note(parsed)
        self._said += _texts(parsed.get("output"))

    @override
    def chunk(self, parsed: dict[str, Any]) -> None:
        kind, delta = str(parsed.get("type")), parsed.get("delta")
        if kind in _TELLS and isinstance(delta, str):
            self._said.append(delta)
        elif kind == "response.output_item.added":
            self._said += _names(parsed.get("item"))
        elif kind in _LAST:
            self.finishing = self._complete = True
            response = parsed.get("response")
            self._note(response if isinstance(response, dict) else {})

    def _note(self, response: Mapping[str, Any]) -> None:
        self.usage = response_usage(response)
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        self.finish_reason = str(reason or response.get("status") or "")


def _names(item: Any) -> Iterator[str]:
    name = item.get("name") if isinstance(item, dict) else None
    if isinstance(name, str):
        yield name


def _texts(items: Any) -> Iterator[str]:
    """Every text that items or their parts hold."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield from (item[name] for name in _TEXTS if isinstance(item.get(name), str))
            for name in ("content", "summary"):
                yield from _texts(item.get(name))
