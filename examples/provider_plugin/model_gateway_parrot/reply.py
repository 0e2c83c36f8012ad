"""A parrot's reply as a chat completion, whole or in chunks: pure functions, of which most serve both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import orjson

from model_gateway.money import Usage, is_count, openai_from_usage
from model_gateway_parrot.request import JSON

T = TypeVar("T")

_FINISH: Final[Mapping[str, str]] = {"done": "stop", "breath": "length", "trick": "tool_calls"}


class BadReplyError(ValueError):
    """A reply that is not the Parrot API's; says what it is instead."""


class ReplyMapper:
    """Maps one reply.

    Args:
        created: seconds since the epoch.
    """

    def __init__(self, created: int) -> None:
        self._created = created
        self._head: Mapping[str, Any] | None = None

    def completion(self, reply: Mapping[str, Any]) -> JSON:
        """A whole reply.

        Raises:
            BadReplyError: it makes no sense.
        """
        self._head = reply
        message: JSON = {"role": "assistant", "content": _take(reply, "says", str) or None}
        if reply.get("tricks"):
            message["tool_calls"] = [_call(trick) for trick in _take(reply, "tricks", list)]
        choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
        return self._object("chat.completion", [choice]) | _usage(reply)

    def chunks(self, event: Mapping[str, Any]) -> Iterator[JSON]:
        """What one event of a stream becomes.

        The first event names the squawk; then something is said, a trick begun, or more said of what it is done
        with; the last one tells how it ended, and what was eaten.

        Raises:
            BadReplyError: it makes no sense.
        """
        if "squawk" in event:
            self._head = event
            yield self._chunk({"role": "assistant", "content": ""})
        elif "says" in event:
            yield self._chunk({"content": _take(event, "says", str)})
        elif "trick" in event:
            yield self._chunk({"tool_calls": [_piece(event)]})
        elif "ended" in event:
            yield self._chunk({}, _finish(event))
            if usage := _usage(event):
                yield self._object("chat.completion.chunk", []) | usage
        else:
            raise BadReplyError("an event of an unknown kind")

    def _chunk(self, delta: JSON, finish_reason: str | None = None) -> JSON:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def _object(self, kind: str, choices: list[JSON]) -> JSON:
        if self._head is None:
            raise BadReplyError("a stream that does not say whose it is")
        head = {"id": _take(self._head, "squawk", str), "object": kind, "created": self._created}
        return {**head, "model": _take(self._head, "parrot", str), "choices": choices}


def _call(trick: Any, arguments: str | None = None) -> JSON:
    """A call: all of it, or as it begins in a stream."""
    if not isinstance(trick, dict):
        raise BadReplyError("a trick that is no object")
    if arguments is None:
        arguments = orjson.dumps(_take(trick, "with", dict)).decode()
    function = {"name": _take(trick, "name", str), "arguments": arguments}
    return {"id": _take(trick, "id", str), "type": "function", "function": function}


def _piece(event: Mapping[str, Any]) -> JSON:
    index = _take(event, "trick", int)
    if "with" in event:
        return {"index": index, "function": {"arguments": _take(event, "with", str)}}
    return {"index": index, **_call(event, arguments="")}


def _finish(said: Mapping[str, Any]) -> str:
    """Why it ended; a reason that is not known passes as it is."""
    ended = _take(said, "ended", str)
    return _FINISH.get(ended, ended)


def _usage(said: Mapping[str, Any]) -> JSON:
    """The ``usage`` member; none where the reply tells none, as the gateway then counts by itself."""
    seeds = said.get("seeds")
    if not isinstance(seeds, dict):
        return {}
    counts = [seeds.get(name, 0) for name in ("cracked", "spat", "stashed")]
    if not all(is_count(count) for count in counts):
        return {}
    cracked, spat, stashed = counts
    return {"usage": openai_from_usage(Usage(input=cracked, output=spat, cached=stashed))}


def _take(members: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = members.get(name)
    if not isinstance(value, kind):
        raise BadReplyError(f"a reply whose {name} is no {kind.__name__}")
    return value
