"""A checked request, whatever dialect it came in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from model_gateway.dialects.answers import Piece, Reader, Writer
from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import GatewayError
from model_gateway.settings import DeploymentRow, ModelRow

if TYPE_CHECKING:
    from model_gateway.dialects.chat import ChatRequest, ChatUsage


_OPENAI_TIERS: Final[Mapping[str, str]] = {"default": "", "fast": "priority"}


@dataclass(frozen=True, slots=True)
class Attachments:
    """What a request carries besides text, whose tokens its bytes do not bound.

    Attributes:
        images, files, audios: how many parts of each kind.
        data_bytes: bytes of the body that are inline data and no text.
    """

    images: int = 0
    files: int = 0
    audios: int = 0
    data_bytes: int = 0

    def __add__(self, other: Attachments) -> Attachments:
        return Attachments(
            self.images + other.images,
            self.files + other.files,
            self.audios + other.audios,
            self.data_bytes + other.data_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(ABC):
    """A checked request.

    Attributes:
        payload: the whole body, parsed; unknown fields included.
        model: the body's ``model``, or empty.
        stream: whether the reply is a stream.
        output_bound: the client's own bound on output tokens, or None.
        bound_param: the field that set it.
        choices: how many answers are asked for.
        attachments: images, files, audio.
        service_tier: the tier that is asked for, where it changes the price; else empty.
        priced: further fields that change the price, by their paths: the kind of price that each needs.
    """

    operation: ClassVar[str]

    payload: dict[str, Any]
    model: str = ""
    stream: bool = False
    output_bound: int | None = None
    bound_param: str = ""
    choices: int = 1
    attachments: Attachments = Attachments()
    service_tier: str = ""
    priced: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Every text that the model reads, for counting tokens; one item a message, tool or format."""

    @abstractmethod
    def to_chat(self) -> ChatRequest:
        """The same request as a chat completion, for a provider that does not speak this dialect.

        Raises:
            GatewayError: ``unsupported_parameter``, for what a chat completion can't say.
        """

    def own_name(self, param: str) -> str:
        """What the client calls a field of the chat completion that ``to_chat`` made; here the same.

        Args:
            param: the field's path there.
        """
        return param

    @abstractmethod
    def native_body(self, engine: str, output_bound: int) -> dict[str, Any]:
        """The body for a provider that speaks this dialect: the client's own, but for the model and a missing bound."""

    @abstractmethod
    def native_reader(self) -> Reader:
        """Reads the answer of a provider that speaks this dialect."""

    @abstractmethod
    def native_writer(self) -> Writer:
        """Passes such an answer on."""

    @abstractmethod
    def chat_writer(self, model: str, usage_of: ChatUsage) -> Writer:
        """Says a chat completion's answer in this dialect.

        Args:
            model: the name that the reply gives.
            usage_of: reads the provider's usage.
        """


def openai_tier(service_tier: str | None) -> str:
    """The tier that OpenAI's field asks for, by the name that the reply gives it; empty where the usual price holds.

    ``auto`` is no usual price: the account's settings say which tier it stands for.
    """
    return _OPENAI_TIERS.get(service_tier, service_tier) if service_tier is not None else ""


def check_for(request: Request, row: ModelRow) -> None:
    """Refuse what a model can't be asked: an output bound beyond its own, and what no deployment has a price for.

    Raises:
        GatewayError: 400 ``invalid_value`` or ``unsupported_parameter``.
    """
    bound("max_tokens" if not request.bound_param else request.bound_param, request.output_bound, row.max_tokens)
    refusals = [unpriced(request, deployment) for _, deployment in row.rows()]
    if all(refusals):
        raise next(refusal for refusal in refusals if refusal)


def unpriced(request: Request, row: DeploymentRow) -> GatewayError | None:
    """Why a deployment can't be asked this: it changes the price, and the row has none for it."""
    if request.service_tier and request.service_tier not in row.service_tiers:
        return _no_price("service_tier")
    for param, kind in request.priced.items():
        if not kind or getattr(row, kind) is None:
            return _no_price(param)
    return None


def _no_price(param: str) -> GatewayError:
    return unsupported(param, "changes what the call costs, and this model has no price for it; leave it out")


def bound(name: str, value: int | None, most: int) -> None:
    """Refuse a number beyond a bound.

    Raises:
        GatewayError: 400 ``invalid_value``.
    """
    if value is not None and value > most:
        raise GatewayError("invalid_value", f"{name} is {value}, at most {most} is allowed here", param=name)


def refuse_fields(payload: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Refuse fields that are set: by name, why.

    Raises:
        GatewayError: 400 ``unsupported_parameter``.
    """
    for name, why in fields.items():
        if payload.get(name) not in (None, False):
            raise unsupported(name, why)


__all__ = ["Attachments", "Piece", "Request", "bound", "check_for", "openai_tier", "refuse_fields", "unpriced"]
