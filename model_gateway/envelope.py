"""A request on the stream: its fields, its signature, and who sent it.

The signature covers the values of ``SIGNED_FIELDS`` in that order, each as a netstring (``<length>:<bytes>,``), so
that no two sets of fields have the same signed text. Who the sender is follows from the secret that verifies.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from model_gateway.dialects import OPERATIONS
from model_gateway.signing import sign

VERSION: Final = "1"
SIGNED_FIELDS: Final = ("v", "from", "principal", "id", "op", "model", "ts", "body")
CANCEL: Final = "cancel"
"""The operation by which an isolated agent cancels its request ``id``; it stands on an ingress and nowhere else."""

CLOCK_SKEW_MS: Final = 300_000
"""How far ahead of its arrival an envelope may be signed."""

_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")
_NAME: Final = re.compile(r"(?:http|agent)-[a-z0-9][a-z0-9\-]{0,62}\Z")
_PRINCIPAL: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}\Z")
_TIME: Final = re.compile(r"[0-9]{1,15}\Z")
_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_MAX_MODEL: Final = 256


class BadEnvelopeError(ValueError):
    """An entry that no worker may run; the text is the dead letter's reason.

    ``sender`` and ``request_id`` are set only where the signature was good and both are well formed: an error
    reply goes there and nowhere else, so that a forged entry can't put a reply into somebody's stream.
    """

    def __init__(self, reason: str, *, sender: str = "", request_id: str = "") -> None:
        super().__init__(reason)
        self.sender = sender
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed request.

    Attributes:
        sender: ``http-<instance>`` or ``agent-<name>``; replies go to ``model.replies.<sender>``.
        principal: whose request it is; an agent's is its sender, a front door vouches for its client's.
        request_id: unique for the principal; a repeated one is answered, not run again.
        operation: one of ``OPERATIONS``: the body's dialect.
        model: a model's or a task's name; wins over the body's. Empty: the body's.
        ts_ms: when it was signed, milliseconds since the epoch.
        body: the request's JSON, as received.
    """

    sender: str
    principal: str
    request_id: str
    operation: str
    model: str
    ts_ms: int
    body: bytes

    @property
    def is_agent(self) -> bool:
        """Whether an agent sent it, rather than a front door."""
        return self.sender.startswith("agent-")

    def is_current(self, at_ms: int, remembered_ms: int) -> bool:
        """Whether it was signed, at a time ``at_ms``, no longer ago than ids are remembered, and not ahead of it."""
        return -CLOCK_SKEW_MS <= at_ms - self.ts_ms <= remembered_ms

    def fields(self, secret: str) -> dict[str, str | bytes]:
        """The stream entry's fields, signed with the sender's secret."""
        values: dict[str, str | bytes] = {
            "v": VERSION,
            "from": self.sender,
            "principal": self.principal,
            "id": self.request_id,
            "op": self.operation,
            "model": self.model,
            "ts": str(self.ts_ms),
            "body": self.body,
        }
        values["sig"] = sign(signed_text([_raw(values[name]) for name in SIGNED_FIELDS]), secret)
        return values


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def signed_text(values: list[bytes]) -> bytes:
    """The bytes that an envelope's signature covers: one netstring per value."""
    return b"".join(b"%d:%b," % (len(value), value) for value in values)


def front_door_secret(hmac_secret: str) -> str:
    """The secret that front doors sign envelopes with, derived so that it can't sign replies."""
    return sign(b"model-gateway front door envelope v1", hmac_secret)


def new_request_id(now_ms: int) -> str:
    """``req_`` and a ULID (48 bits of time, 80 random), in lower-case Crockford base 32."""
    value = (now_ms << 80) | secrets.randbits(80)
    return "req_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def open_envelope(
    fields: Mapping[bytes, bytes],
    secrets_of: Mapping[str, tuple[str, ...]],
    operations: Collection[str] = OPERATIONS,
) -> Envelope:
    """Verify an entry's fields and say who sent what.

    Args:
        fields: the entry as read.
        secrets_of: sender class to live secrets: ``http`` for front doors, ``agent-<name>`` for each agent.
        operations: what may be asked for.

    Raises:
        BadEnvelopeError: malformed, from an unknown sender, or not signed by it.
    """
    values = _required(fields)
    sender = _text(values["from"], "from")
    if not _NAME.match(sender):
        raise BadEnvelopeError("malformed: from")
    live = secrets_of.get("http" if sender.startswith("http-") else sender)
    if not live:
        raise BadEnvelopeError("unknown sender")
    signed = signed_text([values[name] for name in SIGNED_FIELDS])
    given = fields.get(b"sig", b"")
    if not any(hmac.compare_digest(sign(signed, secret).encode(), given) for secret in live):
        raise BadEnvelopeError("bad signature" if given else "unsigned")
    return _envelope(values, sender, operations)


def _required(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    missing = [name for name in SIGNED_FIELDS if name.encode() not in fields]
    if missing:
        raise BadEnvelopeError(f"malformed: missing {', '.join(missing)}")
    return {name: fields[name.encode()] for name in SIGNED_FIELDS}


def _envelope(values: dict[str, bytes], sender: str, operations: Collection[str]) -> Envelope:
    """The verified values, checked one by one."""
    texts = {name: _text(values[name], name) for name in SIGNED_FIELDS if name != "body"}
    checks = {
        "v": texts["v"] == VERSION,
        "id": bool(_ID.match(texts["id"])),
        "op": texts["op"] in operations,
        "ts": bool(_TIME.match(texts["ts"])),
        "model": len(texts["model"]) <= _MAX_MODEL,
        "principal": bool(_PRINCIPAL.match(texts["principal"])),
    }
    reply_to = texts["id"] if checks["id"] else ""
    for name, ok in checks.items():
        if not ok:
            raise BadEnvelopeError(f"malformed: {name}", sender=sender, request_id=reply_to)
    principal = texts["principal"]
    if not _may_speak_for(sender, principal):
        raise BadEnvelopeError("not this sender's principal", sender=sender, request_id=reply_to)
    return Envelope(sender, principal, texts["id"], texts["op"], texts["model"], int(texts["ts"]), values["body"])


def _may_speak_for(sender: str, principal: str) -> bool:
    """An agent speaks for itself alone; a front door vouches for any client that is no agent."""
    return principal == sender if sender.startswith("agent-") else not principal.startswith("agent-")


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadEnvelopeError(f"malformed: {name}") from error
