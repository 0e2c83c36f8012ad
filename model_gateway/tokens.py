"""Counting tokens offline, with the encodings that ship in the ``bpe-openai`` wheel."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bpe_openai import Encoding

_CL100K: Final = ("gpt-4-", "gpt-3.5", "text-embedding-")
MESSAGE_OVERHEAD: Final = 8
"""Tokens by which a chat template can wrap one message; OpenAI documents 3 or 4."""


def encoding_name(model: str) -> str:
    """The encoding of a model; ``o200k_base`` for every model that is not known to use another."""
    return "cl100k_base" if model == "gpt-4" or model.startswith(_CL100K) else "o200k_base"


@cache
def _encoding(name: str) -> Encoding:
    # A second to import and about 90 MB once loaded: only for who counts.
    import bpe_openai  # noqa: PLC0415

    return bpe_openai.get_encoding(name)


def count_tokens(text: str, model: str) -> int:
    """Tokens in ``text``; special tokens count as plain text."""
    return len(_encoding(encoding_name(model)).encode_ordinary(text))
