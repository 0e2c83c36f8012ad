"""An Azure OpenAI resource, out of a row and the environment: where it is, which surface is used, who calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from model_gateway.providers.interface import ProviderSettings

ENDPOINT: Final = "AZURE_OPENAI_ENDPOINT"
AD_TOKEN: Final = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105 - a name
API_KEY: Final = "AZURE_OPENAI_API_KEY"
CLIENT_SECRET: Final = "AZURE_CLIENT_SECRET"  # noqa: S105 - a name
KEY_VARIABLES: Final = (AD_TOKEN, API_KEY, CLIENT_SECRET)
"""One of these lets a call in; the first that is set counts, in the SDK's order."""

_TENANT: Final = "AZURE_TENANT_ID"
_CLIENT: Final = "AZURE_CLIENT_ID"
_AUTHORITY: Final = "AZURE_AUTHORITY_HOST"
_VERSIONS: Final = ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION")

_DEFAULT_VERSION: Final = "2024-10-21"
"""The newest dated version of inference that is no preview (learn.microsoft.com: api-version-lifecycle)."""
_DEFAULT_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
_DEFAULT_AUTHORITY: Final = "https://login.microsoftonline.com"
_SURFACES: Final = ("deployments", "v1")


@dataclass(frozen=True, slots=True)
class AzureAccount:
    """A resource, and the way in.

    Attributes:
        endpoint: ``https://<resource>.openai.azure.com``.
        surface: ``deployments``, where the path names the deployment and the query a dated version, or ``v1``.
        api_version: the version in the query; empty on ``v1``, unless the row sets one.
        kind: the variable that usually holds what lets a call in; empty: there is nothing.
        secret: the key or the token that is sent; empty where a token is fetched.
        client_secret: an application's secret, with which a token is fetched.
        tenant, client: the application's ids.
        authority: the server that gives tokens.
        scope: what a token is for.
    """

    endpoint: str
    surface: str
    api_version: str
    kind: str
    tenant: str
    client: str
    authority: str
    scope: str
    secret: str = field(default="", repr=False)
    client_secret: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: ProviderSettings) -> AzureAccount:
        """Read a row."""
        options, variables = settings.options, settings.environment
        kind, secret = _secret(settings)
        fetched = kind == CLIENT_SECRET
        return cls(
            endpoint=_endpoint(settings.api_base or variables.get(ENDPOINT, "")),
            surface=str(options.get("surface", _SURFACES[0])),
            api_version=_version(options, variables),
            kind=kind,
            tenant=variables.get(_TENANT, ""),
            client=variables.get(_CLIENT, ""),
            authority=_url(str(options.get("authority") or variables.get(_AUTHORITY) or _DEFAULT_AUTHORITY)),
            scope=str(options.get("scope", _DEFAULT_SCOPE)),
            secret="" if fetched else secret,
            client_secret=secret if fetched else "",
        )

    def problems(self, name: str) -> list[str]:
        """What could only fail later, at each request.

        Args:
            name: the row's.
        """
        found = []
        if not self.endpoint:
            found.append(f"models.{name}.api_base: is not set, and neither is {ENDPOINT}")
        if self.surface not in _SURFACES:
            found.append(f"models.{name}.options.surface: is not one of {', '.join(_SURFACES)}")
        if not self.kind:
            found.append(f"models.{name}: none of {', '.join(KEY_VARIABLES)} is set")
        if self.client_secret and not (self.tenant and self.client):
            found.append(f"models.{name}: {CLIENT_SECRET} needs {_TENANT} and {_CLIENT} beside it")
        return found

    # -- where an operation lies, after ``<endpoint>/openai``

    def path(self, operation: str, deployment: str) -> str:
        """The path with its query. Responses are on the newer surface only, whichever is used."""
        if self.surface == "v1" or operation == "/responses":
            return f"/v1{operation}{self._query if self.surface == 'v1' else ''}"
        return f"/deployments/{quote(deployment, safe='')}{operation}{self._query}"

    def sdk_path(self, operation: str) -> str:
        """The same for the SDK, which puts the deployment in by itself."""
        if self.surface == "v1" or operation == "/responses":
            return self.path(operation, "")
        return f"{operation}{self._query}"

    @property
    def _query(self) -> str:
        return f"?api-version={quote(self.api_version, safe='')}" if self.api_version else ""

    # -- an application's token: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow

    @property
    def token_url(self) -> str:
        """Where the authority takes the form."""
        return f"{self.authority}/{quote(self.tenant, safe='')}/oauth2/v2.0/token"

    def token_form(self) -> Mapping[str, str]:
        """Its fields."""
        return {
            "grant_type": "client_credentials",
            "client_id": self.client,
            "client_secret": self.client_secret,
            "scope": self.scope,
        }


def _secret(settings: ProviderSettings) -> tuple[str, str]:
    """The secret and its kind; the row's own is a key, unless it came out of one of the other variables."""
    for name in KEY_VARIABLES:
        value = settings.environment.get(name, "")
        if value and settings.api_key in ("", value):
            return name, value
    return (API_KEY, settings.api_key) if settings.api_key else ("", "")


def _endpoint(text: str) -> str:
    """The resource's root, however much of the path was given with it."""
    return _url(text).removesuffix("/v1").removesuffix("/openai") if text else ""


def _url(text: str) -> str:
    return (text if "://" in text else f"https://{text}").rstrip("/")


def _version(options: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """The row's own; else, as ``v1`` needs none, a dated one for ``deployments``."""
    own = str(options.get("api_version", ""))
    if own or options.get("surface") == "v1":
        return own
    return next((variables[name] for name in _VERSIONS if variables.get(name)), _DEFAULT_VERSION)
