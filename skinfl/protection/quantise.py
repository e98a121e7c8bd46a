"""Quantisation to 8, 12 or 16 bits on a scale common to all hospitals.

A value x in a segment of clip range c becomes the integer nearest to, or stochastically around,
x * h / c with h = 2^(bits - 1) - 1. Stochastic rounding goes up with a chance equal to the fraction
cut off, so its mean is x (QSGD: Alistarh et al., NeurIPS 2017). The error of one value is below c / h
(half of that when rounding to the nearest), of a sum of n below n c / h; a zero stays exactly zero.

The clip range is a fixed one for all segments, or agreed, segment by segment, in the round before: each
hospital adds the largest magnitude in each segment to what it protects, only the sum of these over the
hospitals is opened, and twice their mean is the next range. In the first round nothing is agreed yet,
so values are carried in several integers each, at a clip of 64 and at least 16 fractional bits.

Error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019) keeps at the hospital what
rounding and clipping cut off and adds it to the next update.
"""

from __future__ import annotations

import hashlib
import math
from typing import Dict, Iterator, List, Mapping, Optional

import numpy as np

from skinfl.errors import ProtectionError, SettingsError
from skinfl.protection import wire
from skinfl.protection.base import Exchange
from skinfl.protection.digits import COUNT_LIMIT, COUNT_PRECISION, CountDigits, Digits
from skinfl.protection.encoder import (
    Decoded,
    Encoder,
    Tally,
    check_range,
    check_vector,
    clipped_block,
    in_blocks,
    separate_counts,
)
from skinfl.protection.fixedpoint import DEFAULT_PRECISION, FixedPoint
from skinfl.protection.layout import Layout
from skinfl.protection.prg import Stream, new_seed
from skinfl.protection.trailer import Trailer

BITS = (8, 12, 16)
#: clip range of a first round
WIDE_CLIP = 64.0
#: the agreed range over the mean of the hospitals' largest magnitudes
HEADROOM = 2.0
#: smallest agreed range, so that a segment that did not move has a scale
MINIMUM_CLIP = 2.0**-20
_UNIFORM = np.dtype("<u4")


