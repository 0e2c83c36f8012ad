"""What a deployment's row says about how requests are put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from model_gateway.dialects.refusing import is_nothing, wrong
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.refusing import Refusing

NEWEST_VERSION: Final = "2026-10-21"
VERSIONS: Final = ("2023-06-01", NEWEST_VERSION)
"""Values of ``anthropic-version``. The newer one only takes away: sampling parameters, documents of an assistant."""

THINKING: Final = ("adaptive", "budget")
OPTIONS: Final = frozenset({"beta", "thinking", "version"})

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Terms(Refusing):
    """How requests are put.

    Attributes:
        version: the ``anthropic-version``. By default the older one, which takes all that the newer one does.
        thinking: how a model is told to reason: ``adaptive`` (Claude 4.6 and newer), or with a ``budget`` of tokens
            (Claude 4.5 and older; the newest refuse it).
        beta: values of ``anthropic-beta``.
    """

    api: ClassVar[str] = "Messages API"

    version: str = VERSIONS[0]
    thinking: str = THINKING[0]
    beta: tuple[str, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether the API's version has temperature, top_p and top_k."""
        return self.version != NEWEST_VERSION


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


__all__ = [
    "JSON",
    "OPTIONS",
    "Terms",
    "is_nothing",
    "option_problems",
    "terms_of",
    "wrong",
]
