"""What of a long text an embedding model gets to read."""

from __future__ import annotations

from typing import Final

MOST_CHARACTERS: Final = 8_000
"""Of a text: no model reads more, so that a huge one costs no more than a long one."""


def both_ends(text: str, most: int) -> str:
    """At most ``most`` characters of a text: where it is longer, its beginning and its end.

    A chat's question stands at the end, behind a system prompt that many requests share.
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} {text[half + 1 - most :]}"
