"""What a deployment's row says about how requests are put."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from model_gateway.dialects.refusing import is_nothing, wrong
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.refusing import Refusing

JSON = dict[str, Any]

OPTIONS: Final = frozenset({"api_version", "include_thoughts", "safety_settings", "task_type", "thinking"})
THINKING: Final = ("level", "budget", "none")

_VERSION: Final = re.compile(r"v\d+[a-z0-9]*")
_GENERATION: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?![\d.])")


@dataclass(frozen=True, slots=True)
class Terms(Refusing):
    """How requests are put.

    Attributes:
        labels: whether a request may be labelled with its user, as on Vertex AI.
        tiers: whether a body may ask for a service tier; Vertex AI reads it out of a header alone
            (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/flex-paygo).
        thinking: how a model is told to reason: by ``level`` (Gemini 3 and newer), by ``budget`` (2.5), not at all
            (``none``: older ones); empty: as the model's name says.
        include_thoughts: whether the answer tells what was thought; None: where the request asks for an effort.
        safety_settings: the vendor's own, for every request.
        task_type: what embeddings are for, in the vendor's words (``RETRIEVAL_QUERY``); empty: it is not said.
    """

    api: ClassVar[str] = "Gemini API"

    labels: bool = False
    tiers: bool = True
    thinking: str = ""
    include_thoughts: bool | None = None
    safety_settings: tuple[JSON, ...] = ()
    task_type: str = ""

    def thinking_of(self, model: str) -> str:
        """How this model is told to reason; one whose name says nothing is taken for a new one."""
        found = _GENERATION.search(model)
        if self.thinking or found is None:
            return self.thinking or "level"
        generation = (int(found[1]), int(found[2] or 0))
        return "level" if generation >= (3, 0) else "budget" if generation >= (2, 5) else "none"


def terms_of(settings: ProviderSettings, *, vertex: bool = False) -> Terms:
    """The terms of a row whose options have no problems."""
    options = settings.options
    return Terms(
        drop_params=settings.drop_params,
        labels=vertex,
        tiers=not vertex,
        thinking=options.get("thinking", ""),
        include_thoughts=options.get("include_thoughts"),
        safety_settings=tuple(options.get("safety_settings", ())),
        task_type=options.get("task_type", ""),
    )


def option_problems(settings: ProviderSettings) -> list[str]:
    """What is wrong with a row's options, as ``path: what``."""
    options = settings.options
    version, settings_given = options.get("api_version", "v1"), options.get("safety_settings", [])
    checks = {
        "api_version": (isinstance(version, str) and _VERSION.fullmatch(version), "expected a version such as v1beta"),
        "thinking": (options.get("thinking", "level") in THINKING, f"expected one of {', '.join(THINKING)}"),
        "include_thoughts": (isinstance(options.get("include_thoughts", True), bool), "expected true or false"),
        "task_type": (isinstance(options.get("task_type", ""), str), "expected a name such as RETRIEVAL_QUERY"),
        "safety_settings": (
            isinstance(settings_given, list) and all(isinstance(item, dict) for item in settings_given),
            "expected a list of the vendor's safety settings, each with category and threshold",
        ),
    }
    return [f"models.{settings.name}.options.{name}: {what}" for name, (good, what) in checks.items() if not good]


def base_of(api_base: str, vendor: str, own_version: Any, version: str) -> str:
    """The server with the API's version: the option's, else the one that ``api_base`` ends with, else the usual.

    Args:
        api_base: the row's; may be empty.
        vendor: the vendor's own server.
        own_version: the row's option, or None.
        version: the usual one.
    """
    base, slash, last = (api_base or vendor).rstrip("/").rpartition("/")
    if slash and _VERSION.fullmatch(last):
        return f"{base}/{own_version or last}"
    return f"{base}{slash}{last}/{own_version or version}"


__all__ = [
    "JSON",
    "OPTIONS",
    "Terms",
    "base_of",
    "is_nothing",
    "option_problems",
    "terms_of",
    "wrong",
]
