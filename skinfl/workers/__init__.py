"""Where hospitals' data lives: workers that hold data sets, and pointers that others hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.workers.registry import WORKERS

if TYPE_CHECKING:
    from skinfl.workers.base import Network


def build_network(name: str) -> Network:
    """Return an empty network of the workers ``name``, one of :data:`WORKERS`.

    ``"auto"`` takes PySyft 0.2.9 where it is installed.
    """
    network: Network = WORKERS[name].builder()
    return network


__all__ = ["WORKERS", "build_network"]
