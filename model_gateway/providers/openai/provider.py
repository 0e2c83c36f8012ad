"""OpenAI itself, the vendors of ``vendors.yaml``, and any other server that speaks OpenAI's language."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from model_gateway.providers.http import refuse_settings, settings_problems
from model_gateway.providers.interface import ProviderSettings
from model_gateway.providers.openai.family import RESPONSES, OpenAIFamily
from model_gateway.providers.openai.vendors import Vendor, find_vendor
from model_gateway.providers.transport import HttpTransport, Transport, fixed

_OPTIONS: Final = frozenset({RESPONSES})
"""``responses``: whether the server has the Responses API, where the vendor's row does not know."""


class OpenAIProvider(OpenAIFamily):
    """A server found by the row's ``provider``, or at its ``api_base``; a key goes out as a bearer token."""

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        settings = settings or ProviderSettings()
        vendor = _vendor(settings)
        refuse_settings(settings_problems(settings, vendor.api_base, _OPTIONS) + _option_problems(settings))
        super().__init__(settings, vendor, _transport(settings, vendor.api_base))

    @classmethod
    @override
    def key_variables(cls, provider: str) -> tuple[str, ...]:
        return find_vendor(provider).key_variables


def _vendor(settings: ProviderSettings) -> Vendor:
    """The vendor as this row has it."""
    vendor = find_vendor(settings.provider, settings.api_base).with_bound_in(settings.max_tokens_field)
    own = {
        "api_base": (settings.api_base or vendor.api_base).rstrip("/"),
        "responses": settings.options.get(RESPONSES, vendor.responses),
    }
    return vendor.model_copy(update=own)


def _option_problems(settings: ProviderSettings) -> list[str]:
    if isinstance(settings.options.get(RESPONSES, False), bool):
        return []
    return [f"models.{settings.name}.options.{RESPONSES}: expected true or false"]


def _transport(settings: ProviderSettings, base: str) -> Transport:
    credentials = fixed({"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {})
    if settings.transport != "sdk":
        return HttpTransport(settings, base, credentials)
    # Half a second to load: only for who asks for it.
    from model_gateway.providers.openai.sdk import OpenAISdkTransport, openai_client  # noqa: PLC0415

    return OpenAISdkTransport(settings, openai_client(settings, base), credentials)
