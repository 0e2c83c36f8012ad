"""Embeddings, from OpenAI's shape to the Gemini API's and Vertex AI's, and back: pure functions.

The Gemini API takes texts as one batch. On Vertex AI a Gemini model takes one content, or a batch of them, and any
other takes instances to predict for: as the vendor's SDK puts them.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any, Final

from model_gateway.dialects.strict_json import unsupported
from model_gateway.money import is_count
from model_gateway.providers.google.reply import BadReplyError
from model_gateway.providers.google.terms import JSON, Terms, is_nothing

_MAPPED: Final = frozenset({"dimensions", "encoding_format"})


def embedding_body(
    inputs: list[Any], resource: str, fields: Mapping[str, Any], terms: Terms, *, vertex: bool
) -> tuple[str, JSON]:
    """The method to call, and its body.

    Args:
        inputs: texts.
        resource: the model's name as in the path.
        fields: the request's other fields.
        terms: how the deployment wants it.
        vertex: whether Vertex AI is asked.

    Raises:
        GatewayError: ``unsupported_parameter``.
    """
    for name, value in fields.items():
        if name not in _MAPPED and not is_nothing(value):
            terms.refuse(name, "is not known to the Gemini API's embeddings")
    if not all(isinstance(text, str) for text in inputs):
        raise unsupported("input", "must be text: this provider takes no tokens")
    size = fields.get("dimensions")
    sized: JSON = {"outputDimensionality": size} if size else {}
    typed: JSON = {"taskType": terms.task_type} if terms.task_type else {}
    if not vertex:
        requests = [{"model": resource, "content": _content(text), **typed, **sized} for text in inputs]
        return "batchEmbedContents", {"requests": requests}
    if "gemini" not in resource.rpartition("/")[2]:
        return "predict", _instances(inputs, terms.task_type, sized)
    config = {"embedContentConfig": {**typed, **sized}} if typed or sized else {}
    if len(inputs) == 1:
        return "embedContent", {"content": _content(inputs[0]), **config}
    return "batchEmbedContents", {"requests": [{"content": _content(text), **config} for text in inputs]}


def _content(text: str) -> JSON:
    return {"role": "user", "parts": [{"text": text}]}


def _instances(inputs: list[Any], task_type: str, sized: JSON) -> JSON:
    typed = {"task_type": task_type} if task_type else {}
    body: JSON = {"instances": [{"content": text, **typed} for text in inputs]}
    return {**body, "parameters": sized} if sized else body


def embeddings(reply: Mapping[str, Any], count: int, model: str, encoding: Any) -> JSON:
    """The answer in OpenAI's shape; without ``usage`` where it tells none.

    Args:
        reply: the vendor's.
        count: how many texts were sent.
        model: the model that was asked.
        encoding: ``base64`` for little-endian floats of 32 bits; else numbers.

    Raises:
        BadReplyError: it holds something else than a vector for each text.
    """
    found, tokens = _vectors(reply)
    if len(found) != count:
        raise BadReplyError(f"{len(found)} embeddings for {count} inputs")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
        for index, vector in enumerate(found)
    ]
    usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if is_count(tokens) else {}
    return {"object": "list", "data": data, "model": model, **usage}


def _vectors(reply: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The vectors, and how many tokens were read; None where the answer does not tell."""
    predictions = reply.get("predictions")
    if isinstance(predictions, list):
        found = [item.get("embeddings") if isinstance(item, dict) else None for item in predictions]
        counts = [_member(_member(item, "statistics"), "token_count") for item in found]
        # Numbers without a type come as floating point ones.
        told = all(isinstance(tokens, (int, float)) for tokens in counts)
        return [_member(item, "values") for item in found], int(sum(counts)) if told else None
    one, several = reply.get("embedding"), reply.get("embeddings")
    found = several if isinstance(several, list) else [] if one is None else [one]
    return [_member(item, "values") for item in found], _member(reply.get("usageMetadata"), "promptTokenCount")


def _member(members: Any, name: str) -> Any:
    return members.get(name) if isinstance(members, dict) else None


def _encoded(vector: Any, encoding: Any) -> list[float] | str:
    if not isinstance(vector, list) or not vector or not all(isinstance(value, (int, float)) for value in vector):
        raise BadReplyError("an embedding that is no vector")
    if encoding != "base64":
        return vector
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (OverflowError, struct.error):
        raise BadReplyError("an embedding with a number beyond 32 bits") from None
