"""The Parrot API for Model Gateway."""

from __future__ import annotations

from model_gateway_parrot.provider import ParrotProvider

__all__ = ["ParrotProvider"]
