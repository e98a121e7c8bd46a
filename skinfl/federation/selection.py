"""Which round's model is kept, and when it is not worth going on: the validation images decide.

The last round's model is not always the best one. The test set must not say which is, or its figures would be
too good; so a part of the hospitals' training images does, by sums over hospitals.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.federation.records import RoundRecord

#: how a round's validation metrics are turned into a number of which more is better
_CRITERIA: Dict[str, Callable[[Mapping[str, Any]], Optional[float]]] = {
    "auc": lambda found: found["auc"],
    "balanced_accuracy": lambda found: found["balanced_accuracy"],
    "loss": lambda found: -found["loss"],
}
#: no choice: the model after the last round
LAST = "last"
CRITERIA = (*_CRITERIA, LAST)


class Best(NamedTuple):
    """The best model so far: after ``round``; ``model``: float32, shape ``(layout.size,)``."""

    round: int
    model: np.ndarray


class Selection(NamedTuple):
    """How a round is chosen. ``by``: one of :data:`CRITERIA`. ``patience``: the rounds without a better one
    after which a run ends; 0 never ends it.
    """

    by: str = LAST
    patience: int = 0

    def score(self, validation: Mapping[str, Any]) -> Tuple[float, float]:
        """Return what rounds are compared by: the criterion, and between equals the smaller loss.

        A criterion that the images do not define (the AUC where all are of one class) is worse than any.
        """
        value = _CRITERIA[self.by](validation)
        return (-np.inf if value is None else value), -validation["loss"]

    def better(
        self, best: Optional[Best], records: Sequence[RoundRecord], round: int, model: np.ndarray
    ) -> Optional[Best]:
        """Return the better of ``best`` and the model after ``round``, by what the records say of both.

        Of equals it is the earlier one. A round of which no validation is known is not chosen.
        """
        found = {record.round: record.validation for record in records}
        validation = found.get(round)
        if self.by == LAST or validation is None:
            return best
        before = None if best is None else found.get(best.round)
        if before is not None and self.score(validation) <= self.score(before):
            return best
        return Best(round, model)

    def ends(self, best: Optional[Best], records: Sequence[RoundRecord]) -> bool:
        """Say whether the last validated round is ``patience`` rounds behind the best one."""
        if not self.patience or best is None:
            return False
        last = max(record.round for record in records if record.validation is not None)
        return last - best.round >= self.patience
