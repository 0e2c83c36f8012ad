"""Azure OpenAI: OpenAI's API at a customer's own resource, where a model is a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Final

from typing_extensions import override

from model_gateway.errors import GatewayError
from model_gateway.providers.http import refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.oauth import TokenSource
from model_gateway.providers.openai.azure_account import API_KEY, KEY_VARIABLES, AzureAccount
from model_gateway.providers.openai.family import OpenAIFamily
from model_gateway.providers.openai.vendors import OPENAI, find_vendor
from model_gateway.providers.transport import Credentials, HttpTransport, Transport, fixed

_OPTIONS: Final = frozenset({"api_version", "authority", "scope", "surface"})


class AzureProvider(OpenAIFamily):
    """A deployment of a resource; it has all that OpenAI has, and tells more: what its filters found."""

    own_servers: ClassVar[bool] = True

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        settings = settings or ProviderSettings()
        account = AzureAccount.of(settings)
        settings = replace(settings, api_key=account.secret)
        refuse_settings(settings_problems(settings, account.endpoint, _OPTIONS) + account.problems(settings.name))
        self._account = account
        self._tokens = None if account.secret else TokenSource(settings, account.token_url, account.token_form)
        vendor = find_vendor(OPENAI).with_bound_in(settings.max_tokens_field)
        super().__init__(settings, vendor, _transport(settings, account, self._credentials()))

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return KEY_VARIABLES

    def _credentials(self) -> Credentials:
        if self._tokens is not None:
            return self._tokens.headers
        secret = self._account.secret
        return fixed({"api-key": secret} if self._account.kind == API_KEY else {"Authorization": f"Bearer {secret}"})

    @override
    def path(self, operation: str, model: str) -> str:
        sdk = self.settings.transport == "sdk"
        return self._account.sdk_path(operation) if sdk else self._account.path(operation, model)

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


def _transport(settings: ProviderSettings, account: AzureAccount, credentials: Credentials) -> Transport:
    if settings.transport != "sdk":
        return HttpTransport(settings, f"{account.endpoint}/openai", credentials)
    # Half a second to load: only for who asks for it.
    from model_gateway.providers.openai.sdk import OpenAISdkTransport, azure_client  # noqa: PLC0415

    return OpenAISdkTransport(settings, azure_client(settings, account.endpoint, account.api_version), credentials)
