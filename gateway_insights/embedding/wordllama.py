"""WordLlama: the mean of word vectors; far cheaper than a transformer, and blind to the order of words."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway_insights.embedding.package_files import missing, package_file
from gateway_insights.embedding.texts import MOST_CHARACTERS, both_ends

_WHEEL: Final = "wordllama"


class WordLlama:
    """Sentence vectors from a table of token vectors, read from the files that the wheel carries."""

    name: Final = "wordllama-l2-supercat-256"
    dimensions: Final = 256

    def __init__(self) -> None:
        """Load table and tokenizer, about 0.1 s.

        Raises:
            ConfigError: a package or a file is missing.
        """
        weights = package_file("wordllama", "weights/l2_supercat_256.safetensors", _WHEEL)
        tokenizer = package_file("wordllama", "tokenizers/l2_supercat_tokenizer_config.json", _WHEEL)
        try:
            from safetensors.numpy import load_file  # noqa: PLC0415
            from tokenizers import Tokenizer  # noqa: PLC0415
        except ImportError as error:
            raise missing(str(error.name), "safetensors tokenizers") from error
        self._table: NDArray[Any] = load_file(weights)["embedding.weight"]
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of unit length, (n, 256); a text without a token gets that of a space."""
        return np.stack([self._vector(text) for text in texts]) if texts else np.empty((0, self.dimensions), np.float32)

    def _vector(self, text: str) -> NDArray[np.float32]:
        # Not encode_batch: it would start a thread for each core.
        ids = self._tokenizer.encode(both_ends(text, MOST_CHARACTERS) or " ", add_special_tokens=False).ids
        known = np.minimum(np.asarray(ids, dtype=np.int64), len(self._table) - 1)
        mean: NDArray[np.float32] = self._table[known].astype(np.float32).mean(axis=0)
        return mean / np.linalg.norm(mean)
