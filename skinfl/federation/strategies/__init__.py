"""Federated strategies, one file each, and their choice by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict

from skinfl.errors import SettingsError, nearest
from skinfl.federation.strategies.base import Strategy
from skinfl.federation.strategies.fedadam import FedAdam
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.fedavgm import FedAvgM
from skinfl.federation.strategies.fednova import FedNova
from skinfl.federation.strategies.fedprox import FedProx
from skinfl.federation.strategies.fedyogi import FedYogi
from skinfl.federation.strategies.scaffold import Scaffold

if TYPE_CHECKING:
    from skinfl.settings import Settings

#: how each strategy is made from the settings and the number of images that has weight one; a new
#: strategy is added here
STRATEGIES: Dict[str, Callable[[Settings, int], Strategy]] = {
    "fedavg": lambda s, unit: FedAvg(server_lr=s.server_lr),
    "fedprox": lambda s, unit: FedProx(server_lr=s.server_lr, mu=s.mu),
    "fednova": lambda s, unit: FedNova(
        server_lr=s.server_lr,
        momentum=s.momentum,
        unit_length=max(1.0, s.local_epochs * unit / s.batch_size),
    ),
    "scaffold": lambda s, unit: Scaffold(server_lr=s.server_lr, lr=s.lr, option=s.scaffold_option),
    "fedavgm": lambda s, unit: FedAvgM(server_lr=s.server_lr),
    "fedadam": lambda s, unit: FedAdam(server_lr=s.server_lr),
    "fedyogi": lambda s, unit: FedYogi(server_lr=s.server_lr),
}


def build_strategy(settings: Settings, unit: int) -> Strategy:
    """Return the strategy that the settings name.

    ``unit`` is the public number of training images that has weight one.
    """
    if settings.strategy not in STRATEGIES:
        raise SettingsError(f"strategy = {settings.strategy!r}: {nearest(settings.strategy, STRATEGIES)}")
    return STRATEGIES[settings.strategy](settings, unit)


__all__ = [
    "STRATEGIES",
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
