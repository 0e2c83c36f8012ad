"""The sketch against exact quantiles."""

from __future__ import annotations

import random

import pytest

from gateway_insights.sketch import ACCURACY, Sketch

CHANCE = random.Random(3)
SHAPES = {
    "even": [CHANCE.uniform(1, 5000) for _ in range(5000)],
    "long tail": [CHANCE.lognormvariate(5, 2) for _ in range(5000)],
    "one value": [250.0] * 1000,
    "two heaps": [10.0] * 990 + [30_000.0] * 10,
    "with zeros": [0.0] * 300 + [float(value) for value in range(700)],
}


def sketch_of(values):
    found = Sketch()
    for value in values:
        found.add(value)
    return found


def exact(values, q):
    return sorted(values)[int(q * (len(values) - 1))]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("q", [0, 0.01, 0.5, 0.95, 0.99, 1])
def test_a_quantile_lies_within_a_hundredth_of_the_exact_one(name, q):
    values = SHAPES[name]
    assert sketch_of(values).quantile(q) == pytest.approx(exact(values, q), rel=ACCURACY + 1e-9)


def test_merged_parts_are_the_whole_to_the_byte_in_whatever_order():
    values = SHAPES["long tail"]
    whole = sketch_of(values).to_bytes()
    for parts in ([values[:17], values[17:]], [values[4000:], values[:1000], values[1000:4000]]):
        merged = Sketch()
        for part in parts:
            merged.merge(Sketch.from_bytes(sketch_of(part).to_bytes()))
        assert merged.to_bytes() == whole
        assert merged.count == len(values)


def test_the_percentile_of_merged_hours_is_not_the_mean_of_their_percentiles():
    busy, quiet = [10.0] * 9900, [9000.0] * 100
    both = sketch_of(busy)
    both.merge(sketch_of(quiet))
    assert both.quantile(0.95) == pytest.approx(10, rel=ACCURACY)


def test_bytes_give_the_same_sketch_back_small_values_and_many_too():
    found = sketch_of([0, 0.002, 0.5, 1, 3_600_000, 1e30])
    found.add(12, count=10**12)
    back = Sketch.from_bytes(found.to_bytes())
    assert back.to_bytes() == found.to_bytes()
    assert back.count == 10**12 + 6
    assert back.quantile(1) == pytest.approx(1e12, rel=ACCURACY)


def test_an_hour_of_all_latencies_takes_little_room():
    assert len(sketch_of(float(value) for value in range(1, 100_000)).to_bytes()) < 2_500


def test_an_empty_sketch_has_no_quantile():
    assert Sketch().quantile(0.5) is None
    assert Sketch.from_bytes(Sketch().to_bytes()).count == 0


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_what_is_no_measurement_is_refused(value):
    with pytest.raises(ValueError, match="not negative"):
        Sketch().add(value)


@pytest.mark.parametrize("data", [b"", b"\x02\x00\x00", b"\x01\x00\x02\x05\x01", b"\x01\x00\x00\x00", b"\x01\x80"])
def test_bytes_that_are_no_sketch_are_refused(data):
    with pytest.raises(ValueError, match="sketch"):
        Sketch.from_bytes(data)
