"""The example in ``docs/pricing.md`` is right, to the digit."""

import json
import re
from pathlib import Path

from model_gateway.money import usage_from_openai, usd_text
from model_gateway.prices import load_prices
from model_gateway.settings import DeploymentRow, LongContext, parse_config

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text("utf-8")


def fenced(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL)
    return str(block)


def test_the_example_is_priced_reserved_and_charged_as_the_page_says() -> None:
    (price,) = load_prices(parse_config(fenced("yaml"))).values()
    assert str(price) == fenced("text")
    reserved = price.reserve(1000 + 256, 500, 1, "flex")
    reply = json.loads(fenced("json"))
    usage, usual = (usage_from_openai(reply["usage"], tier) for tier in (reply["service_tier"], "default"))
    assert usage is not None
    assert usual is not None
    charged = price.cost(usage)
    assert re.findall(r"= (\d+) nano-dollars, ([\d.]+) USD", PAGE) == [
        (str(reserved), usd_text(reserved)),
        (str(charged), usd_text(charged)),
    ]
    assert re.findall(r"it would be (\d+) nano-dollars", PAGE) == [str(price.cost(usual))]


def test_every_price_setting_is_in_the_page() -> None:
    settings = {name for name in DeploymentRow.model_fields if name.endswith(("_cost", "_tokens"))}
    settings |= {"long_context", "service_tiers", "free"}
    assert [name for name in sorted(settings) if f"`{name}" not in PAGE] == []
    assert {name for name in LongContext.model_fields if name != "above"} == {
        name for name in settings if name.endswith("_cost")
    }
