"""Which class serves a provider's name. Built-ins load the way a plug-in does: by entry point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import ClassVar

import aiohttp

from model_gateway.providers.interface import ProviderInterface, ProviderSettings
from model_gateway.settings import ModelRow

ENTRY_POINTS = "model_gateway.providers"
DEFAULT_KEY_ENV: Mapping[str, str] = {"openai": "OPENAI_API_KEY"}


class ProviderFactory:
    """Makes providers by name; a plug-in registers a class or brings an entry point."""

    _providers: ClassVar[dict[str, type[ProviderInterface]]] = {}

    @classmethod
    def register(cls, name: str, provider: type[ProviderInterface]) -> None:
        """Serve the rows whose ``provider`` is ``name`` with this class."""
        cls._providers[name] = provider

    @classmethod
    def find(cls, name: str) -> type[ProviderInterface]:
        """The class for a name.

        Raises:
            LookupError: nothing is registered or installed under it.
        """
        if name not in cls._providers:
            found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
            if not found:
                known = sorted({*cls._providers, *(point.name for point in entry_points(group=ENTRY_POINTS))})
                raise LookupError(f"no provider '{name}'; installed are {', '.join(known)}")
            cls._providers[name] = found[0].load()
        return cls._providers[name]

    @classmethod
    def create(
        cls,
        name: str,
        row: ModelRow,
        http: aiohttp.ClientSession,
        environment: Mapping[str, str] = os.environ,
    ) -> ProviderInterface:
        """The provider of the row ``name``."""
        settings = ProviderSettings(
            name=name,
            engine=row.engine or name,
            api_base=row.api_base,
            api_key=environment.get(key_env(row) or "", ""),
            timeout=row.timeout,
            transport=row.transport,
            max_tokens_field=row.max_tokens_field,
            options=row.options,
            http=http,
        )
        return cls.find(row.provider)(settings)


def key_env(row: ModelRow) -> str | None:
    """The variable that must hold the row's key; None where no key is needed."""
    if row.api_key_env is not None:
        return row.api_key_env
    return None if row.api_base else DEFAULT_KEY_ENV.get(row.provider)


def is_served(row: ModelRow, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment holds the key that the row needs."""
    name = key_env(row)
    return name is None or bool(environment.get(name))
