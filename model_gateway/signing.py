"""Signatures on replies: the bytes are signed as they stand, and the signature is appended to them.

Nothing is canonicalised. A whole reply ends in ``,"signature":"<64 hex>"}``; cut that suffix off, put the brace
back, and what remains is what was signed. A chunk does the same with ``x_signature`` and is chained to the chunk
before it, so that no flip, drop, swap, repeat, splice or cut passes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

OWN_MEMBERS: Final = frozenset(
    {
        "signature",
        "x_signature",
        "x_index",
        "x_prev",
        "x_final",
        "x_chunks",
        "x_request_id",
        "x_request_sha256",
        "x_kid",
    }
)
"""Top-level members that only the gateway may write; an upstream's are dropped."""

_SUFFIX: Final = re.compile(rb',?"(x_)?signature":"([0-9a-f]{64})"\}\Z')


def sign(data: bytes, secret: str) -> str:
    """Hex HMAC-SHA256 of ``data``."""
    return hmac.digest(secret.encode("utf-8", "surrogateescape"), data, "sha256").hex()


def verify_signature(data: str, signature: str, secret: str) -> bool:
    """Whether ``signature`` is the hex HMAC-SHA256 over UTF-8 ``data``; compared in constant time."""
    return hmac.compare_digest(sign(_bytes(data), secret).encode(), _bytes(signature))


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256, as it stands in ``x_request_sha256``."""
    return hashlib.sha256(data).hexdigest()


def key_id(secret: str) -> str:
    """The public name of a secret (``x_kid``): tells two live secrets apart and reveals neither."""
    return sign(b"x_kid", secret)[:8]


@dataclass(frozen=True, slots=True)
class Keyring:
    """The live secrets; the first signs, all verify. ``x_kid`` is written while two are live."""

    secrets: tuple[str, ...]

    @property
    def signing(self) -> str:
        """The secret that signs."""
        return self.secrets[0]

    def members(self) -> bytes:
        """``,"x_kid":"..."`` while two secrets are live, else nothing."""
        return b',"x_kid":"%b"' % key_id(self.signing).encode() if len(self.secrets) > 1 else b""


class NotAnObjectError(ValueError):
    """An upstream sent something other than a JSON object."""


def clean_object(text: bytes, parsed: Any, *, one_line: bool, without: Collection[str] = ()) -> bytes:
    """An upstream's object as it will be signed: stripped, without our member names, on one line if asked.

    Args:
        text: the JSON text as it came.
        parsed: the same, parsed.
        one_line: a server-sent event can't hold raw newlines.
        without: further members to leave out.

    Raises:
        NotAnObjectError: ``parsed`` is no object.
    """
    if not isinstance(parsed, dict):
        raise NotAnObjectError(f"expected a JSON object, got {type(parsed).__name__}")
    text = text.strip()
    unwanted = OWN_MEMBERS.union(without)
    if unwanted.isdisjoint(parsed) and not (one_line and (b"\n" in text or b"\r" in text)):
        return text
    return orjson.dumps({name: value for name, value in parsed.items() if name not in unwanted})


def _append(text: bytes, members: bytes) -> bytes:
    """``text`` with ``,"a":1`` members in front of its last brace; an empty object takes no comma."""
    body = text[:-1]
    if body.rstrip() == b"{":
        members = members[1:]
    return b"%b%b}" % (body, members)


def _seal(data: bytes, name: bytes, secret: str) -> tuple[bytes, str]:
    signature = sign(data, secret)
    return _append(data, b',"%b":"%b"' % (name, signature.encode())), signature


def seal_reply(text: bytes, keyring: Keyring, request_id: str, request_sha256: str) -> bytes:
    """A whole reply, bound to its request and signed. ``text`` comes from ``clean_object``."""
    members = b',"x_request_id":"%b","x_request_sha256":"%b"' % (request_id.encode(), request_sha256.encode())
    return seal_text(_append(text, members + keyring.members()), keyring)


def seal_text(data: bytes, keyring: Keyring) -> bytes:
    """``data``, an object's text, with ``signature`` as its last member."""
    return _seal(data, b"signature", keyring.signing)[0]


