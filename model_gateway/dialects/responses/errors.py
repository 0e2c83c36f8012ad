"""How a stream of events says that it broke."""

from __future__ import annotations

from typing import Any

from model_gateway.errors import GatewayError


def stream_error(error: GatewayError) -> dict[str, Any]:
    """The ``error`` event. Nothing follows it: the response has no end.

    The reference has the members side by side; the official SDK raises only for an ``error`` object, so that the event
    has both. Its place in the stream is its ``x_index``, which here is the number of each event.
    """
    flat = {"code": error.code, "message": error.message, "param": error.param}
    return {"type": "error", **flat, "sequence_number": 0, **error.body()}
