"""An HTTP client on a socket of its own, that leaves when a test says so."""

from __future__ import annotations

import asyncio
import socket
import struct

import orjson

from tests.processes import ADMIN_TOKEN

HELLO = [{"role": "user", "content": "hello"}]
STREAMS = {
    "chat": ("/v1/chat/completions", {"messages": HELLO}),
    "proxy": ("/proxy/{model}", {"messages": HELLO}),
    "responses": ("/v1/responses", {"input": "hello"}),
    "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 50}),
}
WHOLES = {**STREAMS, "embeddings": ("/v1/embeddings", {"input": "hello"})}


class Client:
    """One HTTP client on a socket of its own."""

    @classmethod
    async def ask(cls, house, dialect, model, *, stream):
        """Send a request; nothing of its answer is read yet."""
        path, fields = WHOLES[dialect]
        body = orjson.dumps({**fields, "model": model, **({"stream": True} if stream else {})})
        head = (
            f"POST {path.format(model=model)} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client = cls()
        client.reader, client.writer = await asyncio.open_connection("127.0.0.1", house.port)
        client.writer.write(head.encode() + body)
        await client.writer.drain()
        return client

    async def read_event(self):
        """Wait for the stream's first event."""
        await self.reader.readuntil(b"data: ")

    async def leave(self, how):
        """Close the connection: with a FIN, or with a RST as when a program crashes."""
        if how == "RST":
            ours = self.writer.get_extra_info("socket")
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()
        await self.writer.wait_closed()
