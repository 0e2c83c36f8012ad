"""Reading a request's body, within its bounds."""

from __future__ import annotations

import asyncio

from aiohttp import web

from model_gateway.errors import GatewayError
from model_gateway.settings import Limits


async def put_off_continue(request: web.Request) -> None:
    """Hold ``100 Continue`` back: the client is not asked for a body before its token was checked."""


async def read_body(request: web.Request, limits: Limits) -> bytes:
    """The whole body.

    Raises:
        GatewayError: it is too large, too slow, or compressed.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise GatewayError(
            "invalid_value", "a compressed body is not accepted; send it as it is", param="content-encoding"
        )
    _check_size(request.content_length or 0, limits)
    if not request.content.is_eof():
        return await _read_rest(request, limits)
    body = request.content.read_nowait()  # the usual case: it came together with the header
    _check_size(len(body), limits)
    return body


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> GatewayError:
    return GatewayError("request_too_large", f"the body is larger than {limits.body_bytes} bytes")


async def _read_rest(request: web.Request, limits: Limits) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the response has not begun
    try:
        async with asyncio.timeout(limits.read_seconds):
            return await request.read()
    except TimeoutError:
        message = f"the body took longer than {limits.read_seconds:g} s"
        raise GatewayError("request_timeout", message, status=408) from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(limits) from None
