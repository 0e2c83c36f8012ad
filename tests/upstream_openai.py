"""What an OpenAI-compatible upstream says besides chat: responses, whole and streamed, and embeddings."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.upstream_replies import Behaviour, streamed, text_of, whole

CREATED = 1_735_689_600
DIMENSIONS = 8


def response_parts(behaviour: Behaviour, request: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    """A response as it goes over the wire, each part with the tokens it costs; no ``[DONE]`` follows its events."""
    if behaviour.raw is not None:
        yield behaviour.raw, 0
        return
    good = behaviour.status < 400
    prompt = _tokens(_asked(request)) if good else 0
    if good and request.get("stream") and (behaviour.body is None or behaviour.events):
        yield from streamed(behaviour, _events(behaviour, request), prompt, b"")
        return
    pieces, _ = _pieces(behaviour, request)
    body = json.dumps(_response(behaviour, request, pieces)).encode() if behaviour.body is None else behaviour.body
    yield from whole(behaviour.status, behaviour.headers, body, prompt + len(pieces) if good else 0)


def embedding_parts(behaviour: Behaviour, request: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    """Embeddings as they go over the wire."""
    if behaviour.raw is not None:
        yield behaviour.raw, 0
        return
    inputs = request["input"] if isinstance(request["input"], list) else [request["input"]]
    prompt = sum(_tokens(item) if isinstance(item, str) else len(item) for item in inputs)
    usage = {"usage": {"prompt_tokens": prompt, "total_tokens": prompt}} if behaviour.usage else {}
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(request, index)} for index in range(len(inputs))
    ]
    reply = {"object": "list", "data": data, "model": request["model"], **usage}
    body = json.dumps(reply).encode() if behaviour.body is None else behaviour.body
    yield from whole(behaviour.status, behaviour.headers, body, prompt if behaviour.status < 400 else 0)


OPENAI_OPERATIONS: Mapping[str, Callable[[Behaviour, Any], Iterator[tuple[bytes, int]]]] = {
    "responses": response_parts,
    "embeddings": embedding_parts,
}
"""By a path's last segment."""


def _events(behaviour: Behaviour, request: dict[str, Any]) -> Iterator[tuple[str, bytes, int]]:
    if behaviour.events is not None:
        for event in behaviour.events:
            yield "", event, 0
        return
    pieces, ending = _pieces(behaviour, request)
    for number, (event, tokens) in enumerate(_sequence(behaviour, request, pieces, ending)):
        yield event["type"], json.dumps({**event, "sequence_number": number}, ensure_ascii=False).encode(), tokens


def _sequence(
    behaviour: Behaviour, request: dict[str, Any], pieces: list[str], ending: str
) -> Iterator[tuple[dict[str, Any], int]]:
    """The events of an answer that is one message with one text."""
    open_response = {**_response(behaviour, request, []), "status": "in_progress", "output": [], "usage": None}
    message = _message(pieces)
    part = message["content"][0]
    where = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": open_response}, 0
    yield {"type": "response.in_progress", "response": open_response}, 0
    item = {**message, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}, 0
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}, 0
    for piece in pieces:
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}, 1
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}, 0
    yield {"type": "response.content_part.done", **where, "part": part}, 0
    yield {"type": "response.output_item.done", "output_index": 0, "item": message}, 0
    if behaviour.finish:
        yield {"type": f"response.{ending}", "response": _response(behaviour, request, pieces)}, 0


def _response(behaviour: Behaviour, request: dict[str, Any], pieces: list[str]) -> dict[str, Any]:
    ending = _pieces(behaviour, request)[1]
    return {
        "id": "resp_upstream",
        "object": "response",
        "created_at": CREATED,
        "status": ending,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if ending == "incomplete" else None,
        "instructions": request.get("instructions"),
        "model": request["model"],
        "output": [_message(pieces)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.get("tools") or [],
        "usage": _usage(request, len(pieces)) if behaviour.usage else None,
    }


def _message(pieces: list[str]) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": []}]
    return {"type": "message", "id": "msg_upstream", "status": "completed", "role": "assistant", "content": content}


def _pieces(behaviour: Behaviour, request: dict[str, Any]) -> tuple[list[str], str]:
    """The answer in pieces of one token each, and how it ends."""
    text = behaviour.text or _last(request) or "(empty)"
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]
    most = request.get("max_output_tokens") or len(pieces)
    return pieces[:most], "completed" if most >= len(pieces) else "incomplete"


def _usage(request: dict[str, Any], said: int) -> dict[str, Any]:
    prompt = _tokens(_asked(request))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + said,
    }


def _asked(request: dict[str, Any]) -> str:
    given = request.get("input") or ""
    items = given if isinstance(given, list) else [{"content": given}]
    return str(request.get("instructions") or "") + "".join(text_of(item) for item in items)


def _last(request: dict[str, Any]) -> str:
    given = request.get("input") or ""
    return given if isinstance(given, str) else text_of(given[-1])


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)


def _vector(request: dict[str, Any], index: int) -> list[float] | str:
    numbers = [float(index + place) for place in range(request.get("dimensions") or DIMENSIONS)]
    if request.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    return numbers
