"""Personal models: what of a network stays at a hospital, or is trained there beside the common one.

An entry of :data:`PERSONAL` builds the names of the parameters and buffers that stay. They are in no
vector that is summed (:class:`~skinfl.federation.update.StateLayout`), so neither the coordinator nor another
hospital ever holds them.
"""

from __future__ import annotations

from typing import Any, FrozenSet, NamedTuple, Optional

from skinfl.errors import SettingsError
from skinfl.registry import Option, Registry

PERSONAL = Registry(
    "personal", group="Personal models", help="what each hospital has for itself", default="none"
)


class PersonalPlan(NamedTuple):
    """What each hospital trains for itself.

    ``ditto``: weight of the pull towards the common model of a personal one beside it; None: there is none.
    ``fine_tune_epochs``: passes over a hospital's own images after the last round, in which a copy of the
    common model becomes its own, at the rate ``fine_tune_lr``. ``evaluated``: whether hospitals tell, after
    the last round, how their own models do.
    """

    ditto: Optional[float] = None
    fine_tune_epochs: int = 0
    fine_tune_lr: float = 0.0
    evaluated: bool = False


def _trains_beside(settings: Any) -> None:
    if settings.fine_tune_epochs:
        raise SettingsError(
            "personal = ditto trains a personal model already: set fine_tune_epochs to 0, or personal to none"
        )


PERSONAL.register("none", "nothing: one model for all", frozenset)
PERSONAL.register(
    "batchnorm",
    "all of BatchNorm stays there: scale, shift and statistics (FedBN)",
    "skinfl.federation.update:batchnorm_names",
    uses=("model",),
)
PERSONAL.register(
    "head",
    "the last layer stays there (FedPer)",
    "skinfl.federation.update:head_names",
    uses=("model",),
)


@PERSONAL.register(
    "ditto",
    "a whole model trained beside the common one, pulled towards it (Ditto)",
    options=(
        Option(
            "ditto_lambda", float, 0.1, "weight of the pull towards the common model", low=0.0, high=100.0
        ),
    ),
    rules=(_trains_beside,),
)
def build(*, ditto_lambda: float) -> FrozenSet[str]:
    """Return that nothing of the common model stays: Ditto's own is a whole one beside it."""
    return frozenset()
