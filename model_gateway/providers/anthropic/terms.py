"""What a deployment's row says about how requests are put, and the one way in which a field is refused."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from model_gateway.dialects.strict_json import unsupported
from model_gateway.errors import GatewayError
from model_gateway.providers.interface import ProviderSettings

NEWEST_VERSION: Final = "2026-10-21"
VERSIONS: Final = ("2023-06-01", NEWEST_VERSION)
"""Values of ``anthropic-version``. The newer one only takes away: sampling parameters, documents of an assistant."""

THINKING: Final = ("adaptive", "budget")
OPTIONS: Final = frozenset({"beta", "thinking", "version"})

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """How requests are put.

    Attributes:
        drop_params: leave out what the Messages API can't do, rather than refuse it.
        version: the ``anthropic-version``. By default the older one, which takes all that the newer one does.
        thinking: how a model is told to reason: ``adaptive`` (Claude 4.6 and newer), or with a ``budget`` of tokens
            (Claude 4.5 and older; the newest refuse it).
        beta: values of ``anthropic-beta``.
    """

    drop_params: bool = False
    version: str = VERSIONS[0]
    thinking: str = THINKING[0]
    beta: tuple[str, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether the API's version has temperature, top_p and top_k."""
        return self.version != NEWEST_VERSION

    def refuse(self, param: str, why: str) -> None:
        """The request has what can't be said here.

        Raises:
            GatewayError: ``unsupported_parameter``, unless such things are to be left out.
        """
        if not self.drop_params:
            raise unsupported(param, why)

    def only(self, members: Mapping[str, Any], known: Set[str], path: str) -> None:
        """Refuse members that are set and not known.

        Raises:
            GatewayError: ``unsupported_parameter``.
        """
        for name, value in members.items():
            if name not in known and not is_nothing(value):
                self.refuse(f"{path}.{name}", "is not known to the Messages API")


def is_nothing(value: Any) -> bool:
    """Whether a value says nothing: null, false, or empty; a 0 says something."""
    return value is None or value is False or value in ("", [], {})


def wrong(param: str, what: str) -> GatewayError:
    """A value that makes no sense; nothing was sent."""
    return GatewayError("invalid_value", f"{param} {what}", param=param, billed=False)


def terms_of(settings: ProviderSettings) -> Terms:
    """The terms of a row whose options have no problems."""
    options = settings.options
    return Terms(
        drop_params=settings.drop_params,
        version=str(options.get("version", VERSIONS[0])),
        thinking=str(options.get("thinking", THINKING[0])),
        beta=tuple(options.get("beta", ())),
    )


def option_problems(settings: ProviderSettings) -> list[str]:
    """What is wrong with a row's options, as ``path: what``."""
    path, options = f"models.{settings.name}.options", settings.options
    problems = []
    beta = options.get("beta", [])
    if not (isinstance(beta, list) and all(_is_header_value(value) for value in beta)):
        problems.append(f"{path}.beta: expected a list of values for the header anthropic-beta")
    for name, known in (("version", VERSIONS), ("thinking", THINKING)):
        # YAML reads an unquoted date as one.
        if str(options.get(name, known[0])) not in known:
            problems.append(f"{path}.{name}: expected one of {', '.join(known)}")
    return problems


def _is_header_value(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and bool(value) and "," not in value
