"""What an upstream of Google's says: content whole and streamed, embeddings of the Gemini API and of Vertex AI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.upstream_replies import Behaviour, streamed, text_of, whole

JSON = dict[str, Any]
Parts = Iterator[tuple[bytes, int]]
DIMENSIONS = 8
ERROR = b'{"error":{"code":500,"message":"the server had an error","status":"INTERNAL"}}'


def google_speech(path: str) -> Callable[[Behaviour, JSON], Parts] | None:
    """What is said on a path, whatever its base; None where there is nothing."""
    return _METHODS.get(path.rpartition(":")[2])


def content_parts(behaviour: Behaviour, request: JSON) -> Parts:
    """A whole answer as it goes over the wire."""
    if behaviour.raw is not None:
        yield from ((behaviour.raw, 0), (b"", 0))
        return
    pieces, reason = _pieces(behaviour, request)
    answer = reply([{"text": "".join(pieces)}], reason if behaviour.finish else None, _usage(behaviour, request))
    body = _object(behaviour, answer) if behaviour.body is None else behaviour.body
    yield from whole(behaviour.status, behaviour.headers, body, _cost(behaviour, request, len(pieces)))


def stream_parts(behaviour: Behaviour, request: JSON) -> Parts:
    """A streamed answer; nothing marks its end but the end of the body."""
    if behaviour.raw is not None or behaviour.status >= 400 or (behaviour.body is not None and not behaviour.events):
        yield from content_parts(behaviour, request)
        return
    yield from streamed(behaviour, _named(behaviour, request), _cost(behaviour, request, 0), b"")


def batch_parts(behaviour: Behaviour, request: JSON) -> Parts:
    """Embeddings of a batch."""
    found = [{"values": _vector(one, index)} for index, one in enumerate(request["requests"])]
    told = {"usageMetadata": {"promptTokenCount": 4 * len(found)}} if behaviour.usage else {}
    yield from _answer(behaviour, {"embeddings": found, **told})


def embed_parts(behaviour: Behaviour, request: JSON) -> Parts:
    """The embedding of one content."""
    yield from _answer(
        behaviour, {"embedding": {"values": _vector(request, 0)}, "usageMetadata": {"promptTokenCount": 4}}
    )


def predict_parts(behaviour: Behaviour, request: JSON) -> Parts:
    """Embeddings as predictions."""
    size = (request.get("parameters") or {}).get("outputDimensionality") or DIMENSIONS
    found = [
        {"embeddings": {"values": [float(index)] * size, "statistics": {"token_count": 4.0, "truncated": False}}}
        for index in range(len(request["instances"]))
    ]
    yield from _answer(behaviour, {"predictions": found})


_METHODS: Mapping[str, Callable[[Behaviour, JSON], Parts]] = {
    "generateContent": content_parts,
    "streamGenerateContent": stream_parts,
    "batchEmbedContents": batch_parts,
    "embedContent": embed_parts,
    "predict": predict_parts,
}
"""By what follows the model in a path."""


def reply(parts: list[JSON], reason: str | None = "STOP", usage: JSON | None = None, **candidate: Any) -> JSON:
    """A whole answer, or an event of one."""
    ended = {} if reason is None else {"finishReason": reason}
    told = {} if usage is None else {"usageMetadata": usage}
    one = {"content": {"role": "model", "parts": parts}, **ended, "index": 0, **candidate}
    return {"candidates": [one], **told, "modelVersion": "gemini-x-001", "responseId": "resp-1"}


def usage_of(prompt: int, candidates: int = 0, thoughts: int = 0, **more: Any) -> JSON:
    """Usage; a count of 0 is missing, as on the wire."""
    counts = {"candidatesTokenCount": candidates, "thoughtsTokenCount": thoughts}
    told = {name: count for name, count in counts.items() if count}
    return {"promptTokenCount": prompt, **told, "totalTokenCount": prompt + candidates + thoughts, **more}


def encoded(*events: JSON) -> tuple[bytes, ...]:
    """Events as a behaviour takes them."""
    return tuple(json.dumps(event, ensure_ascii=False).encode() for event in events)


def error(code: int, status: str, message: str, *details: JSON) -> bytes:
    """An error's body."""
    return json.dumps(
        {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    ).encode()


def _answer(behaviour: Behaviour, members: JSON) -> Parts:
    if behaviour.raw is not None:
        yield from ((behaviour.raw, 0), (b"", 0))
        return
    body = json.dumps(members).encode() if behaviour.body is None else behaviour.body
    yield from whole(behaviour.status, behaviour.headers, body)


def _named(behaviour: Behaviour, request: JSON) -> Iterator[tuple[str, bytes, int]]:
    if behaviour.events is not None:
        yield from (("", event, 0) for event in behaviour.events)
        return
    pieces, reason = _pieces(behaviour, request)
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        usage = _usage(behaviour, request, number)
        yield "", _object(behaviour, reply([{"text": piece}], reason if last and behaviour.finish else None, usage)), 1


def _object(behaviour: Behaviour, members: JSON) -> bytes:
    data = json.dumps(members, indent=1 if behaviour.newlines else None, ensure_ascii=False).encode()
    return data[:-1] + b"," + behaviour.members + b"}" if behaviour.members else data


def _texts(request: JSON) -> list[str]:
    said = [request.get("systemInstruction") or {"parts": []}, *request["contents"]]
    return [text_of({"content": content["parts"]}) for content in said]


def _pieces(behaviour: Behaviour, request: JSON) -> tuple[list[str], str]:
    """The answer in pieces of one token each, and why it ends."""
    text = behaviour.text or _texts(request)[-1] or "(empty)"
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]
    most = (request.get("generationConfig") or {}).get("maxOutputTokens") or len(pieces)
    return pieces[:most], "STOP" if most >= len(pieces) else "MAX_TOKENS"


def _prompt_tokens(request: JSON) -> int:
    return sum(-(-len(text.encode()) // 4) for text in _texts(request))


def _usage(behaviour: Behaviour, request: JSON, said: int | None = None) -> JSON | None:
    pieces = len(_pieces(behaviour, request)[0]) if said is None else said
    return usage_of(_prompt_tokens(request), pieces) if behaviour.usage else None


def _cost(behaviour: Behaviour, request: JSON, said: int) -> int:
    return _prompt_tokens(request) + said if behaviour.status < 400 else 0


def _vector(request: JSON, index: int) -> list[float]:
    config = request.get("embedContentConfig") or request
    return [float(index + place) for place in range(config.get("outputDimensionality") or DIMENSIONS)]
