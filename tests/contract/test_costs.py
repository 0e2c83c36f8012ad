import random
from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import pytest

from model_gateway.money import FREE, Price, Rates, Usage, openai_from_usage, usage_from_openai

KINDS = [kind.name for kind in fields(Rates)]
PARTS_OF_INPUT = ["cached", "cache_write", "cache_write_1h", "audio_input", "image_input", "cached_audio"]
PARTS_OF_OUTPUT = ["reasoning", "audio_output", "image_output"]


def price(input_nano: str, output_nano: str, cached_nano: str | None = None) -> Price:
    cached = None if cached_nano is None else Decimal(cached_nano)
    return Price(Rates(Decimal(input_nano), Decimal(output_nano), cached))


def rates(**nano: str) -> Rates:
    return Rates(**{"input": Decimal(0), "output": Decimal(0)} | {kind: Decimal(value) for kind, value in nano.items()})


def any_amount(rng: random.Random) -> Decimal:
    """Nano-dollars per token: from 0 up to 0.001 USD, now and then with more digits than a decimal context keeps."""
    digits, decimals = (rng.randint(1, 9), rng.randint(3, 9)) if rng.random() < 0.8 else (30, rng.randint(24, 40))
    return Decimal(f"{rng.randrange(10**digits)}E-{decimals}")


def any_rates(rng: random.Random) -> Rates:
    """Some kinds with a rate of their own, dearer or cheaper than the whole's."""
    own = {kind: any_amount(rng) for kind in KINDS[2:] if rng.random() < 0.5}
    return Rates(input=any_amount(rng), output=any_amount(rng), **own)


def any_price(rng: random.Random) -> Price:
    """With up to two steps, dearer or cheaper than what is below, and up to two tiers on either side of 1."""
    above = sorted(rng.sample(range(1, 1_000_000), rng.choice([0, 0, 1, 2])))
    tiers = {name: Decimal(rng.randrange(300)) / 100 for name in rng.sample(["flex", "priority"], rng.randint(0, 2))}
    return Price(any_rates(rng), tuple((step, any_rates(rng)) for step in above), tiers)


def any_tier(rng: random.Random, of: Price) -> str:
    return rng.choice(["", *of.tiers])


def any_usage(rng: random.Random, input_bound: int, output_bound: int, tier: str = "") -> Usage:
    """Anything a provider may report within the bounds: parts that overlap, and parts larger than their whole."""
    found, said = rng.randint(0, input_bound), rng.randint(0, output_bound)
    parts = {kind: rng.randint(0, 2 * found) for kind in PARTS_OF_INPUT if rng.random() < 0.5}
    parts |= {kind: rng.randint(0, 2 * said) for kind in PARTS_OF_OUTPUT if rng.random() < 0.5}
    return Usage(found, said, tier=tier, **parts)


def any_bill(rng: random.Random, most: int, of: Price) -> tuple[Usage, Fraction]:
    """A usage that makes sense, out of tokens that are each of one sort, and what they cost added up one by one."""
    sorts = ["plain", "cached", "cached_audio", "audio_input", "cache_write", "cache_write_1h", "image_input"]
    count = {sort: rng.randint(0, most) if rng.random() < 0.6 else 0 for sort in sorts}
    said = {sort: rng.randint(0, most) if rng.random() < 0.6 else 0 for sort in ["plain", *PARTS_OF_OUTPUT]}
    usage = Usage(
        input=sum(count.values()),
        output=sum(said.values()),
        cached=count["cached"] + count["cached_audio"],
        cached_audio=count["cached_audio"],
        audio_input=count["audio_input"] + count["cached_audio"],
        cache_write=count["cache_write"] + count["cache_write_1h"],
        cache_write_1h=count["cache_write_1h"],
        image_input=count["image_input"],
        tier=any_tier(rng, of),
        **{sort: said[sort] for sort in PARTS_OF_OUTPUT},
    )
    at = [of.rates, *(step for above, step in of.long_context if usage.input > above)][-1]
    cost = sum(count[sort] * Fraction(rate) for sort, rate in rates_of_input(at))
    cost += sum(said[sort] * Fraction(missing(at, sort, at.output)) for sort in said)
    return usage, cost * Fraction(of.tiers.get(usage.tier, 1))


def missing(at: Rates, sort: str, whole: Decimal) -> Decimal:
    """A rate of 0 is a rate; one that is not given is the whole's."""
    given: Decimal | None = getattr(at, sort, None)
    return whole if given is None else given


def rates_of_input(at: Rates) -> Iterator[tuple[str, Decimal]]:
    """What an input token of each sort costs, as the documentation has it."""
    plain = at.input
    yield "plain", plain
    yield "cached", missing(at, "cached", plain)
    yield "cached_audio", missing(at, "cached_audio", missing(at, "audio_input", missing(at, "cached", plain)))
    yield "audio_input", missing(at, "audio_input", plain)
    yield "cache_write", missing(at, "cache_write", plain)
    yield "cache_write_1h", missing(at, "cache_write_1h", missing(at, "cache_write", plain))
    yield "image_input", missing(at, "image_input", plain)


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


