"""What a hospital is set up to allow unless told otherwise; apart, so that --help loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

#: values that a model may have
DEFAULT_MAXIMUM_PARAMETERS = 30_000_000
#: a hospital lets nothing out unprotected unless it was set up to
DEFAULT_PROTECTIONS = ("smpc", "he")
#: other hospitals in a sum: with one other, each of the two can subtract its own update from the sum
DEFAULT_MINIMUM_OTHERS = 2


@dataclass(frozen=True)
class Limits:
    """Ranges, ends included, in which a hospital lets the coordinator choose; ``[limits]`` of hospital.toml.

    Batches of a few images, many epochs, a large learning rate or extreme class weights make an update say
    more of single images than training needs; with a tiny server's step two rounds ask the same of a model.
    With a tiny validation part only the largest hospitals have one, and its size tells theirs; none at all is
    always allowed. ``message_bytes`` is the longest message that is read.
    """

    batch_size: Tuple[int, int] = (8, 4096)
    local_epochs: Tuple[int, int] = (1, 50)
    lr: Tuple[float, float] = (1e-5, 1.0)
    server_lr: Tuple[float, float] = (1e-3, 10.0)
    class_weights: Tuple[float, float] = (0.02, 50.0)
    image_size: Tuple[int, int] = (8, 1024)
    validation_fraction: Tuple[float, float] = (0.05, 0.5)
    message_bytes: int = 1 << 30


DEFAULT_LIMITS = Limits()
#: whatever settings allow: for experiments on one machine, whose owner decides all of it anyway
WIDE_LIMITS = Limits(
    (2, 1 << 20), (1, 1 << 20), (1e-8, 1e8), (1e-8, 1e8), (1e-8, 1e8), validation_fraction=(1e-8, 1.0)
)
