"""Texts as vectors: what makes two requests comparable."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway_insights.embedding.minilm import MiniLM
from gateway_insights.embedding.through_gateway import GatewayAccess, ThroughGateway
from gateway_insights.embedding.wordllama import WordLlama
from model_gateway.settings import ConfigError

__all__ = ["Embedder", "GatewayAccess", "make_embedder"]

_THROUGH: str = "gateway:"


class Embedder(Protocol):
    """One embedding model. All of it may block, for a download never: call it in a thread."""

    @property
    def name(self) -> str:
        """The model's id, stored with each vector: two vectors are comparable where it is the same."""

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of unit length, (n, dimensions), in the order of the texts.

        Raises:
            GatewayError: a model behind the gateway did not answer.
        """


def make_embedder(setting: str, access: GatewayAccess | None = None) -> Embedder | None:
    """The model that ``insights.embedding`` names; None for ``off``. Blocks for up to half a second.

    Args:
        setting: ``minilm``, ``wordllama``, ``gateway:<model>`` or ``off``.
        access: how to ask the gateway, where the setting says so.

    Raises:
        ConfigError: no such choice, or its files are not installed.
    """
    if setting.startswith(_THROUGH) and access is not None:
        return ThroughGateway(setting.removeprefix(_THROUGH), access)
    match setting:
        case "minilm":
            return MiniLM()
        case "wordllama":
            return WordLlama()
        case "off":
            return None
    raise ConfigError(
        "insights", [f"insights.embedding: {setting!r} is not one of minilm, wordllama, gateway:<model>, off"]
    )
