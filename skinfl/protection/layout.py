"""What a protected vector consists of: named segments, and a digest both sides compare."""

from __future__ import annotations

import hashlib
import json
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
    """The order, names and sizes of a vector's segments, and which transforms make such vectors.

    Both ends derive it for themselves; messages carry only its digest, so that a message of
    another model, another strategy or other transforms is refused and not added up. ``transforms``
    is the fingerprint of the update transforms, empty where there are none.
    """

    def __init__(self, segments: Sequence[Segment], transforms: str = ""):
        self.segments: Tuple[Segment, ...] = tuple(Segment(*s) for s in segments)
        names = [s.name for s in self.segments]
        if len(set(names)) != len(names):
            raise ProtectionError("a layout needs distinct segment names; rename the repeated layer")
        if not self.segments or any(s.size < 1 for s in self.segments):
            raise ProtectionError("a layout needs at least one segment, and none of size zero")
        self.size = sum(s.size for s in self.segments)
        self.transforms = transforms
        text = json.dumps([self.segments, transforms], default=int)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:32]

    def slices(self) -> Dict[str, slice]:
        """Return where each segment lies in the vector."""
        found, start = {}, 0
        for segment in self.segments:
            found[segment.name] = slice(start, start + segment.size)
            start += segment.size
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Layout({len(self.segments)} segments, {self.size} values, {self.digest[:8]})"
