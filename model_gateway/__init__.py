"""The contract of the Model Gateway: what the front door, the workers and agents share."""

from __future__ import annotations

from model_gateway.agent_client import GatewayClient
from model_gateway.errors import GatewayError

__all__ = ["GatewayClient", "GatewayError"]
