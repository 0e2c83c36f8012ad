"""Providers: the interface, the factory, and what a provider is given.

OpenAI's wire format is the inner language: a provider takes OpenAI chat messages and returns OpenAI's chat
completion, whole or in chunks, as a mapping or as the JSON text itself (which then is passed on byte for byte).
"""

from __future__ import annotations

from model_gateway.providers.factory import ProviderFactory
from model_gateway.providers.interface import JSONObject, ProviderInterface, ProviderSettings

__all__ = ["JSONObject", "ProviderFactory", "ProviderInterface", "ProviderSettings"]