@pytest.mark.parametrize("part", PARTS_OF_INPUT[:2] + PARTS_OF_INPUT[3:5])
def test_a_part_of_the_input_costs_its_own_price_and_no_more_than_its_whole_counts(part: str) -> None:
    dear, cheap = Price(rates(input="10", **{part: "70"})), Price(rates(input="10", **{part: "3"}))
    assert dear.cost(Usage(input=100, **{part: 40})) == 60 * 10 + 40 * 70
    assert cheap.cost(Usage(input=100, **{part: 40})) == 60 * 10 + 40 * 3
    assert dear.cost(Usage(input=100, **{part: 4000})) == 100 * 70
    assert dear.cost(Usage(input=0, output=50, **{part: 40})) == 0


@pytest.mark.parametrize("part", PARTS_OF_OUTPUT)
def test_a_part_of_the_output_costs_its_own_price_and_no_more_than_its_whole_counts(part: str) -> None:
    dear = Price(rates(output="10", **{part: "70"}))
    assert dear.cost(Usage(output=100, **{part: 40})) == 60 * 10 + 40 * 70
    assert dear.cost(Usage(output=100, **{part: 4000})) == 100 * 70
    assert dear.cost(Usage(input=50, output=0, **{part: 40})) == 0


def test_what_is_written_to_the_cache_for_an_hour_is_part_of_all_that_is_written() -> None:
    both = Price(rates(input="1", cache_write="10", cache_write_1h="100"))
    assert both.cost(Usage(input=100, cache_write=30, cache_write_1h=20)) == 70 + 10 * 10 + 20 * 100
    assert both.cost(Usage(input=100, cache_write=30, cache_write_1h=90)) == 70 + 30 * 100
    assert both.cost(Usage(input=100, cache_write_1h=90)) == 100
    one = Price(rates(input="1", cache_write="10"))
    assert one.cost(Usage(input=100, cache_write=30, cache_write_1h=20)) == 70 + 30 * 10


def test_cached_audio_is_part_of_the_cached_and_of_the_audio() -> None:
    heard = Usage(input=100, cached=50, audio_input=40, cached_audio=30)
    every = Price(rates(input="1", cached="10", audio_input="100", cached_audio="1000"))
    assert every.cost(heard) == 40 * 1 + 20 * 10 + 10 * 100 + 30 * 1000
    assert every.cost(replace(heard, cached_audio=99)) == 50 * 1 + 10 * 10 + 40 * 1000
    no_price_of_its_own = Price(rates(input="1", cached="10", audio_input="100"))
    assert no_price_of_its_own.cost(heard) == 40 * 1 + 20 * 10 + 40 * 100
    no_price_for_audio = Price(rates(input="7", cached="2"))
    assert no_price_for_audio.cost(heard) == 50 * 7 + 50 * 2


def test_where_parts_overlap_the_dearest_counts() -> None:
    found = Price(rates(input="10", cached="1", audio_input="100"))
    assert found.cost(Usage(input=100, cached=80, audio_input=100)) == 100 * 100
    assert found.cost(Usage(input=100, cached=80, audio_input=60)) == 60 * 100 + 40 * 1


@pytest.mark.parametrize(("tokens", "nano"), [(0, 0), (9, 9), (10, 10), (11, 22), (20, 40), (21, 63)])
def test_a_long_context_price_holds_for_the_whole_request_past_its_threshold(tokens: int, nano: int) -> None:
    steps = ((10, rates(input="2", output="20")), (20, rates(input="3", output="30")))
    found = Price(rates(input="1", output="10"), steps)
    assert found.cost(Usage(input=tokens)) == nano
    assert found.cost(Usage(input=tokens, output=1)) == nano + 10 * (1 + (tokens > 10) + (tokens > 20))


def test_cached_tokens_count_towards_the_threshold() -> None:
    found = Price(rates(input="10", cached="1"), ((10, rates(input="20", cached="2")),))
    assert found.cost(Usage(input=11, cached=11)) == 22


def test_the_tier_that_answered_decides_and_not_the_one_that_was_asked_for() -> None:
    found = Price(rates(input="10"), tiers={"flex": Decimal("0.5"), "priority": Decimal("1.75")})
    told = {"prompt_tokens": 3, "completion_tokens": 0}
    asked = {tier: usage_from_openai(told, tier) for tier in ("flex", "priority", "default", None)}
    assert {tier: found.cost(usage) for tier, usage in asked.items() if usage} == {
        "flex": 15,
        "priority": 52,  # 52.5, half-even
        "default": 30,
        None: 30,
    }


