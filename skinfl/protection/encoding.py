"""A vector as integers that may be added without overflow.

Secret sharing and encryption add integers. This module lays a float vector out as such integers:
first one for each ordinary value in layout order, then a few for each ``"count"``, which
is carried at full precision whatever the integers' width.
"""

from __future__ import annotations

import math
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.digits import CountDigits
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.layout import Layout

#: values processed at a time, so that memory stays flat and the work stays in the cache
BLOCK = 1 << 16
#: precision taken where none is asked for and the capacity allows it: an error of at most 1.2e-7
DEFAULT_PRECISION = 22
#: below this a derived precision would be too coarse to train with
MINIMUM_PRECISION = 10


class Tally:
    """Counts the values that lay outside the clip range while a vector is encoded."""

    def __init__(self) -> None:
        self.values = 0
        self.clipped = 0

    @property
    def share(self) -> float:
        """The share of clipped values, 0 to 1."""
        return self.clipped / self.values if self.values else 0.0


class ValueRuns(NamedTuple):
    """Where a layout's ordinary values lie, as few slices as possible, and its counts' positions."""

    runs: Tuple[slice, ...]
    counts: np.ndarray


def separate_counts(layout: Layout) -> ValueRuns:
    """Separate a layout's values from its counts."""
    runs: List[slice] = []
    counts: List[int] = []
    start = 0
    for segment in layout.segments:
        stop = start + segment.size
        if segment.kind == "count":
            counts.extend(range(start, stop))
        elif runs and runs[-1].stop == start:
            runs[-1] = slice(runs[-1].start, stop)
        else:
            runs.append(slice(start, stop))
        start = stop
    return ValueRuns(tuple(runs), np.array(counts, dtype=np.int64))


def count_size(layout: Layout) -> int:
    """Return how many counts a layout has."""
    return sum(segment.size for segment in layout.segments if segment.kind == "count")


def check_vector(vector: np.ndarray, layout: Layout) -> np.ndarray:
    """Return ``vector`` as a float32 or float64 array, or refuse its shape."""
    vector = np.asarray(vector)
    if vector.shape != (layout.size,):
        raise ProtectionError(
            f"a vector of shape {vector.shape} does not fit the layout's {layout.size} values"
        )
    if vector.dtype not in (np.float32, np.float64):
        vector = vector.astype(np.float64)
    return vector


def in_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield views of an array, BLOCK elements each but the last."""
    for start in range(0, len(array), BLOCK):
        yield array[start : start + BLOCK]


def clipped_block(values: np.ndarray, clip: float, tally: Tally) -> np.ndarray:
    """Return ``values`` within ±clip, counting those outside; refuse what is not finite."""
    tally.values += len(values)
    # A sum of squares below clip² proves at once that every value is finite and inside.
    if np.dot(values, values) < 0.9 * clip * clip:
        return values
    with np.errstate(invalid="ignore"):
        outside = np.count_nonzero(~(np.abs(values) <= clip))
    if not outside:
        return values
    if not np.isfinite(values).all():
        raise ProtectionError("the update holds values that are not finite: leave this hospital out")
    tally.clipped += outside
    return np.clip(values, -clip, clip)


def fit_precision(wanted: Optional[int], *, hospitals: int, clip: float, capacity: int, scheme: str) -> int:
    """Return the fractional bits at which a sum over all hospitals can't pass ``capacity``.

    ``wanted`` is refused where it doesn't fit; None takes the default or what fits, if that is less.
    """
    largest = math.floor(math.log2(capacity / (hospitals * clip)))
    while hospitals * math.ceil(clip * 2.0**largest) > capacity:
        largest -= 1
    if wanted is None:
        wanted = min(DEFAULT_PRECISION, largest)
        if wanted < MINIMUM_PRECISION:
            raise ProtectionError(
                f"{scheme} leaves {largest} fractional bits for {hospitals} hospitals and clip {clip:g}: "
                f"lower the clip or take a wider ring or degree"
            )
    elif wanted > largest:
        raise ProtectionError(
            f"precision {wanted} could overflow {scheme} with {hospitals} hospitals and clip {clip:g}: "
            f"at most {largest} is safe; lower precision or clip, or take a wider ring or degree"
        )
    return wanted


class FixedPointEncoding:
    """Vectors as signed integers whose sum over all hospitals stays within ±capacity.

    Parameters: ``hospitals``, the most vectors ever added; ``capacity``, the largest magnitude that a
    word of the sum may have; ``precision`` as :func:`fit_precision` gave it.
    """

    def __init__(self, *, hospitals: int, capacity: int, clip: float, precision: int, rounding: str):
        self.clip = clip
        self.fixed = FixedPoint(precision, rounding=rounding)
        self.counts = CountDigits(capacity // hospitals + 1)

    def size(self, layout: Layout) -> int:
        """Return how many integers a vector of ``layout`` becomes."""
        counts = count_size(layout)
        return layout.size - counts + counts * self.counts.width

    def blocks(
        self, vector: np.ndarray, layout: Layout, dtype: np.dtype, tally: Tally
    ) -> Iterator[np.ndarray]:
        """Yield the integers of ``vector`` in order, at most BLOCK at a time, as signed ``dtype``.

        The array yielded is overwritten by the next one; the caller may change it.
        """
        vector = check_vector(vector, layout)
        parts = separate_counts(layout)
        integers, work = np.empty(BLOCK, dtype), np.empty(BLOCK, vector.dtype)
        for run in parts.runs:
            for values in in_blocks(vector[run]):
                inside = clipped_block(values, self.clip, tally)
                n = len(values)
                yield self.fixed.encode(inside, out=integers[:n], work=work[:n])
        yield from in_blocks(self.counts.encode(vector[parts.counts]).astype(dtype))

    def decode(self, integers: np.ndarray, layout: Layout, senders: int) -> np.ndarray:
        """Return the float64 vector, shape ``(layout.size,)``, of integers summed over that many senders."""
        parts = separate_counts(layout)
        vector = np.empty(layout.size)
        done = 0
        for run in parts.runs:
            length = run.stop - run.start
            vector[run] = self.fixed.decode(integers[done : done + length])
            done += length
        vector[parts.counts] = self.counts.decode(integers[done:], senders)
        return vector


def rechunk(blocks: Iterable[np.ndarray], sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the blocks' elements again in new int64 arrays of the given sizes."""
    source = iter(blocks)
    block, used = np.empty(0, np.int64), 0
    for size in sizes:
        chunk = np.empty(size, np.int64)
        filled = 0
        while filled < size:
            if used == len(block):
                block, used = next(source), 0
            step = min(size - filled, len(block) - used)
            chunk[filled : filled + step] = block[used : used + step]
            filled, used = filled + step, used + step
        yield chunk
    if used < len(block) or any(len(rest) for rest in source):
        raise ValueError("more integers than the sizes add up to")
