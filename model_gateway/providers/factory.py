"""Which class serves a provider's name. Built-ins load the way a plug-in does: by entry point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import ClassVar

import aiohttp

from model_gateway.providers.interface import ProviderInterface, ProviderSettings
from model_gateway.settings import DeploymentRow

ENTRY_POINTS = "model_gateway.providers"


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
        row: DeploymentRow,
        http: aiohttp.ClientSession,
        environment: Mapping[str, str] = os.environ,
    ) -> ProviderInterface:
        """The provider of the row ``name``."""
        settings = ProviderSettings(
            name=name,
            provider=row.provider,
            engine=row.engine or name,
            api_base=row.api_base,
            api_key=_key(row, environment),
            timeout=row.timeout,
            connect_timeout=row.connect_timeout,
            transport=row.transport,
            max_tokens_field=row.max_tokens_field,
            drop_params=row.drop_params,
            options=row.options,
            environment=environment,
            http=http,
        )
        return cls.find(row.provider)(settings)


def key_variables(row: DeploymentRow) -> tuple[str, ...]:
    """The variables of which one must hold the row's key; none where no key is needed.

    Raises:
        LookupError: there is no such provider.
    """
    if row.api_key_env is not None:
        return (row.api_key_env,)
    provider = ProviderFactory.find(row.provider)
    return () if row.api_base and not provider.own_servers else provider.key_variables(row.provider)


def _key(row: DeploymentRow, environment: Mapping[str, str]) -> str:
    return next((environment[name] for name in key_variables(row) if environment.get(name)), "")


def is_served(row: DeploymentRow, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment holds the key that the row needs."""
    return not key_variables(row) or bool(_key(row, environment))
