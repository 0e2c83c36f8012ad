"""Vendors that speak OpenAI's chat completions, as rows of data: where they are, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from model_gateway.settings import ConfigError, EnvName

OPENAI: Final = "openai"
_FILE: Final = "vendors.yaml"


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FieldRules(_Row):
    """What becomes of a request's fields; what no rule names passes through."""

    renamed: dict[str, str] = Field(default_factory=dict, description="by OpenAI's name, the vendor's")
    refused: frozenset[str] = Field(frozenset(), strict=False, description="fields that the vendor does not have")
    refused_values: dict[str, list[Any]] = Field(
        default_factory=dict, description="by `field.member`, values that the vendor does not have"
    )
    refused_in_messages: frozenset[str] = Field(frozenset(), strict=False, description="likewise, of a message")


class UsageRules(_Row):
    """Where the vendor's usage is not OpenAI's."""

    under: str = Field("", description="a member of a chunk that holds `usage`, where the chunk itself has none")
    cached: str = Field("", description="the member of `usage` that counts the prompt's cached tokens")
    reasoning_apart: bool = Field(False, description="reasoning is no part of `completion_tokens`")


class Vendor(_Row):
    """One vendor."""

    api_base: str = Field(pattern=r"^https?://")
    key_variables: tuple[EnvName, ...] = Field((), strict=False, description="one of them holds the key; none: no key")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(description="the output bound's field")
    stream_usage: bool = Field(True, description="takes `stream_options`; else usage comes unasked")
    responses: bool = Field(False, description="has the Responses API too")
    roles: dict[str, str] = Field(default_factory=dict, description="by a message's role, what the vendor calls it")
    chat: FieldRules = FieldRules()
    embeddings: FieldRules | None = Field(FieldRules(), description="null: it has none")
    usage: UsageRules = UsageRules()

    def with_bound_in(self, field: str) -> Vendor:
        """The row of a server that knows another field for the output bound; as it stands where ``field`` is empty."""
        if field in ("", self.max_tokens_field):
            return self
        renamed = dict(self.chat.renamed)
        if renamed.pop(field, None):
            renamed[self.max_tokens_field] = field
        chat = self.chat.model_copy(update={"renamed": renamed})
        return self.model_copy(update={"max_tokens_field": field, "chat": chat})


@cache
def vendors() -> Mapping[str, Vendor]:
    """The rows of ``vendors.yaml`` by name; read once."""
    return parse_vendors(files(__package__).joinpath(_FILE).read_text("utf-8"))


def parse_vendors(text: str) -> Mapping[str, Vendor]:
    """Rows out of YAML.

    Raises:
        ConfigError: every mistake, with its path.
    """
    try:
        return TypeAdapter(dict[str, Vendor]).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(_FILE, [f"is not YAML: {error}"]) from None
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        raise ConfigError(_FILE, problems) from None


def find_vendor(provider: str, api_base: str = "") -> Vendor:
    """The row for a provider's name: OpenAI's where it has none of its own.

    A server that only speaks OpenAI's language is taken to know ``max_tokens`` and chat, and nothing newer.
    """
    known = vendors()
    row = known.get(provider)
    if row is not None and (provider != OPENAI or is_openai(api_base)):
        return row
    row = known[OPENAI]
    return row if is_openai(api_base) else row.model_copy(update={"max_tokens_field": "max_tokens", "responses": False})


def is_openai(api_base: str) -> bool:
    """Whether a row's ``api_base`` leads to OpenAI itself."""
    return api_base.rstrip("/") in ("", vendors()[OPENAI].api_base)
