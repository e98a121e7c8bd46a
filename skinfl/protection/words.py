"""A vector as integer words that may be added without overflow.

Secret sharing and encryption add integers. This module lays a float vector out as such integers:
first one word for each ordinary value in layout order, then a few words for each ``"count"``, which
is carried at full precision whatever the words' width.
"""

from __future__ import annotations

import math
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.layout import Layout

#: values processed at a time, so that memory stays flat and the work stays in the cache
BLOCK = 1 << 15
#: a count is a multiple of 2**-27 and at most 2**22 in magnitude: 50 bits with its sign
COUNT_PRECISION = 27
COUNT_LIMIT = 2.0**22
#: precision taken where none is asked for and the capacity allows it: an error of at most 1.2e-7
DEFAULT_PRECISION = 22
#: below this a derived precision would be too coarse to train with
MINIMUM_PRECISION = 10
_LIMB = 16
_LIMBS = 3


class Tally:
    """Counts the values that lay outside the clip range while a vector is encoded."""

    def __init__(self) -> None:
        self.values = 0
        self.clipped = 0

    @property
    def share(self) -> float:
        """The share of clipped values, 0 to 1."""
        return self.clipped / self.values if self.values else 0.0


class Split(NamedTuple):
    """Where a layout's ordinary values lie, as few slices as possible, and its counts' positions."""

    runs: Tuple[slice, ...]
    counts: np.ndarray
    values: int


def split(layout: Layout) -> Split:
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
    return Split(tuple(runs), np.array(counts, dtype=np.int64), layout.size - len(counts))


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


def clipped_block(values: np.ndarray, clip: float, tally: Tally) -> np.ndarray:
    """Return ``values`` within ±clip, counting those outside; refuse what is not finite."""
    tally.values += len(values)
    # A sum of squares below clip² proves at once that every value is finite and inside.
    if np.dot(values, values) < 0.9 * clip * clip:
        return values
    outside = np.count_nonzero(~(np.abs(values) <= clip))
    if not outside:
        return values
    if not np.isfinite(values).all():
        raise ProtectionError(
            "the update holds values that are not finite; leave this hospital out of the round"
        )
    tally.clipped += outside
    return np.clip(values, -clip, clip)


def encode_counts(counts: np.ndarray, rounding: str) -> np.ndarray:
    """Return counts as int64 steps of 2**-27; refuse what lies beyond ±2**22: counts are never clipped."""
    if not (np.abs(counts) <= COUNT_LIMIT).all():
        raise ProtectionError(
            f"a count must be finite and at most {COUNT_LIMIT:.0f}, the update holds another"
        )
    return FixedPoint(COUNT_PRECISION, rounding=rounding).encode(counts.astype(np.float64))


def fit_precision(wanted: Optional[int], *, hospitals: int, clip: float, capacity: int, scheme: str) -> int:
    """Return the fractional bits at which a sum over all hospitals can't pass ``capacity``.

    ``wanted`` is refused where it doesn't fit; None takes the default or what fits, if that is less.
    """
    room = math.log2(capacity / (hospitals * clip))
    largest = math.floor(room)
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


class FixedPointWords:
    """Vectors as signed words whose sum over all hospitals stays within ±capacity.

    Parameters: ``hospitals``, the most vectors ever added; ``capacity``, the largest magnitude that a
    word of the sum may have; ``precision`` as :func:`fit_precision` gave it.
    """

    def __init__(self, *, hospitals: int, capacity: int, clip: float, precision: int, rounding: str):
        self.clip = clip
        self.fixed = FixedPoint(precision, rounding=rounding)
        whole = int(COUNT_LIMIT) << COUNT_PRECISION
        self.limbs = 1 if hospitals * whole <= capacity else _LIMBS
        if self.limbs == _LIMBS and hospitals << _LIMB > capacity:
            raise ProtectionError(f"counts of {hospitals} hospitals don't fit; take a wider ring or degree")

    def size(self, layout: Layout) -> int:
        """Return how many words a vector of ``layout`` becomes."""
        counts = sum(s.size for s in layout.segments if s.kind == "count")
        return layout.size - counts + counts * self.limbs

    def blocks(self, vector: np.ndarray, layout: Layout, dtype: type, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the words of ``vector`` in order, at most BLOCK at a time, as signed ``dtype``.

        The array yielded is overwritten by the next one; the caller may change it.
        """
        vector = check_vector(vector, layout)
        parts = split(layout)
        words = np.empty(BLOCK, dtype)
        for run in parts.runs:
            for start in range(run.start, run.stop, BLOCK):
                values = clipped_block(vector[start : min(start + BLOCK, run.stop)], self.clip, tally)
                yield self.fixed.encode(values, out=words[: len(values)])
        if len(parts.counts):
            yield self._limbs_of(encode_counts(vector[parts.counts], self.fixed.rounding)).astype(dtype)

    def decode(self, words: np.ndarray, layout: Layout) -> np.ndarray:
        """Return the float64 vector, shape ``(layout.size,)``, of summed ``words``."""
        parts = split(layout)
        words = np.asarray(words, dtype=np.int64)
        vector = np.empty(layout.size)
        done = 0
        for run in parts.runs:
            length = run.stop - run.start
            vector[run] = self.fixed.decode(words[done : done + length])
            done += length
        if len(parts.counts):
            limbs = words[done:].reshape(len(parts.counts), self.limbs)
            whole = sum(limbs[:, i] << (_LIMB * i) for i in range(self.limbs))
            vector[parts.counts] = FixedPoint(COUNT_PRECISION).decode(whole)
        return vector

    def _limbs_of(self, whole: np.ndarray) -> np.ndarray:
        if self.limbs == 1:
            return whole
        limbs = [(whole >> (_LIMB * i)) & ((1 << _LIMB) - 1) for i in range(self.limbs - 1)]
        limbs.append(whole >> (_LIMB * (self.limbs - 1)))  # the top one keeps the sign
        return np.stack(limbs, axis=1).reshape(-1)


def rechunk(blocks: Iterable[np.ndarray], sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the blocks' elements again in new arrays of the given sizes."""
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
