"""FedAdagrad: Adagrad at the server.

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skinfl.federation.strategies import fedopt
from skinfl.federation.strategies.fedopt import FedOpt
from skinfl.federation.strategies.registry import STRATEGIES

#: its second moment has no decay
OPTIONS = tuple(option for option in fedopt.OPTIONS if option.name != "beta2")
#: as in the paper's experiments Adagrad has no momentum; steps get shorter anyway, so they begin longer
DEFAULTS = {"server_lr": 0.1, "beta1": 0.0}


@dataclass(frozen=True)
class FedAdagrad(FedOpt):
    """FedOpt with ``v <- v + D^2``: a parameter that has moved much moves less and less."""

    name: ClassVar[str] = "fedadagrad"
    server_lr: float = 0.1
    beta1: float = 0.0

    def second_moment(self, v: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return v + squared


STRATEGIES.register(
    "fedadagrad",
    "Adagrad at the server, whose steps get shorter as it goes",
    FedAdagrad,
    options=OPTIONS,
    defaults=DEFAULTS,
)
