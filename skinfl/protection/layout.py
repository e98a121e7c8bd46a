"""What a protected vector consists of: named segments, and a digest both sides compare."""

from __future__ import annotations

import hashlib
from typing import Dict, NamedTuple, Sequence, Tuple

from skinfl.errors import ProtectionError


class Segment(NamedTuple):
    """A run of consecutive values, for instance one layer's weights.

    ``kind`` is ``"value"`` for what may be quantised coarsely (weights, controls) and ``"count"``
    for the few numbers every average is divided by, which a coarse scheme must carry at full
    precision.
    """

    name: str
    size: int
    kind: str = "value"


class Layout:
    """The order, names and sizes of a vector's segments.

    Both ends derive it for themselves; messages carry only its digest, so that a message of
    another model or another strategy is refused and not added up.
    """

    def __init__(self, segments: Sequence[Segment]):
        self.segments: Tuple[Segment, ...] = tuple(Segment(*s) for s in segments)
        names = [s.name for s in self.segments]
        if len(set(names)) != len(names):
            raise ProtectionError("a layout needs distinct segment names; rename the repeated layer")
        if not self.segments or any(s.size < 1 for s in self.segments):
            raise ProtectionError("a layout needs at least one segment, and none of size zero")
        self.size = sum(s.size for s in self.segments)
        text = "\n".join(f"{s.name}\t{s.size}\t{s.kind}" for s in self.segments)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:32]

    def slices(self) -> Dict[str, slice]:
        """Return where each segment lies in the vector."""
        found, start = {}, 0
        for segment in self.segments:
            found[segment.name] = slice(start, start + segment.size)
            start += segment.size
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and other.segments == self.segments

    def __hash__(self) -> int:
        return hash(self.segments)

    def __repr__(self) -> str:
        return f"Layout({len(self.segments)} segments, {self.size} values, {self.digest[:8]})"
