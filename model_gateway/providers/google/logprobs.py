"""Probabilities of tokens, from the Gemini API to a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from model_gateway.providers.google.terms import JSON


def chat_logprobs(result: Any) -> JSON | None:
    """A choice's ``logprobs`` out of a candidate's ``logprobsResult``; None where it has none."""
    chosen = _objects(result, "chosenCandidates")
    if not chosen:
        return None
    tops = _objects(result, "topCandidates")[: len(chosen)]
    content = [
        {**_token(token), "top_logprobs": [_token(other) for other in _objects(top, "candidates")]}
        for token, top in zip_longest(chosen, tops)
    ]
    return {"content": content, "refusal": None}


def _token(token: Mapping[str, Any]) -> JSON:
    text = str(token.get("token", ""))
    return {"token": text, "logprob": token.get("logProbability", 0.0), "bytes": list(text.encode())}


def _objects(members: Any, name: str) -> list[JSON]:
    value = members.get(name) if isinstance(members, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
