"""Where hospitals' data lives: workers that hold data sets, and pointers that others hold."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from skinfl.errors import SettingsError, nearest
from skinfl.workers.base import Network, Pointer, Worker

WORKERS = ("auto", "virtual", "pysyft")


def build_network(name: str) -> Network:
    """Return an empty network of workers: the package's own, or PySyft 0.2.9's.

    ``"auto"`` takes PySyft 0.2.9 where it is installed.
    """
    if name not in WORKERS:
        raise SettingsError(f"workers = {name!r}: {nearest(name, WORKERS)}")
    if name == "auto":
        name = "pysyft" if _pysyft_installed() else "virtual"
    if name == "pysyft":
        from skinfl.openmined.workers import PySyftNetwork

        return PySyftNetwork()
    from skinfl.workers.virtual import VirtualNetwork

    return VirtualNetwork()


def _pysyft_installed() -> bool:
    try:
        return version("syft") == "0.2.9"
    except PackageNotFoundError:
        return False


__all__ = ["WORKERS", "Network", "Pointer", "Worker", "build_network"]
