"""Many sketches merged at once: a year of hours is a hundred thousand of them.

The same as ``Sketch.from_bytes`` and ``Sketch.merge`` one by one, with numpy over all their bytes: eight times
as fast, as no bucket of a single sketch becomes a Python object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway_insights.sketch import VERSION, Sketch

Numbers = NDArray[np.int64]

_SHORTEST: Final = 3
"""Bytes of a sketch of nothing."""

_MOST_BUCKETS: Final = 10_000
"""From the smallest to the largest; a sketch's bounds give less than 2,000."""


def merged(sketches: Sequence[bytes]) -> Sketch:
    """The sum of sketches, each as ``Sketch.to_bytes`` wrote it.

    Raises:
        ValueError: one of them is no sketch.
    """
    if not sketches:
        return Sketch()
    if any(len(data) < _SHORTEST or data[0] != VERSION or data[-1] > 0x7F for data in sketches):
        raise ValueError("no sketch, or of another version, or cut off")
    numbers, starts = _numbers(sketches)
    lengths = np.diff(starts, append=len(numbers))
    if (lengths < 2).any() or (lengths != 2 + 2 * numbers[starts + 1]).any():
        raise ValueError("a sketch with too little or too much in it")
    filled = starts[lengths > 2]
    pairs = np.ones(len(numbers), bool)
    pairs[starts] = pairs[starts + 1] = False
    return Sketch.of_counts(int(numbers[starts].sum()), _buckets(numbers, pairs, filled))


def _numbers(sketches: Sequence[bytes]) -> tuple[Numbers, Any]:
    """All whole numbers behind the versions, and where those of each sketch begin."""
    data = np.frombuffer(b"".join(sketch[1:] for sketch in sketches), np.uint8)
    ends = np.flatnonzero(data < 0x80)
    numbers, lengths = data[ends].astype(np.int64), np.diff(ends, prepend=-1)
    back, longer = 1, np.flatnonzero(lengths > 1)
    while len(longer):
        numbers[longer] = numbers[longer] << 7 | data[ends[longer] - back] & 0x7F
        back += 1
        longer = longer[lengths[longer] > back]
    bytes_before = np.cumsum([0, *(len(sketch) - 1 for sketch in sketches[:-1])])
    return numbers, np.searchsorted(ends, bytes_before)


def _buckets(numbers: Numbers, pairs: NDArray[np.bool_], filled: Any) -> dict[int, int]:
    """Counts by bucket: pairs of a distance from the bucket before and a count; the first with its sign below."""
    if not len(filled):
        return {}
    steps = numbers.copy()
    signed = numbers[filled + 2]
    steps[filled + 2] = np.where(signed & 1, -(signed >> 1), signed >> 1)
    distances, counts = steps[pairs][::2], numbers[pairs][1::2]
    sums = np.cumsum(distances)
    begins = np.cumsum(np.concatenate(([0], numbers[filled[:-1] + 1])))
    offsets = np.repeat(sums[begins] - distances[begins], numbers[filled + 1])
    buckets = sums - offsets
    least, most = int(buckets.min()), int(buckets.max())
    if most - least > _MOST_BUCKETS:
        raise ValueError("a sketch with buckets out of range")
    totals = np.zeros(most - least + 1, np.int64)
    np.add.at(totals, buckets - least, counts)
    found = np.flatnonzero(totals)
    return dict(zip((found + least).tolist(), totals[found].tolist(), strict=True))
