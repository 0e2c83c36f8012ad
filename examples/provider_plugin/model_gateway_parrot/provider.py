"""The transport part: where a request goes, what lets it in, and when its reply is whole."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
from typing_extensions import override

from model_gateway.providers import ProviderSettings, upstream_errors
from model_gateway.providers.http import HttpProvider, refuse_settings, settings_problems
from model_gateway.providers.transport import HttpTransport, fixed
from model_gateway_parrot.reply import BadReplyError, ReplyMapper
from model_gateway_parrot.request import JSON, squawk_body

VENDOR: Final = "https://api.parrot.invalid"
SQUAWK: Final = "/v1/squawk"


class ParrotProvider(HttpProvider):
    """Chat completions by a parrot.

    ``HttpProvider`` posts, looks at the status, bounds what it reads, and makes the ``GatewayError`` of a failure; a
    vendor that is asked in another way than JSON over HTTP needs a ``ProviderInterface`` of its own.
    """

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        base = self.settings.api_base or VENDOR
        refuse_settings(settings_problems(self.settings, base))
        self._transport = HttpTransport(self.settings, base, fixed({"X-Parrot-Key": self.settings.api_key}))

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return ("PARROT_API_KEY",)

    @override
    async def complete(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> JSON:
        reply = await self.post(SQUAWK, self._body(messages, model, kwargs))
        with self._reading():
            return ReplyMapper(int(time.time())).completion(orjson.loads(reply))

    @override
    async def stream(self, /, messages: list[dict[str, Any]], model: str, **kwargs: Any) -> AsyncIterator[JSON]:
        mapper = ReplyMapper(int(time.time()))
        async for event in self.post_events(SQUAWK, self._body(messages, model, kwargs) | {"live": True}):
            with self._reading():
                chunks = list(mapper.chunks(_members(event)))
            for chunk in chunks:
                yield chunk

    def _body(self, messages: list[dict[str, Any]], model: str, fields: JSON) -> JSON:
        return squawk_body(messages, model, fields, drop=self.settings.drop_params)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BadReplyError as error:
            raise upstream_errors.invalid(self.settings, str(error)) from None


def _members(event: bytes) -> JSON:
    try:
        members = orjson.loads(event)
    except ValueError:
        raise BadReplyError("an event that is not JSON") from None
    if not isinstance(members, dict):
        raise BadReplyError("an event that is not an object")
    return members
