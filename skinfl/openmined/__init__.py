"""All that rests on OpenMined's libraries: PySyft's virtual workers, its sharing, and SyMPC's.

Importing the package declares what it has; the libraries are imported where it is chosen.
"""

from skinfl.protection.registry import CLIP, PARTIES, PRECISION, PROTECTIONS
from skinfl.workers.registry import WORKERS

for _name, _what, _build in (
    ("sympc", "OpenMined's SyMPC, to compare with", "skinfl.openmined.sympc_sharing:Sympc"),
    (
        "pysyft",
        "PySyft 0.2.9's own sharing, to compare with",
        "skinfl.openmined.pysyft_sharing:PySyftSharing",
    ),
):
    PROTECTIONS.register(_name, _what, _build, options=(PARTIES, PRECISION, CLIP), defaults={"precision": 16})

WORKERS.register("pysyft", "PySyft 0.2.9's virtual workers", "skinfl.openmined.workers:PySyftNetwork")
