"""OpenAI, Azure OpenAI, and every server that speaks OpenAI's chat completions."""

from __future__ import annotations

from model_gateway.providers.openai.azure import AzureProvider
from model_gateway.providers.openai.provider import OpenAIProvider

__all__ = ["AzureProvider", "OpenAIProvider"]
