"""How a request is put to one deployment, and its answer read and told: the dialect's own way, or by way of chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from gateway_worker.deployments import Deployment
from model_gateway.dialects import EmbeddingsRequest, Request
from model_gateway.dialects.answers import Reader, Writer
from model_gateway.dialects.chat import ChatReader
from model_gateway.dialects.dropping import chat_of
from model_gateway.errors import GatewayError
from model_gateway.providers import JSONObject


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One call's two sides.

    Attributes:
        whole: sends the request and gives the answer in one piece.
        stream: sends it and gives the answer's events.
        reader: notes what the provider's answer tells.
        writer: says it as the client's dialect has it.
        by_chat: whether the provider answers in chat completions.
    """

    whole: Callable[[], Awaitable[JSONObject]]
    stream: Callable[[], AsyncIterator[JSONObject]]
    reader: Reader
    writer: Writer
    by_chat: bool = False


def dialogue(request: Request, deployment: Deployment) -> Dialogue:
    """The way to ask a deployment.

    Raises:
        GatewayError: the request can't be put to this provider.
    """
    if isinstance(request, EmbeddingsRequest):
        return _embeddings(request, deployment)
    if deployment.speaks(request):
        return _native(request, deployment)
    if deployment.counts_here(request):
        return _counted_here(request, deployment)
    return _by_chat(request, deployment)


def _embeddings(request: EmbeddingsRequest, deployment: Deployment) -> Dialogue:
    provider, engine = deployment.provider, deployment.engine
    return Dialogue(
        lambda: provider.embed(request.inputs, engine, **request.fields),
        _not_streamed,
        request.native_reader(),
        request.native_writer(),
    )


def _native(request: Request, deployment: Deployment) -> Dialogue:
    provider, body = deployment.provider, deployment.body(request)
    return Dialogue(
        lambda: provider.native(request.operation, body),
        lambda: provider.native_stream(request.operation, body),
        request.native_reader(),
        request.native_writer(),
    )


def _counted_here(request: Request, deployment: Deployment) -> Dialogue:
    """The gateway's own count: nobody is called."""

    async def count() -> JSONObject:
        return {"input_tokens": deployment.count_input(request)}

    return Dialogue(count, _not_streamed, request.native_reader(), request.native_writer())


def _by_chat(request: Request, deployment: Deployment) -> Dialogue:
    chat = chat_of(request, drop_params=deployment.row.drop_params)
    provider, engine, fields = deployment.provider, deployment.engine, deployment.fields(chat)
    return Dialogue(
        lambda: provider.complete(chat.messages, engine, **fields),
        lambda: provider.stream(chat.messages, engine, **fields),
        ChatReader(provider.chat_usage),
        request.chat_writer(deployment.model, provider.chat_usage),
        by_chat=True,
    )


def _not_streamed() -> NoReturn:
    raise GatewayError("unsupported_parameter", "this operation is not streamed", param="stream", billed=False)
