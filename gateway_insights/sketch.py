"""A quantile sketch that can be merged: percentiles over many hours, models and processes, right within 1 %.

DDSketch (C. Masson, J. E. Rim, H. K. Lee, "DDSketch", VLDB 2019): a value is counted in a bucket whose bounds lie 2 %
apart, so each quantile is told within a hundredth of its value, and merging adds counts. The order of adding and
merging never changes a sketch, nor its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

ACCURACY: Final = 0.01
"""How far a quantile may lie from the exact one, as a share of it."""

_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA: Final = math.log(_GAMMA)
_LEAST, _MOST = 1e-3, 1e12
"""Smaller values count as 0, larger ones as the largest: that bounds the buckets to some 1,700."""

VERSION: Final = 1


class Sketch:
    """Counts of values by bucket. Values are not negative; their unit is the caller's."""

    __slots__ = ("_buckets", "_zeros")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._zeros = 0

    @property
    def count(self) -> int:
        """How many values were added."""
        return self._zeros + sum(self._buckets.values())

    def add(self, value: float, count: int = 1) -> None:
        """Count a value, ``count`` times.

        Raises:
            ValueError: the value is negative or no number, or the count is negative.
        """
        if not value >= 0 or count < 0:
            raise ValueError("a sketch counts values that are not negative")
        if value < _LEAST:
            self._zeros += count
        elif count:
            bucket = math.ceil(math.log(min(value, _MOST)) / _LOG_GAMMA)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def merge(self, other: Sketch) -> None:
        """Count everything that another sketch has counted."""
        self._zeros += other._zeros
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """The value below which the share ``q`` (0 to 1) of all values lies; None where there are none.

        Raises:
            ValueError: ``q`` is out of range.
        """
        if not 0 <= q <= 1:
            raise ValueError("a quantile lies from 0 to 1")
        rank = q * (self.count - 1)
        seen = self._zeros
        if rank < seen:
            return 0.0 if seen else None
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if rank < seen:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return None

    def to_bytes(self) -> bytes:
        """A version byte, the count of zeros and of buckets, then each bucket's distance from the last and its count.

        Whole numbers, seven bits a byte, the lowest first; the first bucket, which may be below 0, with its sign in
        the lowest bit.
        """
        found = bytearray([VERSION])
        _put(found, self._zeros)
        _put(found, len(self._buckets))
        last: int | None = None
        for bucket in sorted(self._buckets):
            _put(found, _with_sign(bucket) if last is None else bucket - last)
            _put(found, self._buckets[bucket])
            last = bucket
        return bytes(found)

    @classmethod
    def of_counts(cls, zeros: int, buckets: dict[int, int]) -> Sketch:
        """A sketch of counts that others have: of zeros, and by bucket."""
        found = cls()
        found._zeros, found._buckets = zeros, buckets
        return found

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """The inverse of ``to_bytes``.

        Raises:
            ValueError: these are no bytes of a sketch.
        """
        if not data or data[0] != VERSION:
            raise ValueError("no sketch, or of another version")
        numbers = _numbers(data[1:])
        found = cls()
        try:
            found._zeros = next(numbers)
            bucket = 0
            for index in range(next(numbers)):
                number = next(numbers)
                bucket = bucket + number if index else _without_sign(number)
                found._buckets[bucket] = next(numbers)
        except StopIteration:
            raise ValueError("a sketch that is cut off") from None
        if next(numbers, None) is not None:
            raise ValueError("a sketch with something behind it")
        return found


def _put(target: bytearray, number: int) -> None:
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a sketch that is cut off")


def _with_sign(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) | 1


def _without_sign(number: int) -> int:
    return -(number >> 1) if number & 1 else number >> 1