class QuantisedEncoding:
    """The layout of quantised integers: all that hospitals and opener must agree on; holds no state.

    ``clip`` None means agreed ranges. Every word lies in ``0 .. largest``.
    """

    def __init__(self, bits: int, clip: Optional[float]):
        if bits not in BITS:
            raise SettingsError(f"bits = {bits!r}: choose one of {', '.join(map(str, BITS))}")
        self.bits = bits
        self.clip = clip
        self.half = (1 << (bits - 1)) - 1
        self.largest = 2 * self.half
        base = self.largest + 1
        self.counts = CountDigits(base)
        self.trailer = Trailer(base)
        digits = math.ceil(24 / bits)
        precision = min(DEFAULT_PRECISION, math.floor(math.log2(base**digits / (2 * WIDE_CLIP))))
        self.wide = FixedPoint(precision, rounding="nearest")
        self.wide_digits = Digits(base, int(WIDE_CLIP) << precision)

    def error(self, largest: float, rounding: str) -> float:
        """Return how far one value may be off at most, in a round of any kind.

        No value of this round or the one before is larger than ``largest``, and none is clipped.
        """
        clip = HEADROOM * largest + 2.0**-COUNT_PRECISION if self.clip is None else self.clip
        step = max(clip, MINIMUM_CLIP) / self.half
        error = step / 2 if rounding == "nearest" else step
        return error if self.clip is not None else max(error, self.wide.error)

    def segments(self, layout: Layout) -> List[slice]:
        """Return where the segments of ordinary values lie; each has a range of its own."""
        places = layout.slices()
        return [places[s.name] for s in layout.segments if s.kind != "count"]

    def is_wide(self, agreement: str) -> bool:
        """Return whether values take several integers, as nothing is agreed yet."""
        return self.clip is None and not agreement

    def size(self, layout: Layout, agreement: str) -> int:
        """Return how many integers a vector becomes, with the trailer."""
        segments = self.segments(layout)
        values = sum(s.stop - s.start for s in segments)
        extras = layout.size - values
        if self.clip is None:
            extras += len(segments) if self.is_wide(agreement) else 2 * len(segments)
        width = self.wide_digits.count if self.is_wide(agreement) else 1
        return values * width + extras * self.counts.width + self.trailer.width

    def decode(self, words: np.ndarray, layout: Layout, senders: int, agreement: str) -> Decoded:
        """Return what the words of a sum of so many senders stand for: ``size(layout, agreement)`` words."""
        check_range(words, 0, senders * self.largest, senders)
        integers = words[: len(words) - self.trailer.width]
        parts, segments = separate_counts(layout), self.segments(layout)
        number = layout.size - len(parts.counts)
        width = self.wide_digits.count if self.is_wide(agreement) else 1
        values, extras = integers[: number * width], integers[number * width :]
        extras = self.counts.steps(extras, senders)
        counts, peaks, clips = np.split(extras, [len(parts.counts), len(parts.counts) + len(segments)])
        vector = np.empty(layout.size)
        vector[parts.counts] = self.counts.value(counts)
        if self.is_wide(agreement):
            whole = self.wide.decode(self.wide_digits.decode(values, senders))
            steps = np.ones(len(segments))
        else:
            whole = values - senders * self.half
            steps = self._common(clips, senders, len(segments)) / self.half
        done = 0
        for where, step in zip(segments, steps):
            length = where.stop - where.start
            vector[where] = whole[done : done + length] * step
            done += length
        ranges = (
            None if self.clip is not None or not segments else next_clips(self.counts.value(peaks), senders)
        )
        return Decoded(vector, ranges, self.trailer.share(words, senders))

    def _common(self, clips: np.ndarray, senders: int, segments: int) -> np.ndarray:
        """Return the ranges that all senders used: their sums, in steps, are multiples of the senders."""
        if self.clip is not None:
            return np.full(segments, self.clip)
        if np.any(clips % senders):
            raise ProtectionError("the hospitals used different clip ranges: tell all of them the last sum's")
        return self.counts.value(clips // senders)


def next_clips(peaks: np.ndarray, senders: int) -> np.ndarray:
    """Return the ranges for the next round from the summed peaks, as whole steps of a count."""
    wanted = np.clip(HEADROOM * peaks / senders, MINIMUM_CLIP, COUNT_LIMIT)
    step = 2.0**-COUNT_PRECISION
    return np.ceil(wanted / step) * step


class Quantiser(Encoder):
    """A hospital's own side: the agreed ranges, the residual, and the stream that rounds.

    ``rounding`` is ``"stochastic"`` or ``"nearest"``. The stream's seed is the operating system's. With
    ``seed`` it is derived from that, the hospital, the round and the layout, so that an experiment can
    be repeated exactly; rounding protects no secret, but whoever knows the seed can foresee it.
    ``salt`` is a secret of the hospitals that keeps the ranges' digest from being guessed.
    """

    def __init__(
        self,
        encoding: QuantisedEncoding,
        name: str,
        *,
        salt: bytes,
        rounding: str = "stochastic",
        seed: Optional[int] = None,
        error_feedback: bool = False,
    ):
        self.encoding = encoding
        self.trailer = encoding.trailer
        self.name = name
        self._salt = salt
        self._rounding = rounding
        self._seed = seed
        self._error_feedback = error_feedback
        self._ranges: Optional[np.ndarray] = None
        self._residual: Optional[np.ndarray] = None

    def set_ranges(self, ranges: np.ndarray) -> None:
        """Take the clip ranges of the next round, one per segment of ordinary values.

        Whoever passes them on may be mistaken or lie: a range that no sum can have given would quantise an
        update to nothing, or to garbage. Raises :class:`~skinfl.errors.ProtectionError` for such.
        """
        if self.encoding.clip is not None:
            return
        told = np.array(ranges, np.float64)
        if told.ndim != 1 or not np.all((told >= MINIMUM_CLIP) & (told <= COUNT_LIMIT)):
            raise ProtectionError(
                f"a quantisation range it is told lies outside {MINIMUM_CLIP:g} to {COUNT_LIMIT:g}: "
                "no sum of updates gives such a range"
            )
        self._ranges = told

    def state(self) -> Dict[str, np.ndarray]:
        """Return the agreed ranges and the residual."""
        found = {"ranges": self._ranges, "residual": self._residual}
        return {name: array for name, array in found.items() if array is not None}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        self._ranges, self._residual = state.get("ranges"), state.get("residual")

    def agreement(self, layout: Layout) -> str:
        """Return the digest of the ranges that a vector of this layout will be quantised with."""
        if self._ranges is None or not self._fits(layout):
            return ""
        return wire.fingerprint(self._salt, self._ranges.tobytes())

    def size(self, layout: Layout) -> int:
        """Return how many integers a vector of ``layout`` becomes under the ranges agreed now."""
        return self.encoding.size(layout, self.agreement(layout))

    def fits(self, number: int, layout: Layout) -> bool:
        """Say whether a sum of ``layout`` may have so many words: with ranges agreed, or in a first round."""
        return any(number == self.encoding.size(layout, agreement) for agreement in ("", "agreed"))

    def decode(self, words: np.ndarray, layout: Layout, senders: int) -> Decoded:
        """Return what the words of a sum stand for.

        Agreed ranges are in the sum, so that only whether there were some matters, and that shows in the
        number of words: the sum may be older than the ranges that this hospital was told. In tiny layouts
        where both have as many, it is taken for a sum under the ranges agreed now.
        """
        agreement = self.agreement(layout)
        if len(words) != self.encoding.size(layout, agreement):
            agreement = "" if agreement else "agreed"
        return self.encoding.decode(words, layout, senders, agreement)

    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the integers of ``vector`` in order but for the trailer, int64, each in ``0 .. largest``.

        What was cut off is kept for the next call with error feedback, once all are taken.
        """
        layout = exchange.layout
        vector = check_vector(vector, layout)
        if self._residual is not None and self._residual.shape == vector.shape:
            vector = vector + self._residual
        wide = self.encoding.is_wide(self.agreement(layout))
        clips = self._clips(layout, wide)
        residual = np.zeros(layout.size, np.float32) if self._error_feedback else None
        uniform = self._stream(exchange)
        peaks = np.zeros(len(clips))
        for i, where in enumerate(self.encoding.segments(layout)):
            start = where.start
            for values in in_blocks(vector[where]):
                values = values.astype(np.float64)
                inside = clipped_block(values, clips[i], tally)
                peaks[i] = max(peaks[i], float(values.max()), -float(values.min()))
                if wide:
                    whole = self.encoding.wide.encode(inside)
                    sent = self.encoding.wide.decode(whole)
                    yield from in_blocks(self.encoding.wide_digits.encode(whole))
                else:
                    whole = self._round(inside, self.encoding.half / clips[i], uniform)
                    sent = whole * (clips[i] / self.encoding.half)
                    yield whole + self.encoding.half
                if residual is not None:
                    residual[start : start + len(values)] = values - sent
                    start += len(values)
        extras = [vector[separate_counts(layout).counts]]
        if self.encoding.clip is None:
            extras.append(np.minimum(peaks, COUNT_LIMIT))
            if not wide:
                extras.append(clips)
        yield from in_blocks(self.encoding.counts.encode(np.concatenate(extras)))
        if residual is not None and len(clips):
            self._residual = residual

    def _fits(self, layout: Layout) -> bool:
        return self._ranges is not None and self._ranges.shape == (len(self.encoding.segments(layout)),)

    def _clips(self, layout: Layout, wide: bool) -> np.ndarray:
        number = len(self.encoding.segments(layout))
        if self.encoding.clip is not None:
            return np.full(number, self.encoding.clip)
        return np.full(number, WIDE_CLIP) if wide or self._ranges is None else self._ranges

    def _stream(self, exchange: Exchange) -> Optional[Stream]:
        if self._rounding == "nearest":
            return None
        if self._seed is None:
            return Stream(new_seed())
        text = wire.fingerprint("rounding", self._seed, self.name, exchange.round, exchange.layout.digest)
        return Stream(hashlib.sha256(text.encode()).digest())

    def _round(self, values: np.ndarray, factor: float, uniform: Optional[Stream]) -> np.ndarray:
        """Return float64 ``values`` in steps, as integers of magnitude at most ``half``.

        ``values * factor`` passes ``half`` by 2^-36 at most and the uniform number is below 1 - 2^-33,
        so not even the largest value is rounded out of range.
        """
        scaled = values * factor
        if uniform is None:
            return np.rint(scaled, out=scaled).astype(np.int64)
        scaled += uniform.words(len(values), _UNIFORM) * 2.0**-32
        return np.floor(scaled, out=scaled).astype(np.int64)
