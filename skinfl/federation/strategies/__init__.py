"""Federated strategies, one file each, and their choice by name."""

from __future__ import annotations

from typing import Any, Mapping

from skinfl.federation.strategies.averaged import Averaged
from skinfl.federation.strategies.base import Strategy
from skinfl.federation.strategies.fedadagrad import FedAdagrad
from skinfl.federation.strategies.fedadam import FedAdam
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.fedavgm import FedAvgM
from skinfl.federation.strategies.fednova import FedNova
from skinfl.federation.strategies.fedprox import FedProx
from skinfl.federation.strategies.fedyogi import FedYogi
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES
from skinfl.federation.strategies.scaffold import Scaffold


def build_strategy(name: str, values: Mapping[str, Any], unit: int) -> Strategy:
    """Return the strategy ``name`` with its options out of ``values``.

    ``unit`` is the public number of training images that has weight one. Raises
    :class:`~skinfl.errors.SettingsError` for an unknown name.
    """
    strategy: Strategy = STRATEGIES.build(name, values, unit=unit)
    return strategy


__all__ = [
    "SERVER_LR",
    "STRATEGIES",
    "Averaged",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Scaffold",
    "Strategy",
    "build_strategy",
]