class ChunkChain:
    """Signs the chunks of one stream, each bound to the one before it."""

    def __init__(
        self, keyring: Keyring, request_id: str, request_sha256: str, *, index: int = 0, previous: str = ""
    ) -> None:
        """Start a chain, or go on with one at ``index`` after the signature ``previous``."""
        self._keyring = keyring
        self._sha256 = request_sha256
        self.index = index
        self.previous = previous or request_id

    def seal(self, text: bytes, *, final: bool = False) -> bytes:
        """The next chunk, signed. ``text`` comes from ``clean_object``."""
        members = b',"x_index":%d,"x_prev":"%b"' % (self.index, self.previous.encode())
        if self.index == 0:
            members += b',"x_request_sha256":"%b"' % self._sha256.encode()
        members += self._keyring.members()
        if final:
            members += b',"x_final":true,"x_chunks":%d' % (self.index + 1)
        sealed, self.previous = _seal(_append(text, members), b"x_signature", self._keyring.signing)
        self.index += 1
        return sealed


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a verification; true or false, with the reason when false."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


def _unseal(text: bytes, name: str, secrets: Sequence[str]) -> tuple[str, str]:
    """The signature at the end of ``text``, and why it does not hold (empty when it does)."""
    match = _SUFFIX.search(text)
    if match is None or (match[1] is not None) != (name == "x_signature"):
        return "", f"no {name} at the end"
    data = text[: match.start()] + b"}"
    signature = match[2].decode()
    if not any(hmac.compare_digest(sign(data, secret), signature) for secret in secrets):
        return signature, "the signature does not match the text"
    return signature, ""


def _bytes(text: str | bytes) -> bytes:
    """UTF-8; a lone surrogate, which no signed text holds, makes a wrong signature and not an exception."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _secrets(secret: str | Sequence[str]) -> Sequence[str]:
    return [secret] if isinstance(secret, str) else secret


def verify_reply(
    reply: str | bytes,
    secret: str | Sequence[str],
    *,
    request_id: str | None = None,
    request_body: bytes | None = None,
) -> Verdict:
    """Whether a whole reply is intact, and is the reply to this request.

    Args:
        reply: the raw text as received; parsing and dumping it again breaks the signature.
        secret: the gateway's ``HMAC_SECRET``, or all that are live.
        request_id: if given, ``x_request_id`` must be this.
        request_body: if given, ``x_request_sha256`` must be its digest.
    """
    text = _bytes(reply).strip()
    _, reason = _unseal(text, "signature", _secrets(secret))
    if reason:
        return Verdict(False, reason)
    try:
        members = orjson.loads(text)
    except ValueError:
        return Verdict(False, "not JSON")
    if request_id is not None and members.get("x_request_id") != request_id:
        return Verdict(False, "the reply belongs to another request id")
    if request_body is not None and members.get("x_request_sha256") != sha256_hex(request_body):
        return Verdict(False, "the reply belongs to another request body")
    return Verdict(True)


def verify_stream(
    chunks: Iterable[str | bytes],
    secret: str | Sequence[str],
    *,
    request_id: str | None = None,
    request_body: bytes | None = None,
) -> Verdict:
    """Whether a stream is intact, whole, in order, and belongs to this request.

    Args:
        chunks: the raw ``data`` of each server-sent event, without ``[DONE]``.
        secret: the gateway's ``HMAC_SECRET``, or all that are live.
        request_id: if given, the stream must belong to it; else the first chunk says it.
        request_body: if given, the first chunk must carry its digest.
    """
    previous, final, count = request_id, False, 0
    for count, chunk in enumerate(chunks, start=1):
        text = _bytes(chunk).strip()
        signature, reason = _unseal(text, "x_signature", _secrets(secret))
        if not reason:
            reason = _link(text, count - 1, previous, request_body) if not final else "a chunk after the last"
        if reason:
            return Verdict(False, f"chunk {count - 1}: {reason}")
        previous = signature
        final = b'"x_final":true,"x_chunks":' in text and orjson.loads(text).get("x_final") is True
    return Verdict(True) if final else Verdict(False, f"cut after {count} chunks: no final chunk")


def _link(text: bytes, index: int, previous: str | None, request_body: bytes | None) -> str:
    """Why this chunk does not follow the one before it; empty when it does."""
    try:
        members = orjson.loads(text)
    except ValueError:
        return "not JSON"
    if members.get("x_index") != index:
        return f"x_index is {members.get('x_index')}, expected {index}"
    if previous is not None and members.get("x_prev") != previous:
        return "x_prev is not the signature before it" if index else "it belongs to another request id"
    if index == 0 and request_body is not None and members.get("x_request_sha256") != sha256_hex(request_body):
        return "it belongs to another request body"
    if members.get("x_final") is True and members.get("x_chunks") != index + 1:
        return f"x_chunks is {members.get('x_chunks')}, expected {index + 1}"
    return ""
