"""An answer of ``generateContent``, whole or streamed, as a chat completion or its chunks: pure, one mapper for both.

What a chat completion has no member for is told in these:

- ``reasoning_content``: what the model tells of its thoughts.
- ``tool_calls[].extra_content.google.thought_signature``, as in the vendor's own OpenAI-compatible endpoint: to be sent
  back with the call. A signature of a text stands in the message's ``extra_content``; in a stream it comes with the
  end. Of several, the last: it stands for all before it.
- ``citations``: of the text, as the vendor gives them; in a stream with their ``index``, as OpenAI's SDK puts no list
  together without.
- ``extra_content.google.finish_message`` and ``block_reason``: the vendor's words on an early end.

Ends are in ``_FINISH``. A prompt that was blocked is an empty answer that ends with ``content_filter``: it was read,
and may cost. A failure of the model (``MALFORMED_FUNCTION_CALL``, ``OTHER``) has no counterpart in a chat completion,
and passes as it is, in small letters, so that what it cost is known. Parts of other kinds (images, code that the vendor
ran) can't be asked for here, and make the reply invalid.

An end counts once the stream is over: older models name one in each event, and so a stream that is cut never looks
finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from model_gateway.providers.google.logprobs import chat_logprobs
from model_gateway.providers.google.terms import JSON
from model_gateway.providers.google.usage import chat_members

_FINISH: Final[Mapping[str, str]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
}
_UNKNOWN: Final = "FINISH_REASON_UNSPECIFIED"
_PARTS: Final = frozenset({"text", "functionCall", "thought", "thoughtSignature"})
"""Members of a part that are read. Beside a text or a call others only describe it; alone they are something else."""

_CALL: Final = frozenset({"id", "name", "args"})
MAX_CANDIDATES: Final = 128


class BadReplyError(ValueError):
    """A reply that makes no sense; says what it is instead."""


@dataclass(slots=True)
class _Choice:
    """One candidate, as far as it is known.

    Attributes:
        reason: why it ended, in the vendor's words.
        calls: how many there were; ``citations`` likewise.
        extra: what is told at the end, in ``extra_content.google``.
    """

    index: int
    begun: bool = False
    reason: str = ""
    calls: int = 0
    citations: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def finish_reason(self) -> str:
        """Why it ended, in a chat's words."""
        found = _FINISH.get(self.reason, self.reason.lower())
        return "tool_calls" if found == "stop" and self.calls else found

    @property
    def ending(self) -> JSON:
        """The delta of its end."""
        return {"extra_content": {"google": self.extra}} if self.extra else {}


