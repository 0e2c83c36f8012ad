import math
import random
from decimal import Decimal
from fractions import Fraction
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


def price(input_nano: str, output_nano: str, cached_nano: str | None = None) -> Price:
    cached = None if cached_nano is None else Decimal(cached_nano)
    return Price(Rates(Decimal(input_nano), Decimal(output_nano), cached))


def any_amount(rng: random.Random) -> Decimal:
    """Nano-dollars per token: from 0 up to 0.001 USD, with up to nine digits."""
    return Decimal(rng.randrange(10 ** rng.randint(1, 9))).scaleb(-rng.randint(3, 9))


def any_price(rng: random.Random) -> Price:
    return Price(Rates(any_amount(rng), any_amount(rng), rng.choice([None, any_amount(rng)])))


def any_usage(rng: random.Random, input_bound: int, output_bound: int) -> Usage:
    """Anything a provider may report within the bounds, more cached tokens than input included."""
    return Usage(rng.randint(0, input_bound), rng.randint(0, output_bound), rng.randint(0, 2 * input_bound))


def exact_cost(of: Price, usage: Usage) -> Fraction:
    cached_price = Fraction(of.input if of.cached is None else of.cached)
    cached = min(usage.cached, usage.input)
    return (usage.input - cached) * Fraction(of.input) + cached * cached_price + usage.output * Fraction(of.output)


# -- prices


def test_a_price_keeps_every_digit() -> None:
    found = Price.per_token_usd(Decimal("0.000000123456789012345"), Decimal("7.5e-8"), Decimal("1.23e-05"))
    assert (found.input, found.output, found.cached) == (
        Decimal("123.456789012345"),
        Decimal(75),
        Decimal(12300),
    )


def test_a_price_that_no_double_can_hold_is_charged_exactly() -> None:
    tenth = Price.per_token_usd(Decimal("0.0000000001"), Decimal("0.0000000002"))
    assert tenth.cost(Usage(input=1, output=2)) == 0
    assert tenth.cost(Usage(input=10, output=0)) == 1
    assert tenth.cost(Usage(input=10, output=10**11)) == 20_000_000_001


@pytest.mark.parametrize("bad", ["-1", "-0.000001", "NaN", "Infinity"])
@pytest.mark.parametrize("place", range(3))
def test_a_price_is_a_finite_number_of_at_least_zero(bad: str, place: int) -> None:
    amounts = ["1", "1", "1"]
    amounts[place] = bad
    with pytest.raises(ValueError, match="a price must be"):
        price(*amounts)


def test_a_price_in_an_event_reads_without_exponent_or_trailing_zeros() -> None:
    found = Price.per_token_usd(Decimal("0.0000025"), Decimal("1E-5"), Decimal("0.00000000012500"))
    assert str(found) == "input=2500,output=10000,cached=0.125"
    assert str(FREE) == "input=0,output=0"


def test_the_text_of_any_price_reads_back_as_the_same_price() -> None:
    rng = random.Random(20250101)
    for _ in range(2000):
        found = any_price(rng)
        assert Price.parse(str(found)) == found
        assert str(Price.parse(str(found))) == str(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [("2.500E+3", "2500"), ("0.10", "0.1"), ("100", "100"), ("1E-9", "0.000000001"), ("0", "0"), ("0.0", "0")],
)
def test_a_number_is_written_plainly(value: str, text: str) -> None:
    assert number(Decimal(value)) == text


# -- cost


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4), (2, 1)])
def test_a_cost_is_rounded_half_even(tokens: int, nano: int) -> None:
    assert price("0.5", "0").cost(Usage(input=tokens)) == nano


def test_a_cost_is_rounded_once_and_not_once_a_kind_of_token() -> None:
    halves = price("0.5", "0.5", "0.5")
    assert halves.cost(Usage(input=1, output=1)) == 1
    assert halves.cost(Usage(input=2, output=1, cached=1)) == 2


def test_cached_tokens_cost_their_own_price() -> None:
    assert (
        price("2500", "10000", "1250").cost(Usage(input=100, output=10, cached=40)) == 60 * 2500 + 40 * 1250 + 100_000
    )


def test_cached_tokens_cost_as_input_where_they_have_no_price() -> None:
    assert price("2500", "10000").cost(Usage(input=100, cached=40)) == 250_000


def test_more_cached_tokens_than_input_do_not_make_a_credit() -> None:
    assert price("2500", "10000", "1250").cost(Usage(input=10, cached=1_000)) == 12_500


def test_reasoning_tokens_are_part_of_the_output_and_not_charged_again() -> None:
    assert price("0", "10").cost(Usage(output=100, reasoning=90)) == 1_000


def test_what_is_free_costs_nothing() -> None:
    assert FREE.cost(Usage(10**9, 10**9)) == FREE.reserve(10**9, 10**9, 16) == 0


def test_a_cost_is_the_exact_sum_rounded_once() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        found, usage = any_price(rng), any_usage(rng, 2**40 - 1, 2**40 - 1)
        assert found.cost(usage) == round(exact_cost(found, usage))


# -- reserve


def test_a_reservation_rounds_up() -> None:
    assert price("0.1", "0").reserve(1, 0, 1) == 1
    assert price("0.1", "0.1").reserve(10, 1, 1) == 2
    assert price("1", "1").reserve(2, 3, 1) == 5


def test_a_reservation_takes_the_dearest_input_price() -> None:
    assert price("1", "0", "3").reserve(10, 0, 1) == 30
    assert price("3", "0", "1").reserve(10, 0, 1) == 30


def test_a_reservation_counts_every_choice() -> None:
    assert price("1", "2").reserve(10, 20, 3) == 3 * (10 + 40)


def test_a_call_within_its_bounds_never_costs_more_than_was_reserved() -> None:
    rng = random.Random(42)
    for _ in range(5000):
        found = any_price(rng)
        input_bound, output_bound, choices = rng.randint(0, 10**6), rng.randint(0, 10**5), rng.randint(1, 16)
        reserved = found.reserve(input_bound, output_bound, choices)
        usage = any_usage(rng, choices * input_bound, choices * output_bound)
        assert found.cost(usage) <= reserved


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
