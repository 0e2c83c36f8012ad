import math
import random
from dataclasses import fields
from decimal import Decimal, localcontext
from typing import Any

import pytest

from model_gateway.money import (
    FREE,
    MAX_LIMIT_USD,
    NANO,
    Price,
    Rates,
    Usage,
    nano_from_usd,
    number,
    usage_from_openai,
    usd_text,
)

KINDS = [kind.name for kind in fields(Rates)]


def price(input_nano: str, output_nano: str, cached_nano: str | None = None) -> Price:
    cached = None if cached_nano is None else Decimal(cached_nano)
    return Price(Rates(Decimal(input_nano), Decimal(output_nano), cached))


def rates(**nano: str) -> Rates:
    return Rates(**{"input": Decimal(0), "output": Decimal(0)} | {kind: Decimal(value) for kind, value in nano.items()})


# -- prices


def test_a_price_keeps_every_digit() -> None:
    found = Price.per_token_usd(Decimal("0.000000123456789012345"), Decimal("7.5e-8"), Decimal("1.23e-05"))
    assert found == price("123.456789012345", "75", "12300")


def test_a_price_that_no_double_can_hold_is_charged_exactly() -> None:
    tenth = Price.per_token_usd(Decimal("0.0000000001"), Decimal("0.0000000002"))
    assert tenth.cost(Usage(input=1, output=2)) == 0
    assert tenth.cost(Usage(input=10, output=0)) == 1
    assert tenth.cost(Usage(input=10, output=10**11)) == 20_000_000_001


def test_a_price_of_more_digits_than_a_decimal_context_keeps_is_charged_exactly() -> None:
    long = Price.per_token_usd(Decimal("0.12345678901234567890123456789012345"), Decimal(0))
    assert str(long) == "input=123456789.01234567890123456789012345,output=0"
    # 0.12345678901234567890123456789012345 USD x 10^9 tokens is 123456789012345678.90123456789012345 nano-dollars
    assert long.cost(Usage(input=10**9)) == 123456789012345679
    # half a nano-dollar and a 10^-30th of one: past the half, where 28 digits would have made it even
    half = price("1000000000.5000000000000000000000000000001", "0")
    assert half.cost(Usage(input=1)) == 1_000_000_001


def test_a_decimal_context_of_another_library_changes_no_cost() -> None:
    with localcontext(prec=3):
        assert Price.per_token_usd(Decimal("0.0000012345"), Decimal(0)).cost(Usage(input=1001)) == 1_235_734
        assert usd_text(123_456_789) == "0.123456789"
        assert nano_from_usd(Decimal("0.123456789")) == 123_456_789


@pytest.mark.parametrize("bad", ["-1", "-0.000001", "NaN", "Infinity"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_price_is_a_finite_number_of_at_least_zero(bad: str, kind: str) -> None:
    with pytest.raises(ValueError, match="a price must be"):
        rates(**{kind: bad})


@pytest.mark.parametrize("bad", ["1E+30", "1E-61", "1." + "1" * 61])
def test_a_price_with_more_digits_than_can_be_reckoned_exactly_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        rates(input=bad)


@pytest.mark.parametrize("name", ["", "a;b", "a,factor=0", "a b", "default", "standard", "x" * 65])
def test_a_tier_that_could_not_be_read_back_or_is_the_usual_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't be the name of a service tier"):
        Price(rates(), tiers={name: Decimal(2)})


@pytest.mark.parametrize("factor", ["-1", "NaN", "Infinity", "1E-61"])
def test_a_tiers_factor_is_a_finite_number_of_at_least_zero(factor: str) -> None:
    with pytest.raises(ValueError, match="the factor of the service tier 'flex'"):
        Price(rates(), tiers={"flex": Decimal(factor)})


@pytest.mark.parametrize("steps", [(2, 1), (1, 1)])
def test_long_context_thresholds_ascend(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Price(rates(), tuple((step, rates()) for step in steps))


def test_a_price_in_an_event_reads_without_exponent_or_trailing_zeros() -> None:
    found = Price.per_token_usd(Decimal("0.0000025"), Decimal("1E-5"), Decimal("0.00000000012500"))
    assert str(found) == "input=2500,output=10000,cached=0.125"
    assert str(FREE) == "input=0,output=0"


def test_a_price_in_an_event_tells_every_kind_step_and_tier() -> None:
    step = (200_000, rates(input="5000.50", output="15000"))
    found = Price(rates(input="2500", output="1E+4", cached="1250"), (step,), {"flex": Decimal("0.50")})
    assert str(found) == (
        "input=2500,output=10000,cached=1250;above=200000,input=5000.5,output=15000;tier=flex,factor=0.5"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [("2.500E+3", "2500"), ("0.10", "0.1"), ("100", "100"), ("1E-9", "0.000000001"), ("0", "0"), ("0.0", "0")],
)
def test_a_number_is_written_plainly(value: str, text: str) -> None:
    assert number(Decimal(value)) == text


# -- amounts


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (2_500, "0.0000025"),
        (NANO, "1"),
        (10 * NANO, "10"),
        (1_500_000_000, "1.5"),
        (MAX_LIMIT_USD * NANO - 1, "8999999.999999999"),
        (MAX_LIMIT_USD * NANO, "9000000"),
    ],
)
def test_dollars_are_written_exactly(nano: int, text: str) -> None:
    assert usd_text(nano) == text


def test_written_dollars_read_back_as_the_same_amount() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        nano = rng.randrange(10 ** rng.randint(1, 16))
        assert nano_from_usd(Decimal(usd_text(nano))) == nano


@pytest.mark.parametrize(
    ("usd", "nano"), [("0.0000000005", 0), ("0.0000000015", 2), ("0.0000000025", 2), ("20", 20 * NANO)]
)
def test_dollars_become_nano_dollars_half_even(usd: str, nano: int) -> None:
    assert nano_from_usd(Decimal(usd)) == nano


def test_the_largest_limit_and_its_neighbour_are_two_numbers_as_doubles() -> None:
    most = MAX_LIMIT_USD * NANO
    assert int(float(most)) == most
    assert math.nextafter(float(most), 0) == most - 1


# -- usage


def test_usage_is_read_by_kind() -> None:
    assert usage_from_openai(
        {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
    ) == Usage(input=10, output=7, cached=4, reasoning=3)


@pytest.mark.parametrize("count", [-1, 1.0, "1", True, None, 2**40, [], {}])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_usage_that_makes_no_sense_is_no_usage(name: str, count: Any) -> None:
    good = {"prompt_tokens": 1, "completion_tokens": 1}
    assert usage_from_openai(good) == Usage(1, 1)
    assert usage_from_openai({**good, name: count}) is None
    assert usage_from_openai({key: value for key, value in good.items() if key != name}) is None


@pytest.mark.parametrize("usage", [None, [], "usage", 1, {}])
def test_usage_that_is_no_object_is_no_usage(usage: Any) -> None:
    assert usage_from_openai(usage) is None


@pytest.mark.parametrize(
    "details", [None, [], 5, {"cached_tokens": -1}, {"cached_tokens": True}, {"cached_tokens": "9"}]
)
def test_garbage_in_the_details_makes_no_tokens(details: Any) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": details}
    assert usage_from_openai(usage) == Usage(input=5, output=5)


@pytest.mark.parametrize("tier", [None, "", "auto", "default", "standard", 5, ["flex"]])
def test_a_reply_that_names_no_tier_of_its_own_was_answered_by_the_usual_one(tier: Any) -> None:
    assert usage_from_openai({"prompt_tokens": 1, "completion_tokens": 1}, tier) == Usage(1, 1)
