"""What a scripted Anthropic says (``Upstream(speech=anthropic_speech)``): messages, whole and streamed, and counts.

Behaviours are those of ``tests.upstream_replies``; ``done=False`` leaves out ``message_stop``, ``finish=False`` the
stop reason with all that follows. ``message`` and ``events`` make a reply out of any blocks, for ``body`` and
``events`` of a behaviour. ``cut_at=1`` of a ``raw`` one closes the connection after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.upstream_replies import Behaviour, streamed, text_of, whole

JSON = dict[str, Any]
Parts = Callable[[Behaviour, Any], Iterator[tuple[bytes, int]]]


def anthropic_speech(path: str) -> Parts | None:
    """What it says on a path; None where it has nothing."""
    return {"/v1/messages": message_parts, "/v1/messages/count_tokens": count_parts}.get(path)


def error(kind: str, message: str) -> bytes:
    """An error's body, the same as an event."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()


def message_parts(behaviour: Behaviour, request: JSON) -> Iterator[tuple[bytes, int]]:
    """The reply as it goes over the wire, each part with the tokens it costs."""
    if behaviour.raw is not None:
        yield from ((behaviour.raw, 0), (b"", 0))
        return
    good = behaviour.status < 400
    prompt = _prompt_tokens(request) if good else 0
    if good and request.get("stream") and (behaviour.body is None or behaviour.events):
        yield from streamed(behaviour, _named(behaviour, request), prompt, b"")
        return
    pieces, reason = _pieces(behaviour, request)
    body = behaviour.body
    if body is None:
        usage = usage_of(prompt, len(pieces)) if behaviour.usage else None
        made = message([_text("".join(pieces))], reason, usage, request["model"])
        body = _object(behaviour, made)
    yield from whole(behaviour.status, behaviour.headers, body, prompt + len(pieces) if good else 0)


def count_parts(behaviour: Behaviour, request: JSON) -> Iterator[tuple[bytes, int]]:
    """How many tokens a request would have; it costs none."""
    if behaviour.raw is not None:
        yield from ((behaviour.raw, 0), (b"", 0))
        return
    body = behaviour.body
    if body is None:
        body = _object(behaviour, {"input_tokens": _prompt_tokens(request)})
    yield from whole(behaviour.status, behaviour.headers, body)


def message(
    blocks: Sequence[JSON], reason: str | None, usage: JSON | None, model: str = "claude-x", **more: Any
) -> JSON:
    """A whole message; without usage if there is none."""
    told = {} if usage is None else {"usage": usage}
    head = {"id": "msg_upstream", "type": "message", "role": "assistant", "model": model}
    return {**head, "content": list(blocks), "stop_reason": reason, "stop_sequence": None, **told, **more}


def events(
    blocks: Sequence[JSON], reason: str | None = "end_turn", usage: JSON | None = None, model: str = "claude-x"
) -> list[JSON]:
    """The whole sequence for some blocks, each told in pieces of four characters."""
    first = None if usage is None else {**usage, "output_tokens": 1}
    found = [{"type": "message_start", "message": message([], None, first, model)}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        begun, deltas = _begun(block)
        found.append({"type": "content_block_start", "index": index, "content_block": begun})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    told = {} if usage is None else {"usage": {"output_tokens": usage["output_tokens"]}}
    if reason is not None:
        found.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, **told})
    return [*found, {"type": "message_stop"}]


def usage_of(prompt: int, completion: int, **more: Any) -> JSON:
    """A usage object."""
    return {"input_tokens": prompt, "output_tokens": completion, "service_tier": "standard", **more}


def encoded(sequence: Sequence[JSON]) -> tuple[bytes, ...]:
    """Events as a behaviour takes them."""
    return tuple(json.dumps(event, ensure_ascii=False).encode() for event in sequence)


def _begun(block: JSON) -> tuple[JSON, list[JSON]]:
    """A block as it begins, and the deltas that make it whole."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _cut(block["text"])]
        case "thinking":
            thought = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*thought, signed]
        case "tool_use":
            pieces = ["", *_cut(json.dumps(block["input"]))] if block["input"] else [""]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block, []


def _named(behaviour: Behaviour, request: JSON) -> Iterator[tuple[str, bytes, int]]:
    if behaviour.events is not None:
        yield from ((_name(event), event, 0) for event in behaviour.events)
        return
    pieces, reason = _pieces(behaviour, request)
    usage = usage_of(_prompt_tokens(request), len(pieces)) if behaviour.usage else None
    for event in events([_text("".join(pieces))], reason if behaviour.finish else None, usage, request["model"]):
        if event["type"] != "message_stop" or behaviour.done:
            yield event["type"], _object(behaviour, event), int(event["type"] == "content_block_delta")


def _name(event: bytes) -> str:
    try:
        return str(json.loads(event)["type"])
    except (ValueError, KeyError, TypeError):
        return ""


def _object(behaviour: Behaviour, members: Mapping[str, Any]) -> bytes:
    data = json.dumps(members, indent=1 if behaviour.newlines else None, ensure_ascii=False).encode()
    return data[:-1] + b"," + behaviour.members + b"}" if behaviour.members else data


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _cut(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def _pieces(behaviour: Behaviour, request: JSON) -> tuple[list[str], str]:
    """The answer in pieces of one token each, and why it ends."""
    pieces = _cut(behaviour.text or text_of(request["messages"][-1]) or "(empty)")
    most = request.get("max_tokens") or len(pieces)
    return pieces[:most], "end_turn" if most >= len(pieces) else "max_tokens"


def _prompt_tokens(request: JSON) -> int:
    system = {"content": request.get("system")}
    return sum(-(-len(text_of(said).encode()) // 4) for said in (system, *request["messages"]))
