"""Sketches merged at once are those merged one by one, to the byte."""

from __future__ import annotations

import random

import pytest

from gateway_insights.sketch import Sketch
from gateway_insights.sketch_sum import merged


def sketch(*values: float) -> Sketch:
    found = Sketch()
    for value in values:
        found.add(value)
    return found


def one_by_one(sketches: list[bytes]) -> Sketch:
    whole = Sketch()
    for data in sketches:
        whole.merge(Sketch.from_bytes(data))
    return whole


EMPTY, ZEROS, SMALL, ONE, HUGE = (
    found.to_bytes() for found in (sketch(), sketch(0, 0), sketch(0.01), sketch(1), sketch(1e12))
)


@pytest.mark.parametrize(
    "sketches",
    [[], [EMPTY], [EMPTY, EMPTY], [ZEROS], [EMPTY, ONE], [ONE, EMPTY], [ZEROS, SMALL, EMPTY, HUGE, ONE], [SMALL] * 3],
)
def test_the_sum_of_odd_sketches_is_that_of_merging(sketches):
    assert merged(sketches).to_bytes() == one_by_one(sketches).to_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_of_any_sketches_is_that_of_merging(seed):
    chance = random.Random(seed)
    sketches = []
    for _ in range(chance.randrange(1, 60)):
        found = Sketch()
        for _ in range(chance.randrange(0, 40)):
            found.add(chance.choice((0.0, chance.lognormvariate(3, 4))), chance.choice((1, 127, 128, 10**9)))
        sketches.append(found.to_bytes())
    assert merged(sketches).to_bytes() == one_by_one(sketches).to_bytes()


@pytest.mark.parametrize(
    "broken", [b"", b"\x02\x00\x00", ONE[:-1], ONE + b"\x00", b"\x01", b"\x01\x00", b"\x01\x80", b"\x01\x00\x01"]
)
@pytest.mark.parametrize("others", [[], [ONE]])
def test_bytes_that_are_no_sketch_are_refused(broken, others):
    for sketches in ([*others, broken], [broken, *others]):
        with pytest.raises(ValueError, match="sketch"):
            merged(sketches)
