"""The output of a response as it grows: items, and the events that tell of them.

An event is made where its item stands as the event says, and is to be written down at once: the item goes on changing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from model_gateway.dialects.responses.sealing import seal

JSON = dict[str, Any]


class Item:
    """An item that is being said.

    Attributes:
        item: it, as far as it has come.
    """

    def __init__(self, index: int, item: JSON) -> None:
        self.item = item
        self._index = index

    def open(self) -> Iterator[JSON]:
        """The event of its beginning."""
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item}

    def close(self, status: str) -> Iterator[JSON]:
        """The events of its end.

        Args:
            status: ``completed``, or ``incomplete`` where the answer was cut within it.
        """
        yield from self._finish()
        if "status" in self.item:
            self.item["status"] = status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item}

    def _finish(self) -> Iterator[JSON]:
        return iter(())

    def _event(self, kind: str, **members: Any) -> JSON:
        return {"type": f"response.{kind}", "item_id": self.item["id"], "output_index": self._index, **members}


class ReasoningItem(Item):
    """What the provider tells of its reasoning, as a summary.

    Args:
        index: its place in the output.
        sealed: whether it is also to be given for sending back.
    """

    def __init__(self, index: int, *, sealed: bool) -> None:
        super().__init__(index, {"type": "reasoning", "id": _id("rs"), "summary": []})
        self._sealed = sealed
        self._text: list[str] = []
        self._blocks: list[Any] = []

    def add(self, text: str, blocks: list[Any]) -> Iterator[JSON]:
        """More of it: text, and blocks that have to go back as they are."""
        self._blocks += blocks
        if text and not self._text:
            self.item["summary"].append({"type": "summary_text", "text": ""})
            yield self._part("reasoning_summary_part.added")
        if text:
            self._text.append(text)
            yield self._event("reasoning_summary_text.delta", summary_index=0, delta=text)

    def _finish(self) -> Iterator[JSON]:
        text = "".join(self._text)
        if text:
            self.item["summary"][0]["text"] = text
            yield self._event("reasoning_summary_text.done", summary_index=0, text=text)
            yield self._part("reasoning_summary_part.done")
        if self._sealed:
            held = {"thinking_blocks": self._blocks} if self._blocks else {"reasoning_content": text}
            self.item["encrypted_content"] = seal(held)

    def _part(self, kind: str) -> JSON:
        return self._event(kind, summary_index=0, part=self.item["summary"][0])


class MessageItem(Item):
    """A message: texts and refusals, one after the other."""

    def __init__(self, index: int) -> None:
        item = {"type": "message", "id": _id("msg"), "status": "in_progress", "role": "assistant", "content": []}
        super().__init__(index, item)
        self._text: list[str] = []

    def say(self, text: str, logprobs: list[JSON]) -> Iterator[JSON]:
        """More text."""
        yield from self._begin({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        self._text.append(text)
        self._part["logprobs"] += logprobs
        yield self._in_part("output_text.delta", delta=text, logprobs=logprobs)

    def refuse(self, text: str) -> Iterator[JSON]:
        """More of a refusal."""
        yield from self._begin({"type": "refusal", "refusal": ""})
        self._text.append(text)
        yield self._in_part("refusal.delta", delta=text)

    def annotate(self, annotation: JSON) -> Iterator[JSON]:
        """A note on the text."""
        yield from self._begin({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        notes = self._part["annotations"]
        notes.append(annotation)
        yield self._in_part("output_text.annotation.added", annotation_index=len(notes) - 1, annotation=annotation)

    @property
    def _part(self) -> JSON:
        part: JSON = self.item["content"][-1]
        return part

    def _begin(self, part: JSON) -> Iterator[JSON]:
        """See that the open part is of this kind."""
        content = self.item["content"]
        if content and self._part["type"] == part["type"]:
            return
        if content:
            yield from self._finish()
        content.append(part)
        yield self._in_part("content_part.added", part=part)

    def _finish(self) -> Iterator[JSON]:
        part, text = self._part, "".join(self._text)
        self._text = []
        if part["type"] == "output_text":
            part["text"] = text
            yield self._in_part("output_text.done", text=text, logprobs=part["logprobs"])
        else:
            part["refusal"] = text
            yield self._in_part("refusal.done", refusal=text)
        yield self._in_part("content_part.done", part=part)

    def _in_part(self, kind: str, **members: Any) -> JSON:
        return self._event(kind, content_index=len(self.item["content"]) - 1, **members)


@dataclass(frozen=True, slots=True)
class CallKind:
    """A kind of tool call.

    Attributes:
        type: its name here.
        prefix: of its ids.
        member: what is said bit by bit.
        events: the name of that one's events.
    """

    type: str
    prefix: str
    member: str
    events: str


CALL_KINDS: Final[Mapping[str, CallKind]] = {
    "function": CallKind("function_call", "fc", "arguments", "function_call_arguments"),
    "custom": CallKind("custom_tool_call", "ctc", "input", "custom_tool_call_input"),
}
"""By a chat's name of the kind."""


class CallItem(Item):
    """A call of one of the client's tools.

    Args:
        index: its place in the output.
        kind: what is called.
        call_id: what the result will refer to; empty: the provider gave none.
        name: the tool's.
        extra: members that the provider wants back with the call.
    """

    def __init__(self, index: int, kind: CallKind, call_id: str, name: str, extra: JSON) -> None:
        item = {
            "type": kind.type,
            "id": _id(kind.prefix),
            "call_id": call_id or _id("call"),
            "name": name,
            kind.member: "",
            "status": "in_progress",
            **extra,
        }
        super().__init__(index, item)
        self._kind = kind
        self._text: list[str] = []

    def add(self, text: str) -> Iterator[JSON]:
        """More of its arguments."""
        if text:
            self._text.append(text)
            yield self._event(f"{self._kind.events}.delta", delta=text)

    def _finish(self) -> Iterator[JSON]:
        text = self.item[self._kind.member] = "".join(self._text)
        yield self._event(f"{self._kind.events}.done", **{self._kind.member: text})


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
