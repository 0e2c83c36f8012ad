"""Anthropic's Messages API."""

from __future__ import annotations

from model_gateway.providers.anthropic.provider import AnthropicProvider

__all__ = ["AnthropicProvider"]