class ReplyMapper:
    """Turns answers into chunks; a whole one is put together from the same deltas.

    Args:
        name: an id for the completion, where the answer has none.
        created: seconds since the epoch.
        model: the model that was asked, where the answer does not tell.
        tier: the service tier that was asked for.
    """

    def __init__(self, name: str, created: int, model: str = "", tier: str = "") -> None:
        self._name = name
        self._created = created
        self._model = model
        self._tier = tier
        self._usage: Any = None
        self._choices: dict[int, _Choice] = {}

    @property
    def complete(self) -> bool:
        """Whether every candidate has come to an end."""
        return bool(self._choices) and all(choice.reason for choice in self._choices.values())

    def completion(self, reply: Mapping[str, Any]) -> JSON:
        """A whole answer.

        Raises:
            BadReplyError: it is none.
        """
        said: dict[int, JSON] = {}
        logprobs: dict[int, JSON] = {}
        for index, delta, tokens in self._read(reply):
            _gather(said.setdefault(index, {}), delta)
            if tokens:
                logprobs[index] = tokens
        if not self.complete:
            raise BadReplyError("a reply without a finished candidate")
        choices = []
        for index, choice in sorted(self._choices.items()):
            message = {**_EMPTY, **_gathered(said.get(index, {}), choice)}
            end = {"logprobs": logprobs.get(index), "finish_reason": choice.finish_reason}
            choices.append({"index": index, "message": message, **end})
        return self._envelope("chat.completion", choices) | chat_members(self._usage, self._tier)

    def chunks(self, reply: Mapping[str, Any]) -> Iterator[JSON]:
        """The chunks that one event of a stream becomes.

        Raises:
            BadReplyError: it makes no sense.
        """
        for index, delta, tokens in self._read(reply):
            choice = self._choices[index]
            role = {} if choice.begun else {"role": "assistant"}
            choice.begun = True
            yield self._chunk(index, {**role, **delta}, tokens)

    def end(self) -> Iterator[JSON]:
        """The last chunks, once the stream is over: the ends, and what it cost."""
        for index, choice in sorted(self._choices.items()):
            role = {} if choice.begun else {"role": "assistant", "content": ""}
            yield self._chunk(index, {**role, **choice.ending}, None, choice.finish_reason)
        cost = chat_members(self._usage, self._tier)
        if cost:
            yield self._envelope("chat.completion.chunk", []) | cost

    def _read(self, reply: Mapping[str, Any]) -> Iterator[tuple[int, JSON, JSON | None]]:
        """What an answer or an event of one tells: a candidate's number, its delta, its tokens' probabilities."""
        self._name = _text(reply, "responseId") or self._name
        self._model = _text(reply, "modelVersion") or self._model
        self._usage = reply.get("usageMetadata") or self._usage
        candidates = _list(reply, "candidates")
        if not candidates:
            self._note_block(reply)
        for candidate in candidates:
            choice = self._choice(candidate)
            deltas = list(self._deltas(choice, candidate))
            tokens = chat_logprobs(candidate.get("logprobsResult"))
            if tokens and not deltas:
                deltas = [{}]
            for number, delta in enumerate(deltas):
                yield choice.index, delta, None if number else tokens

    def _choice(self, candidate: Any) -> _Choice:
        index = candidate.get("index", 0) if isinstance(candidate, dict) else -1
        if not isinstance(index, int) or not 0 <= index < MAX_CANDIDATES:
            raise BadReplyError("a candidate that is none")
        choice = self._choices.setdefault(index, _Choice(index))
        reason = _text(candidate, "finishReason")
        if reason and reason != _UNKNOWN:
            choice.reason = reason
        if candidate.get("finishMessage"):
            choice.extra["finish_message"] = _text(candidate, "finishMessage")
        return choice

    def _note_block(self, reply: Mapping[str, Any]) -> None:
        """A prompt that was blocked: one empty choice that has ended."""
        feedback = reply.get("promptFeedback")
        reason = _text(feedback, "blockReason") if isinstance(feedback, dict) else ""
        if reason:
            choice = self._choices.setdefault(0, _Choice(0))
            choice.reason = "SAFETY"
            choice.extra["block_reason"] = reason

    def _deltas(self, choice: _Choice, candidate: Mapping[str, Any]) -> Iterator[JSON]:
        content = candidate.get("content")
        for part in _list(content, "parts") if isinstance(content, dict) else ():
            if not isinstance(part, dict):
                raise BadReplyError("a part that is no object")
            yield from self._delta(choice, part)
        citations = candidate.get("citationMetadata")
        if isinstance(citations, dict):
            found = _list(citations, "citations") or _list(citations, "citationSources")
            first, choice.citations = choice.citations, choice.citations + len(found)
            if not all(isinstance(citation, dict) for citation in found):
                raise BadReplyError("a citation that is none")
            numbered = [{"index": first + number, **citation} for number, citation in enumerate(found)]
            yield from [{"citations": numbered}] if numbered else ()

    def _delta(self, choice: _Choice, part: Mapping[str, Any]) -> Iterator[JSON]:
        strange = sorted(part.keys() - _PARTS)
        if strange and "text" not in part and "functionCall" not in part:
            raise BadReplyError(f"a part of the unknown kind {strange[0]!r}")
        signature = _text(part, "thoughtSignature")
        if part.get("functionCall") is not None:
            yield {"tool_calls": [self._call(choice, part["functionCall"], signature)]}
            return
        if signature:
            choice.extra["thought_signature"] = signature
        text = _text(part, "text")
        if text:
            yield {"reasoning_content" if part.get("thought") else "content": text}

    def _call(self, choice: _Choice, call: Any, signature: str) -> JSON:
        if not isinstance(call, dict) or not _text(call, "name"):
            raise BadReplyError("a function call without a name")
        if any(value for name, value in call.items() if name not in _CALL):
            raise BadReplyError("a function call in pieces")
        number, choice.calls = choice.calls, choice.calls + 1
        # The API numbers calls for some models only; a reply's id makes ours differ from those of other turns.
        name = _text(call, "id") or f"call_{choice.index}_{number}_{self._name}"
        arguments = orjson.dumps(call.get("args") or {}).decode()
        made: JSON = {"index": number, "id": name, "type": "function"}
        made["function"] = {"name": call["name"], "arguments": arguments}
        return {**made, "extra_content": {"google": {"thought_signature": signature}}} if signature else made

    def _envelope(self, kind: str, choices: list[JSON]) -> JSON:
        head = {"id": self._name, "object": kind, "created": self._created}
        return {**head, "model": self._model, "choices": choices}

    def _chunk(self, index: int, delta: JSON, logprobs: JSON | None, finish_reason: str | None = None) -> JSON:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._envelope("chat.completion.chunk", [choice])


_EMPTY: Final[Mapping[str, Any]] = {"role": "assistant", "content": "", "refusal": None}


def _gather(said: JSON, delta: JSON) -> None:
    """Put a delta to the others, as a client does."""
    for name, value in delta.items():
        if isinstance(value, list):
            said.setdefault(name, []).extend(_without_index(entry) for entry in value)
        else:
            said[name] = said[name] + value if name in said else value


def _without_index(entry: JSON) -> JSON:
    return {name: value for name, value in entry.items() if name != "index"}


def _gathered(said: JSON, choice: _Choice) -> JSON:
    """A whole message out of its deltas."""
    called = {"content": said.get("content")} if "tool_calls" in said else {}
    return {**said, **called, **choice.ending}


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReplyError(f"a reply whose {name} is no text")
    return value


def _list(members: Mapping[str, Any], name: str) -> list[Any]:
    value = members.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadReplyError(f"a reply whose {name} is no list")
    return value
