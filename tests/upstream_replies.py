"""What a scripted upstream says: behaviours, and the bytes of the reply that each makes of a request.

Tokens: a prompt has one for every 4 bytes of text or part of them, a completion one for every 4 characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the server does with one request; as it stands, a good reply.

    ``hold_at`` and ``cut_at`` count the parts that were sent before: the head, then each event of a stream,
    or each half of a whole body. At 0 not even the status has been sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # in place of a whole reply, or of a stream's whole body
    raw: bytes | None = None  # in place of all HTTP
    events: tuple[bytes, ...] | None = None  # in place of a stream's events
    text: str | None = None  # the answer; else the last user message
    delay: float = 0.0  # seconds before the answer
    hold_at: int | None = None  # waits there for release()
    cut_at: int | None = None  # closes the connection there
    usage: bool = True
    unasked_usage: bool = False  # told in a stream even where nobody asked for it
    finish: bool = True
    done: bool = True
    members: bytes = b""  # more members for each object, such as b'"signature":"x"'
    newlines: bool = False  # each chunk over several lines


ERROR = b'{"error":{"message":"the server had an error","type":"server_error","param":null,"code":null}}'
NAMED: Mapping[str, Behaviour] = {
    "held": Behaviour(hold_at=0),
    "held-midway": Behaviour(hold_at=2),
    "slow": Behaviour(delay=0.5),
    "cut-before-status": Behaviour(cut_at=0),
    "cut-midway": Behaviour(cut_at=2),
    "rejected": Behaviour(status=400, body=b'{"error":{"message":"no such thing","param":"messages"}}'),
    "unauthorized": Behaviour(status=401, body=b'{"error":{"message":"Incorrect API key provided"}}'),
    "rate-limited": Behaviour(status=429, headers={"Retry-After": "7"}, body=ERROR),
    "broken": Behaviour(status=500, body=ERROR),
    "overloaded": Behaviour(status=503, headers={"Retry-After": "3"}, body=ERROR),
    "not-http": Behaviour(raw=b"SSH-2.0-OpenSSH\r\n\r\n"),
    "garbage": Behaviour(body=b"<html>not what you asked for</html>"),
    "empty-body": Behaviour(body=b""),
    "not-an-object": Behaviour(body=b'["not", "an", "object"]'),
    "error-object": Behaviour(body=ERROR, events=(ERROR,)),
    "no-usage": Behaviour(usage=False),
    "no-finish": Behaviour(finish=False, done=False),
    "foreign-members": Behaviour(members=b'"x_signature":"forged","signature":"forged"'),
    "newlines": Behaviour(newlines=True),
}


def parts(behaviour: Behaviour, request: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    """The reply as it goes over the wire, each part with the tokens it costs."""
    if behaviour.raw is not None:
        yield behaviour.raw, 0
        return
    good = behaviour.status < 400
    prompt = _prompt_tokens(request) if good else 0
    if good and request.get("stream") and (behaviour.body is None or behaviour.events):
        done = b"data: [DONE]\n\n" if behaviour.done else b""
        yield from streamed(
            behaviour, (("", event, tokens) for event, tokens in _events(behaviour, request)), prompt, done
        )
        return
    said, _ = _pieces(behaviour, request)
    body = _completion(behaviour, request) if behaviour.body is None else behaviour.body
    cost = prompt + len(said) * _choices(request) if good else 0
    yield from whole(behaviour.status, behaviour.headers, body, cost)


def streamed(
    behaviour: Behaviour, events: Iterable[tuple[str, bytes, int]], prompt: int, done: bytes
) -> Iterator[tuple[bytes, int]]:
    """A stream of server-sent events: each one's name (empty: it has none), data and tokens."""
    yield _head(behaviour.status, behaviour.headers, "text/event-stream", "Transfer-Encoding: chunked"), prompt
    for name, event, tokens in events:
        text = b"".join(b"data: %b\n" % line for line in event.splitlines())
        yield _frame((b"event: %b\n" % name.encode() if name else b"") + text + b"\n"), tokens
    if done:
        yield _frame(done), 0
    yield b"0\r\n\r\n", 0


def whole(status: int, headers: Mapping[str, str], body: bytes, tokens: int = 0) -> Iterator[tuple[bytes, int]]:
    half = len(body) // 2
    yield _head(status, headers, "application/json", f"Content-Length: {len(body)}"), tokens
    yield body[:half], 0
    yield body[half:], 0


def _head(status: int, headers: Mapping[str, str], content_type: str, framing: str) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\n{framing}\r\n{more}\r\n".encode()


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _completion(behaviour: Behaviour, request: dict[str, Any]) -> bytes:
    said, finish = _pieces(behaviour, request)
    message = {"role": "assistant", "content": "".join(said)}
    choices = [{"index": index, "message": message, "finish_reason": finish} for index in range(_choices(request))]
    usage = {"usage": _usage(request, len(said))} if behaviour.usage else {}
    return _object(behaviour, request, "chat.completion", choices=choices, **usage)


def _events(behaviour: Behaviour, request: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    if behaviour.events is not None:
        yield from ((event, 0) for event in behaviour.events)
        return
    said, finish = _pieces(behaviour, request)
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in said), {}]
    for number, delta in enumerate(deltas[: None if behaviour.finish else -1]):
        reason = finish if number > len(said) else None
        for index in range(_choices(request)):
            choice = {"index": index, "delta": delta, "finish_reason": reason}
            cost = 1 if delta.get("content") else 0
            yield _object(behaviour, request, "chat.completion.chunk", choices=[choice], usage=None), cost
    asked = (request.get("stream_options") or {}).get("include_usage")
    if behaviour.usage and (asked or behaviour.unasked_usage):
        usage = _usage(request, len(said))
        yield _object(behaviour, request, "chat.completion.chunk", choices=[], usage=usage), 0


def _object(behaviour: Behaviour, request: dict[str, Any], kind: str, **members: Any) -> bytes:
    head = {"id": "chatcmpl-upstream", "object": kind, "created": 1_735_689_600, "model": request["model"]}
    data = json.dumps(head | members, indent=1 if behaviour.newlines else None, ensure_ascii=False).encode()
    return data[:-1] + b"," + behaviour.members + b"}" if behaviour.members else data


def _pieces(behaviour: Behaviour, request: dict[str, Any]) -> tuple[list[str], str]:
    """The answer in pieces of one token each, and why it ends."""
    text = behaviour.text or text_of(request["messages"][-1]) or "(empty)"
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]
    most = request.get("max_completion_tokens") or request.get("max_tokens") or len(pieces)
    return pieces[:most], "stop" if most >= len(pieces) else "length"


def _choices(request: dict[str, Any]) -> int:
    return request.get("n") or 1


def _usage(request: dict[str, Any], said: int) -> dict[str, int]:
    prompt, completion = _prompt_tokens(request), said * _choices(request)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _prompt_tokens(request: dict[str, Any]) -> int:
    return sum(-(-len(text_of(message).encode()) // 4) for message in request["messages"])


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
