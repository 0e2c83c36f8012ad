"""OpenAI, and every server that speaks its chat completions."""

from __future__ import annotations

from model_gateway.providers.openai.provider import OpenAIProvider

__all__ = ["OpenAIProvider"]
