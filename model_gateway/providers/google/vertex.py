"""Vertex AI: Google's models in a customer's project, with a token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from typing_extensions import override

from model_gateway.errors import GatewayError
from model_gateway.providers.google.account import CREDENTIALS, TOKEN, Account, account_of
from model_gateway.providers.google.provider import GeminiFamily, transport_of
from model_gateway.providers.google.terms import OPTIONS, base_of, option_problems, terms_of
from model_gateway.providers.http import refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.oauth import TokenSource
from model_gateway.providers.transport import Credentials, fixed

VERSION: Final = "v1beta1"
"""The API's version, as the vendor's SDK has it; ``options.api_version`` chooses."""

_PROJECT: Final = "GOOGLE_CLOUD_PROJECT"
_LOCATION: Final = "GOOGLE_CLOUD_LOCATION"
_EVERYWHERE: Final = "global"
_PROJECT_ID: Final = re.compile(r"[a-z0-9.:-]+")
_LOCATION_ID: Final = re.compile(r"[a-z0-9-]+")
_MULTI_REGIONS: Final = frozenset({"us", "eu"})


class VertexProvider(GeminiFamily):
    """A project's models, at a location.

    What lets a call in is an access token (``VERTEX_ACCESS_TOKEN``), or the path of a file with credentials
    (``GOOGLE_APPLICATION_CREDENTIALS``): a service account's, whose key signs what a token is fetched with, or those of
    a user. A variable that the row names may hold either; a path ends in ``.json``.

    Options: those of the Gemini API, ``project`` (else ``GOOGLE_CLOUD_PROJECT``, else the file's), ``location`` (else
    ``GOOGLE_CLOUD_LOCATION``, else ``global``).
    """

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        settings = settings or ProviderSettings()
        account = account_of(settings)
        # What is sent, or else nothing: a path is no secret to look for in errors.
        settings = replace(settings, api_key=account.token)
        project, location = _where(settings, account)
        base = base_of(settings.api_base, endpoint(location), settings.options.get("api_version"), VERSION)
        refuse_settings(
            settings_problems(settings, base, OPTIONS | {"project", "location"})
            + option_problems(settings)
            + account.problems(settings.name)
            + _where_problems(settings.name, project, location)
        )
        self._place = f"projects/{project}/locations/{location}"
        self._tokens = TokenSource(settings, account.token_url, account.form) if account.token_url else None
        credentials = _credentials(account, self._tokens)
        transport = transport_of(settings, base, credentials, vertex=True)
        super().__init__(settings, terms_of(settings, vertex=True), transport, vertex=True)

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return (TOKEN, CREDENTIALS)

    @override
    def resource(self, model: str) -> str:
        """A model's name as in the path; ``<publisher>/<model>`` and a tuned one's ``endpoints/<id>`` are known."""
        if model.startswith("projects/"):
            return model
        if model.startswith(("publishers/", "endpoints/")):
            return f"{self._place}/{model}"
        publisher, slash, name = model.partition("/")
        return f"{self._place}/publishers/{publisher if slash else 'google'}/models/{name or model}"

    @override
    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        if self._tokens is None:
            return super().failure(status, headers, body)
        if status == 401:
            self._tokens.forget()
        return super().failure(status, headers, self._tokens.without_token(body))

    @override
    async def close(self) -> None:
        await super().close()
        if self._tokens is not None:
            await self._tokens.close()


def endpoint(location: str) -> str:
    """The server of a location: a region's, several regions' (``us``, ``eu``), or the one for all."""
    if location == _EVERYWHERE:
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def _credentials(account: Account, tokens: TokenSource | None) -> Credentials:
    if tokens is not None:
        return tokens.headers
    return fixed({"Authorization": f"Bearer {account.token}"} if account.token else {})


def _where(settings: ProviderSettings, account: Account) -> tuple[str, str]:
    """The project and the location."""
    options, variables = settings.options, settings.environment
    project = options.get("project") or variables.get(_PROJECT) or account.project
    return str(project), str(options.get("location") or variables.get(_LOCATION) or _EVERYWHERE)


def _where_problems(name: str, project: str, location: str) -> list[str]:
    """What can't stand in a path or a host."""
    problems = []
    if not project:
        problems.append(f"models.{name}.options.project: is not set, and neither is {_PROJECT}")
    elif not _PROJECT_ID.fullmatch(project):
        problems.append(f"models.{name}.options.project: is no project's id")
    if not _LOCATION_ID.fullmatch(location):
        problems.append(f"models.{name}.options.location: is no location such as us-central1 or global")
    return problems
