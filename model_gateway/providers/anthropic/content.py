"""Content parts of a chat message as blocks of the Messages API: pure functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from model_gateway.providers.anthropic.terms import JSON, Terms, wrong
from model_gateway.providers.chat_reading import data_url, image_url

_FILE: Final = frozenset({"file_data", "filename"})


def blocks(content: Any, path: str, terms: Terms) -> list[JSON]:
    """A message's content as blocks; empty texts, which the API refuses, are none.

    Args:
        content: text, or a list of parts.
        path: where it stands, for errors.
        terms: what is to be done with a part that can't be said.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    if isinstance(content, str):
        return _text(content)
    if content is None:
        return []
    if not isinstance(content, list):
        raise wrong(path, "must be a text or a list of parts")
    found = []
    for index, part in enumerate(content):
        found += _block(part, f"{path}[{index}]", terms)
    return found


def _block(part: Any, path: str, terms: Terms) -> list[JSON]:
    if not isinstance(part, dict):
        raise wrong(path, "must be an object")
    kind = str(part.get("type"))
    make = _PARTS.get(kind)
    if make is None:
        terms.refuse(f"{path}.type", f"is {kind!r}, which the Messages API does not have")
        return []
    terms.only(part, frozenset({"type", kind, "cache_control"}), path)
    return cached(make(part.get(kind), f"{path}.{kind}", terms), part)


def cached(made: list[JSON], holder: Mapping[str, Any]) -> list[JSON]:
    """Mark the last block as an end of what the provider caches, where the client does (``cache_control``)."""
    if made and holder.get("cache_control") is not None:
        made[-1] = {**made[-1], "cache_control": holder["cache_control"]}
    return made


def _text(text: str) -> list[JSON]:
    return [{"type": "text", "text": text}] if text else []


def _text_part(value: Any, path: str, terms: Terms) -> list[JSON]:
    if not isinstance(value, str):
        raise wrong(path, "must be a text")
    return _text(value)


def _image(value: Any, path: str, terms: Terms) -> list[JSON]:
    """``image_url``: data becomes a base64 source; the vendor fetches a URL itself."""
    url = image_url(value, path, terms)
    if url.startswith(("http://", "https://")):
        return [{"type": "image", "source": {"type": "url", "url": url}}]
    media_type, data = data_url(url, f"{path}.url")
    return [{"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}]


def _file(value: Any, path: str, terms: Terms) -> list[JSON]:
    """``file``: a PDF as it is, plain text as text. An id names a file at another vendor."""
    if not isinstance(value, dict):
        raise wrong(path, "must be an object")
    if value.get("file_id") is not None:
        terms.refuse(f"{path}.file_id", "names a file that this provider does not have; send file_data")
        return []
    terms.only(value, _FILE, path)
    media_type, data = data_url(value.get("file_data"), f"{path}.file_data")
    if media_type == "application/pdf":
        source = {"type": "base64", "media_type": media_type, "data": data}
    elif media_type == "text/plain":
        source = {"type": "text", "media_type": media_type, "data": _plain(data, f"{path}.file_data")}
    else:
        terms.refuse(f"{path}.file_data", f"is {media_type}; the Messages API takes PDF and plain text")
        return []
    title = {"title": value["filename"]} if value.get("filename") else {}
    return [{"type": "document", "source": source, **title}]


def _plain(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise wrong(path, "must be UTF-8 text in base64") from None


_PARTS: Final[Mapping[str, Callable[[Any, str, Terms], list[JSON]]]] = {
    "text": _text_part,
    "refusal": _text_part,
    "image_url": _image,
    "file": _file,
}
"""How each kind of part is said. Audio the API does not have."""
