"""Known invoices, recomputed to the nano-dollar: a vendor's price, its reply, and what it bills for it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

from model_gateway.dialects.answers import Reader
from model_gateway.dialects.chat import ChatReader, chat_usage
from model_gateway.dialects.embeddings import EmbeddingsReader
from model_gateway.dialects.messages.reading import MessagesReader
from model_gateway.dialects.responses.reading import ResponsesReader
from model_gateway.events import usage_of
from model_gateway.money import Price, Usage, nano_from_usd
from model_gateway.prices import price_of
from model_gateway.providers.anthropic import usage as anthropic
from model_gateway.providers.google import usage as google
from model_gateway.providers.openai.quirks import vendor_usage
from model_gateway.providers.openai.vendors import find_vendor
from model_gateway.settings import DeploymentRow

WHEN = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""When the published prices are asked for: some change with the date."""

JSON = dict[str, Any]


def by(reader: Callable[[], Reader]) -> Callable[[JSON], Usage | None]:
    def read(reply: JSON) -> Usage | None:
        found = reader()
        found.reply(reply)
        return found.usage

    return read


def of_vendor(name: str) -> Callable[[JSON], Usage | None]:
    return lambda reply: vendor_usage(find_vendor(name).usage, reply)


READERS: Mapping[str, Callable[[JSON], Usage | None]] = {
    "chat": by(ChatReader),
    "responses": by(ResponsesReader),
    "embeddings": by(EmbeddingsReader),
    "messages": by(MessagesReader),
    "anthropic": lambda reply: chat_usage(anthropic.chat_members(reply["usage"])),
    "google": lambda reply: chat_usage(google.chat_members(reply["usageMetadata"], "")),
    "deepseek": of_vendor("deepseek"),
    "openrouter": of_vendor("openrouter"),
    "xai": of_vendor("xai"),
}
"""How the gateway reads a reply: in a dialect that is passed on, or by way of a provider's chat completion."""


def priced(row: JSON) -> Price:
    found = price_of("", DeploymentRow.model_validate(row))
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class Invoice:
    """One row of ``invoices.yaml``."""

    name: str
    row: JSON
    read: list[str]
    reply: str
    usd: str
    published: JSON | None = None

    @property
    def price(self) -> Price:
        return priced(self.row)

    def usage(self, way: str) -> Usage:
        found = READERS[way](json.loads(self.reply))
        assert found is not None
        return found

    @property
    def nano(self) -> int:
        nano = nano_from_usd(Decimal(self.usd))
        assert Decimal(nano) == Decimal(self.usd) * 10**9, "a bill is in whole nano-dollars"
        return nano


# The base loader leaves every number as text, digits and all.
INVOICES = [
    Invoice(**row)
    for row in yaml.load(Path(__file__).with_name("invoices.yaml").read_text("utf-8"), Loader=yaml.BaseLoader)
]
READINGS = [pytest.param(each, way, id=f"{each.name} ({way})") for each in INVOICES for way in each.read]
PUBLISHED = [pytest.param(each, id=each.name) for each in INVOICES if each.published]


@pytest.mark.parametrize(("invoice", "way"), READINGS)
def test_a_known_invoice_is_recomputed_to_the_nano_dollar(invoice: Invoice, way: str) -> None:
    usage = invoice.usage(way)
    assert invoice.price.cost(usage) == invoice.nano


@pytest.mark.parametrize(("invoice", "way"), READINGS)
def test_an_audit_recomputes_it_from_what_an_event_holds(invoice: Invoice, way: str) -> None:
    usage = invoice.usage(way)
    event = {f"{kind}_tokens": count for kind, count in usage.counts().items()} | {"service_tier": usage.tier}
    assert Price.parse(str(invoice.price)).cost(usage_of(event)) == invoice.nano


@pytest.mark.parametrize(("invoice", "way"), READINGS)
def test_no_less_was_reserved_for_it(invoice: Invoice, way: str) -> None:
    usage = invoice.usage(way)
    assert invoice.nano <= invoice.price.reserve(usage.input, usage.output, 1, usage.tier)


@pytest.mark.parametrize("invoice", PUBLISHED)
def test_the_package_of_published_prices_bills_the_same(invoice: Invoice) -> None:
    assert invoice.published is not None
    provider, flavor = invoice.published["provider"], invoice.published["flavor"]
    (vendor,) = (each for each in get_snapshot().providers if each.id == provider)
    _, usage = vendor.extract_usage({"model": invoice.row["engine"], **json.loads(invoice.reply)}, api_flavor=flavor)
    bill = calc_price(
        usage,
        invoice.row["engine"],
        provider_id=provider,
        genai_request_timestamp=WHEN,
        price_context=invoice.published.get("context"),
    )
    assert nano_from_usd(bill.total_price) == invoice.nano


@pytest.mark.parametrize("invoice", PUBLISHED)
def test_a_row_that_takes_the_published_price_is_billed_the_same(invoice: Invoice) -> None:
    row = {name: value for name, value in invoice.row.items() if name in ("provider", "engine", "service_tiers")}
    assert priced(row).cost(invoice.usage(invoice.read[0])) == invoice.nano


def test_every_way_of_reading_and_every_kind_of_price_stands_in_an_invoice() -> None:
    assert {way for each in INVOICES for way in each.read} == READERS.keys()
    settings = {name for name in DeploymentRow.model_fields if name.endswith("_cost")}
    assert settings | {"long_context", "service_tiers"} <= {name for each in INVOICES for name in each.row}
