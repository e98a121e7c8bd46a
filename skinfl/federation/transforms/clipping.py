"""Clipping: no hospital moves the model further than a bound, and the server learns how many were held back.

McMahan et al., *Learning Differentially Private Recurrent Language Models*, ICLR 2018, section 2: a change
``delta`` becomes ``delta * min(1, S / ||delta||_2)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, List, Tuple

import numpy as np

from skinfl.errors import ProtectionError, SettingsError
from skinfl.federation.transforms.base import Figures, HospitalContext, ServerContext, UpdateTransform
from skinfl.federation.transforms.registry import TRANSFORMS
from skinfl.protection.layout import Layout, Segment
from skinfl.registry import Option


@TRANSFORMS.register(
    "clipping",
    "the change of a hospital's model held to an L2 norm",
    options=(
        Option("clip_norm", float, 1.0, "largest L2 norm of a hospital's change of the model", low=1e-8),
    ),
)
@dataclass
class NormClipping(UpdateTransform):
    """Scales the change of a hospital's trained parameters down to an L2 norm of at most ``clip_norm``.

    A contribution holds ``weight * change``, so its bound is ``weight * clip_norm``, with the weight that
    it carries itself: hospitals of any size are held to the same change. Under FedNova the change is the
    one that is averaged, divided by the length of the hospital's path.

    Only trained parameters are clipped. BatchNorm's statistics are no gradients and are left alone, and
    so are the counts. SCAFFOLD's control change is sent as it is: the server's control has to stay the
    mean of the hospitals', and each keeps its own unclipped. So under SCAFFOLD, or with BatchNorm, this
    does not bound all of what a hospital sends.

    A count of 0 or 1 travels in the protected vector; of its sum the record says ``clipped_hospitals``:
    how many were clipped, not which (unless it was all or none, or of two hospitals one is oneself). The
    bound holds up to the rounding of float32 and of the protection.
    """

    name: ClassVar[str] = "clipping"
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise SettingsError(f"clip_norm = {self.clip_norm!r}: give a positive number")

    def layout(self, layout: Layout) -> Layout:
        """Append one count."""
        return Layout([*layout.segments, Segment("clipping/clipped", 1, "count")])

    def at_hospital(self, vector: np.ndarray, context: HospitalContext) -> np.ndarray:
        """Scale the change down to the bound, and append whether that was needed."""
        places = context.layout.slices()
        trained = [where for name, where in places.items() if name.startswith("model/")]
        bound = self.clip_norm * float(vector[places["counts"]][0])
        norm = _norm(vector, trained)
        if not math.isfinite(norm):
            raise ProtectionError("the update holds values that are not finite: leave this hospital out")
        sent = np.append(vector, np.asarray(norm > bound, vector.dtype))
        if norm > bound:
            for where in trained:
                sent[where] = vector[where].astype(np.float64) * (bound / norm)
        return sent

    def at_server(self, total: np.ndarray, context: ServerContext) -> Tuple[np.ndarray, Figures]:
        """Take the count off again."""
        return total[:-1], {"clipped_hospitals": float(np.rint(total[-1]))}


def _norm(vector: np.ndarray, places: List[slice]) -> float:
    """Return the L2 norm of the values in ``places``, added in float64."""
    return math.sqrt(sum(float(np.sum(np.square(vector[where], dtype=np.float64))) for where in places))
