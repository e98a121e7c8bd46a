"""The registry of what hospitals run on in a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.registry import Registry

if TYPE_CHECKING:
    from skinfl.workers.base import Network

WORKERS = Registry("workers", group="Hospitals", help="what the hospitals run on", default="auto")


@WORKERS.register("auto", "PySyft 0.2.9's workers where it is installed, else the package's own")
def build_auto() -> Network:
    """Return a network of the workers there are."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("syft") == "0.2.9"
    except PackageNotFoundError:
        installed = False
    network: Network = WORKERS["pysyft" if installed and "pysyft" in WORKERS else "virtual"].builder()
    return network


WORKERS.register("virtual", "the package's own, in this process", "skinfl.workers.virtual:VirtualNetwork")
