"""What stands between a hospital's vector and the integers that are shared or encrypted.

Secret sharing and encryption add integers. An encoder lays a float vector out as integers that may be
added without overflow: first those of the ordinary values, in layout order, then a few for each
``"count"``, which is carried at full precision whatever the integers' width, then a trailer. Everything that
happens to a value on the way is here and in :mod:`.quantise`: shape and finiteness are checked, values and
counts separated, values clipped (and the clipped ones counted), then encoded. What needs the very integers
that are added up, such as noise on their grid, belongs between :meth:`Encoder.blocks` and whoever shares or
encrypts them; :mod:`.authenticator` is there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.base import Exchange
from skinfl.protection.digits import CountDigits
from skinfl.protection.fixedpoint import DEFAULT_PRECISION, FixedPoint
from skinfl.protection.layout import Layout
from skinfl.protection.trailer import Trailer

#: values processed at a time, so that memory stays flat and the work stays in the cache
BLOCK = 1 << 16
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


class Decoded(NamedTuple):
    """A sum, and what hospitals agree on for the next round (None where nothing).

    ``vector``: float64, shape ``(layout.size,)``, in the units of the vectors that were encoded.
    ``ranges``: float64, one clip range per segment of ordinary values, in the same units. ``clipped``: the
    sum of the senders' shares of clipped values.
    """

    vector: np.ndarray
    ranges: Optional[np.ndarray]
    clipped: float


class Encoder(ABC):
    """How a hospital's vector becomes integers, with whatever the hospital keeps for that."""

    #: what comes behind the integers of values and counts
    trailer: Trailer
    #: of the integers that are yielded
    dtype: np.dtype = np.dtype(np.int64)

    @abstractmethod
    def agreement(self, layout: Layout) -> str:
        """Return the digest of what the integers of this layout rest on; empty where on nothing."""

    @abstractmethod
    def size(self, layout: Layout) -> int:
        """Return how many integers a vector of ``layout`` becomes now, with the trailer."""

    @abstractmethod
    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the integers of ``vector`` in order, at most BLOCK at a time.

        They are ``size(layout)`` in all but for the trailer: :class:`~.authenticator.Authenticated` adds it.

        ``vector``: float32 or float64, shape ``(exchange.layout.size,)``. A value outside the clip range
        is clipped and counted in ``tally``. An array yielded may be overwritten by the next one; the
        caller may change it.

        Raises :class:`~skinfl.errors.ProtectionError` for another shape, a value that is not finite, and
        a count larger than 2^22.
        """

    def fits(self, number: int, layout: Layout) -> bool:
        """Say whether a sum of ``layout`` may have so many words, under what is agreed now or was before."""
        return number == self.size(layout)

    @abstractmethod
    def decode(self, words: np.ndarray, layout: Layout, senders: int) -> Decoded:
        """Return what the words of a sum of so many senders stand for: signed, as many as :meth:`fits`.

        Raises :class:`~skinfl.errors.ProtectionError` for a word that no such sum has.
        """

    def set_ranges(self, ranges: np.ndarray) -> None:  # noqa: B027 - optional by design
        """Take over what the last sum says, see :class:`Decoded`."""

    def state(self) -> Dict[str, np.ndarray]:
        """Return what a resumed run needs."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - optional by design
        """Put back what :meth:`state` returned."""


class FixedPointEncoder(Encoder):
    """Signed fixed-point integers whose sum over all hospitals stays within ±capacity.

    Needs no agreement and keeps no state, so that hospitals, parties and opener each hold one.
    Parameters: ``hospitals``, the most vectors ever added; ``capacity``, the largest magnitude that an
    integer of the sum may have; ``clip``, in the vector's units; ``precision`` as :func:`fit_precision`
    gave it, so that one step is ``2 ** -precision``; ``dtype`` of the integers that are yielded.

    The error of a value within ±clip is at most half a step with rounding ``"nearest"``, below one step
    with ``"truncate"``; of a count at most 2^-28.
    """

    def __init__(
        self,
        *,
        hospitals: int,
        capacity: int,
        clip: float,
        precision: int,
        rounding: str,
        dtype: np.dtype = np.dtype(np.int64),
    ):
        self.clip = clip
        self.dtype = dtype
        self.fixed = FixedPoint(precision, rounding=rounding)
        base = capacity // hospitals + 1
        self.counts = CountDigits(base)
        self.trailer = Trailer(base)

    def agreement(self, layout: Layout) -> str:
        """Nothing is agreed from round to round."""
        return ""

    def size(self, layout: Layout) -> int:
        """Return how many integers a vector of ``layout`` becomes, with the trailer."""
        counts = sum(segment.size for segment in layout.segments if segment.kind == "count")
        return layout.size - counts + counts * self.counts.width + self.trailer.width

    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the integers of ``vector`` in order."""
        vector = check_vector(vector, exchange.layout)
        parts = separate_counts(exchange.layout)
        integers, work = np.empty(BLOCK, self.dtype), np.empty(BLOCK, vector.dtype)
        for run in parts.runs:
            for values in in_blocks(vector[run]):
                inside = clipped_block(values, self.clip, tally)
                n = len(values)
                yield self.fixed.encode(inside, out=integers[:n], work=work[:n])
        yield from in_blocks(self.counts.encode(vector[parts.counts]).astype(self.dtype))

    def decode(self, words: np.ndarray, layout: Layout, senders: int) -> Decoded:
        """Return what the words of a sum of so many senders stand for: signed, shape ``(size(layout),)``."""
        parts = separate_counts(layout)
        values = layout.size - len(parts.counts)
        # one step more: a float32 may be a little above a clip range that it cannot represent
        largest = math.ceil(self.clip * self.fixed.scale * (1 + 2.0**-23)) + 1
        check_range(words[:values], -senders * largest, senders * largest, senders)
        check_range(words[values:], 0, senders * (self.trailer.base - 1), senders)
        vector = np.empty(layout.size)
        done = 0
        for run in parts.runs:
            length = run.stop - run.start
            vector[run] = self.fixed.decode(words[done : done + length])
            done += length
        vector[parts.counts] = self.counts.decode(words[done : len(words) - self.trailer.width], senders)
        return Decoded(vector, None, self.trailer.share(words, senders))


def check_range(words: np.ndarray, low: int, high: int, senders: int) -> None:
    """Refuse words of a sum outside ``low`` to ``high``."""
    if len(words) and not (low <= int(words.min()) and int(words.max()) <= high):
        raise ProtectionError(
            f"the sum has a value that no {senders} updates within their clip range add up to: a wrong "
            "message is in it, or one that was altered on the way"
        )


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


def check_vector(vector: np.ndarray, layout: Layout) -> np.ndarray:
    """Return ``vector`` as a float32 or float64 array of shape ``(layout.size,)``, or refuse its shape."""
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
    """Return float ``values`` (n,) within ±clip, counting those outside; refuse what is not finite."""
    tally.values += len(values)
    # A sum of squares below clip² proves at once that every value is finite and inside.
    if np.dot(values, values) < 0.9 * clip * clip:
        return values
    with np.errstate(invalid="ignore"):
        outside = int(np.count_nonzero(~(np.abs(values) <= clip)))
    if not outside:
        return values
    if not np.isfinite(values).all():
        raise ProtectionError("the update holds values that are not finite: leave this hospital out")
    tally.clipped += outside
    return np.clip(values, -clip, clip)


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
