"""Where hospitals' data lives: workers that hold data sets, and pointers that others hold."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Dict, Tuple

from skinfl.errors import SettingsError, nearest
from skinfl.workers.base import Network, Pointer, Worker

#: where a network of workers is, as module and class; by name, so that no library is loaded unless chosen
NETWORKS: Dict[str, Tuple[str, str]] = {
    "virtual": ("skinfl.workers.virtual", "VirtualNetwork"),
    "pysyft": ("skinfl.openmined.workers", "PySyftNetwork"),
}
WORKERS = ("auto", *NETWORKS)


def build_network(name: str) -> Network:
    """Return an empty network of workers: the package's own, or PySyft 0.2.9's.

    ``"auto"`` takes PySyft 0.2.9 where it is installed.
    """
    if name not in WORKERS:
        raise SettingsError(f"workers = {name!r}: {nearest(name, WORKERS)}")
    if name == "auto":
        name = "pysyft" if _pysyft_installed() else "virtual"
    module, network = NETWORKS[name]
    return getattr(import_module(module), network)()


def _pysyft_installed() -> bool:
    try:
        return version("syft") == "0.2.9"
    except PackageNotFoundError:
        return False


__all__ = ["NETWORKS", "WORKERS", "Network", "Pointer", "Worker", "build_network"]
