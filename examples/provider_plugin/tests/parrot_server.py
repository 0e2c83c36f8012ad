"""What a parrot answers in the conformance suite's scenarios."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from model_gateway.testing import CALLS, Scenario

HEAD = {"squawk": "sq_1", "parrot": "polly-2"}
SEEDS = {"seeds": {"cracked": 9, "spat": 8, "stashed": 4}}


def answer(scenario: Scenario, request: Mapping[str, Any]) -> bytes | list[bytes]:
    """The reply to a request: whole, or the parts of a stream."""
    tricks = _tricks() if scenario is Scenario.TOOLS else []
    says = "" if tricks else request["script"][-1]["says"]
    ended = {"ended": "trick" if tricks else "done"} | ({} if scenario is Scenario.NO_USAGE else SEEDS)
    if request.get("live"):
        return [b"data: %b\n\n" % json.dumps(event).encode() for event in (HEAD, *_events(says, tricks), ended)]
    return json.dumps({**HEAD, "says": says, "tricks": tricks, **ended}).encode()


def _tricks() -> list[dict[str, Any]]:
    return [{"id": f"t{number}", "name": name, "with": given} for number, (name, given) in enumerate(CALLS)]


def _events(says: str, tricks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from ({"says": piece} for piece in _cut(says))
    for number, trick in enumerate(tricks):
        yield {"trick": number, "id": trick["id"], "name": trick["name"]}
        yield from ({"trick": number, "with": piece} for piece in _cut(json.dumps(trick["with"])))


def _cut(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]
