"""Anthropic's Messages API as a client's dialect.

Sources: the types of the official SDK (``anthropic/types/message_create_params.py``, ``raw_message_stream_event.py``,
``shared/error_response.py``).

A provider that speaks it gets the client's body. Headers stay with the gateway: ``anthropic-version`` and
``anthropic-beta`` are the operator's choice (the deployment's options), and who asks is not the provider's business.
"""

from __future__ import annotations

from model_gateway.dialects.messages.errors import anthropic_error
from model_gateway.dialects.messages.request import (
    CountTokensRequest,
    MessagesRequest,
    parse_count_tokens,
    parse_messages,
)

KEEP_ALIVE = b'event: ping\ndata: {"type": "ping"}\n\n'
"""What the API sends in silence; it is not signed."""

__all__ = [
    "KEEP_ALIVE",
    "CountTokensRequest",
    "MessagesRequest",
    "anthropic_error",
    "parse_count_tokens",
    "parse_messages",
]
