"""Content parts of a chat message as parts of the Gemini API: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from model_gateway.providers.chat_reading import data_url, image_url
from model_gateway.providers.google.terms import JSON, Terms, wrong

_FILE: Final = frozenset({"file_data", "filename"})
_AUDIO: Final = frozenset({"data", "format"})
_SOUNDS: Final[Mapping[str, str]] = {"wav": "audio/wav", "mp3": "audio/mp3"}
_KINDS: Final[Mapping[str, str]] = {
    "csv": "text/csv",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "md": "text/md",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webp": "image/webp",
    "xml": "text/xml",
}
"""Media types by a name's ending, for what comes without one."""

_WEB: Final = ("http://", "https://")


def parts(content: Any, path: str, terms: Terms) -> list[JSON]:
    """A message's content as parts; empty texts are none.

    Args:
        content: text, or a list of parts.
        path: where it stands, for errors.
        terms: what is to be done with a part that can't be said.

    Raises:
        GatewayError: ``unsupported_parameter`` or ``invalid_value``.
    """
    if isinstance(content, str):
        return _text(content, path, terms)
    if content is None:
        return []
    if not isinstance(content, list):
        raise wrong(path, "must be a text or a list of parts")
    found = []
    for index, part in enumerate(content):
        found += _part(part, f"{path}[{index}]", terms)
    return found


def _part(part: Any, path: str, terms: Terms) -> list[JSON]:
    if not isinstance(part, dict):
        raise wrong(path, "must be an object")
    kind = str(part.get("type"))
    make = _PARTS.get(kind)
    if make is None:
        terms.refuse(f"{path}.type", f"is {kind!r}, which the Gemini API does not have")
        return []
    terms.only(part, frozenset({"type", kind}), path)
    return make(part.get(kind), f"{path}.{kind}", terms)


def _text(value: Any, path: str, terms: Terms) -> list[JSON]:
    if not isinstance(value, str):
        raise wrong(path, "must be a text")
    return [{"text": value}] if value else []


def _image(value: Any, path: str, terms: Terms) -> list[JSON]:
    """``image_url``: data goes along; a URL of the web the vendor fetches itself, if its name tells the kind."""
    url = image_url(value, path, terms)
    if not url.startswith(_WEB):
        return [_inline(url, f"{path}.url")]
    kind = _kind(_path_of(url))
    if not kind:
        terms.refuse(f"{path}.url", "must tell the kind of the image (end in .png or the like), or be a data URL")
        return []
    return [{"fileData": {"mimeType": kind, "fileUri": url}}]


def _file(value: Any, path: str, terms: Terms) -> list[JSON]:
    """``file``: a data URL, or base64 whose kind the file's name tells; the name says nothing else to the model."""
    if not isinstance(value, dict):
        raise wrong(path, "must be an object")
    if value.get("file_id") is not None:
        terms.refuse(f"{path}.file_id", "names a file that this provider does not have; send file_data")
        return []
    terms.only(value, _FILE, path)
    data = value.get("file_data")
    if isinstance(data, str) and data and not data.startswith("data:"):
        kind = _kind(str(value.get("filename")))
        data = f"data:{kind};base64,{data}" if kind else data
    return [_inline(data, f"{path}.file_data")]


def _audio(value: Any, path: str, terms: Terms) -> list[JSON]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), str):
        raise wrong(f"{path}.data", "must be base64")
    terms.only(value, _AUDIO, path)
    kind = _SOUNDS.get(str(value.get("format")))
    if kind is None:
        raise wrong(f"{path}.format", f"must be one of {', '.join(_SOUNDS)}")
    return [{"inlineData": {"mimeType": kind, "data": value["data"]}}]


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # brackets around what is no address
        return ""


def _kind(name: str) -> str:
    """The media type that a name tells; empty where it tells none."""
    return _KINDS.get(name.rpartition(".")[2].lower(), "")


def _inline(url: Any, path: str) -> JSON:
    media_type, data = data_url(url, path)
    return {"inlineData": {"mimeType": media_type, "data": data}}


_PARTS: Final[Mapping[str, Callable[[Any, str, Terms], list[JSON]]]] = {
    "text": _text,
    "refusal": _text,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}
"""How each kind of part is said."""
