"""What the coordinator and every hospital hold alike, each having computed it for itself.

It begins with the model that seed and settings give, and moves on by opened sums only
(:mod:`skinfl.federation.rules`). Its digest enters what hospitals protect: those that hold another state
contribute to another sum.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Iterable, Mapping, NamedTuple, Optional

import numpy as np

from skinfl.data.normalisation import Normalisation
from skinfl.errors import TrainingError
from skinfl.federation.state import AVERAGE, PARAMETERS, ServerState

#: the round of a state that no sum has entered yet
NO_ROUND = -1
#: the round of the sums of pixel statistics and class counts before training
STATISTICS_ROUND = 0


class Prepared(NamedTuple):
    """What all hospitals train with, derived from protected sums before the first round.

    ``class_weights``: float64, shape ``(classes,)``, or None for a loss without weights. ``class_shares``: of
    all training images, float64, shape ``(classes,)``, above 0.
    """

    normalisation: Normalisation
    class_weights: Optional[np.ndarray]
    class_shares: np.ndarray


@dataclass(frozen=True)
class CommonState:
    """The state after the sum of ``round``; immutable.

    ``server``: the strategy's arrays. ``accepted``: by hospital, the last round whose sum it is in.
    ``ranges``: what the last sum says all are to quantise with, see
    :meth:`~skinfl.protection.base.HospitalSide.set_ranges`.
    """

    run: str
    round: int
    server: ServerState
    prepared: Optional[Prepared]
    accepted: Mapping[str, int]
    ranges: Optional[np.ndarray] = None

    @property
    def begun(self) -> Prepared:
        """What was prepared. Raises TrainingError where nothing was, before the first round."""
        if self.prepared is None:
            raise TrainingError("no round was begun yet: normalisation and class weights are not known")
        return self.prepared

    @cached_property
    def weights_digest(self) -> str:
        """What identifies the trained values alone, whatever run and strategy: 64 hexadecimal digits.

        The first gradients hang on nothing else: not on what a strategy keeps, nor on BatchNorm's running
        means.
        """
        return _digest(self.server[d.name] for d in self.server.declared if d.role == PARAMETERS)

    @cached_property
    def evaluated_digest(self) -> str:
        """What identifies the trained values that are evaluated, alike whether they are a mean or not."""
        if all(d.role != AVERAGE for d in self.server.declared):
            return self.weights_digest
        parameters = sum(d.size for d in self.server.declared if d.role == PARAMETERS)
        return _digest([self.server.evaluated[:parameters]])

    @cached_property
    def digest(self) -> str:
        """What identifies the state, of this run and round: 64 hexadecimal digits."""
        parts: list = [self.run, self.round, sorted(self.accepted.items()), self.ranges]
        for d in self.server.declared:
            parts += [d.name, int(d.size), d.role, self.server[d.name]]
        if self.prepared is not None:
            normalisation, weights, shares = self.prepared
            parts += [tuple(normalisation), weights, shares]
        return _digest(parts)


def _digest(parts: Iterable[Any]) -> str:
    """Return the SHA-256 of parts, each with its length and kind, so that no two lists are alike."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            kind, content = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part)
            data = memoryview(content).cast("B") if content.size else memoryview(b"")
        else:
            kind, data = "value", memoryview(repr(part).encode())
        found.update(f"{kind} {len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()