def test_a_tier_that_has_no_factor_costs_as_the_usual_one() -> None:
    assert Price(rates(input="10"), tiers={"flex": Decimal("0.5")}).cost(Usage(input=3, tier="scale")) == 30


def test_a_tiers_factor_holds_for_every_kind_and_past_every_threshold_and_is_rounded_once() -> None:
    found = Price(rates(input="1", cached="0.5"), ((10, rates(input="3", output="1")),), {"flex": Decimal("0.5")})
    assert found.cost(Usage(input=2, cached=1, tier="flex")) == 1  # (1 + 0.5) / 2 = 0.75
    assert found.cost(Usage(input=11, output=4, tier="flex")) == 18  # (33 + 4) / 2 = 18.5


def test_what_is_free_costs_nothing() -> None:
    assert FREE.cost(Usage(10**9, 10**9)) == FREE.reserve(10**9, 10**9, 16) == 0


def test_what_used_nothing_costs_nothing() -> None:
    rng = random.Random(3)
    for _ in range(200):
        found = any_price(rng)
        assert found.cost(Usage()) == found.reserve(0, 0, 16) == 0


def test_a_cost_is_the_exact_sum_over_single_tokens_rounded_once() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        found = any_price(rng)
        usage, exact = any_bill(rng, rng.choice([3, 200_000, 2**31 - 1]), found)
        assert found.cost(usage) == round(exact), (found, usage)


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


@pytest.mark.parametrize("part", PARTS_OF_INPUT)
def test_a_reservation_covers_the_dearest_kind_of_input(part: str) -> None:
    assert Price(rates(input="1", output="2", **{part: "70"})).reserve(10, 10, 1) == 10 * 70 + 10 * 2


@pytest.mark.parametrize("part", PARTS_OF_OUTPUT)
def test_a_reservation_covers_the_dearest_kind_of_output(part: str) -> None:
    assert Price(rates(input="1", output="2", **{part: "70"})).reserve(10, 10, 1) == 10 * 1 + 10 * 70


def test_a_reservation_covers_a_long_context_price_only_where_it_can_be_reached() -> None:
    found = Price(rates(input="1", output="1"), ((100, rates(input="2", output="3")),))
    assert found.reserve(100, 10, 1) == 110
    assert found.reserve(101, 10, 1) == 101 * 2 + 10 * 3


def test_choices_that_each_count_the_input_reach_a_threshold_together() -> None:
    found = Price(rates(input="1"), ((100, rates(input="5")),))
    assert found.reserve(60, 0, 2) == 120 * 5 == found.cost(Usage(input=120))


def test_a_cheaper_long_context_price_does_not_lower_the_reservation_for_what_stays_below() -> None:
    found = Price(rates(input="5", output="7"), ((100, rates(input="1", output="1")),))
    assert found.cost(Usage(input=100, output=10)) == 570
    assert found.reserve(101, 10, 1) == 101 * 5 + 10 * 7


def test_a_tier_below_the_usual_price_is_reserved_at_the_usual_since_that_may_answer() -> None:
    found = Price(rates(input="10"), tiers={"flex": Decimal("0.5"), "priority": Decimal("2.5")})
    assert [found.reserve(3, 0, 1, tier) for tier in ("", "flex", "priority", "unknown")] == [30, 30, 75, 30]


def test_a_request_that_leaves_the_tier_to_the_account_is_reserved_at_what_the_row_says_of_auto() -> None:
    found = Price(rates(input="10"), tiers={"auto": Decimal(2), "priority": Decimal(2)})
    assert [found.reserve(3, 0, 1, tier) for tier in ("", "auto")] == [60, 60]
    assert found.cost(Usage(input=3, tier="priority")) == 60
    assert found.cost(Usage(input=3)) == 30


def test_a_call_within_its_bounds_never_costs_more_than_was_reserved() -> None:
    rng = random.Random(42)
    for _ in range(5000):
        found = any_price(rng)
        input_bound, output_bound, choices = rng.randint(0, 10**6), rng.randint(0, 10**5), rng.randint(1, 16)
        asked = any_tier(rng, found)
        reserved = found.reserve(input_bound, output_bound, choices, asked)
        answered = rng.choice([asked, ""])
        usage = any_usage(rng, choices * input_bound, choices * output_bound, answered)
        assert found.cost(usage) <= reserved, (found, usage)


# -- as text


def test_the_text_of_any_price_reads_back_as_the_same_price() -> None:
    rng = random.Random(20250101)
    for _ in range(2000):
        found = any_price(rng)
        assert Price.parse(str(found)) == found
        assert str(Price.parse(str(found))) == str(found)


def test_every_kind_of_token_survives_the_way_through_openais_words() -> None:
    rng = random.Random(11)
    for _ in range(500):
        usage = any_usage(rng, 2**30 - 1, 2**30 - 1)
        assert usage_from_openai(openai_from_usage(usage)) == usage
        assert usage_from_openai(openai_from_usage(usage), "flex") == replace(usage, tier="flex")
