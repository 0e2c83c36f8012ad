"""An authority that gives access tokens for forms, over real TCP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Authority:
    """The server.

    Attributes:
        answers: what it says next, as status and JSON (or bytes); a good token where nothing is left.
        forms: the forms that came, with their paths.
        lifetime: seconds that a token is said to live.
        open: while it is not set, nobody is answered.
        asked: set with the first form.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[tuple[int, Any]] = []
        self.forms: list[tuple[str, dict[str, Any]]] = []
        self.lifetime: Any = 3600
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.forms.append((request.path, dict(await request.post())))
        self.asked.set()
        number = len(self.forms)
        await self.open.wait()
        if self.answers:
            status, body = self.answers.pop(0)
            if isinstance(body, bytes):
                return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})
            return web.json_response(body, status=status)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": f"token-{number}"}
        )


@asynccontextmanager
async def running_authority() -> AsyncIterator[Authority]:
    authority = Authority()
    application = web.Application()
    application.router.add_post("/{path:.*}", authority.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    authority.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield authority
    finally:
        authority.open.set()
        await runner.cleanup()
