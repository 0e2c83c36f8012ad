"""Google's models: the Gemini API and Vertex AI."""

from __future__ import annotations

from model_gateway.providers.google.provider import GoogleProvider
from model_gateway.providers.google.vertex import VertexProvider

__all__ = ["GoogleProvider", "VertexProvider"]
