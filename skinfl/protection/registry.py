"""The registry of protections, and the options that several share. Each registers itself where it is."""

from __future__ import annotations

from typing import Any, Union

from skinfl.protection.options import check_parties
from skinfl.registry import Option, Registry

PROTECTIONS = Registry(
    "protection", group="Protection", help="how updates are protected", default="plaintext"
)


def _parties(value: Any) -> Union[int, str]:
    return check_parties(int(value) if isinstance(value, str) and value.isdigit() else value)


PARTIES = Option("parties", str, 3, "number of aggregating parties, or 'hospitals'", parse=_parties)
PRECISION = Option(
    "precision",
    int,
    None,
    "fractional bits of the fixed-point encoding",
    low=4,
    high=48,
    derived="22, or fewer where that many could overflow; for sympc and pysyft 16",
)
CLIP = Option(
    "clip",
    float,
    64.0,
    "largest absolute value that is sent unchanged",
    low=1e-6,
    high=1e9,
    derived="64, with bfv agreed from round to round",
)
ROUNDING = Option(
    "rounding",
    str,
    "nearest",
    "fixed-point rounding (SyMPC truncates), or stochastic (bfv)",
    choices=("truncate", "nearest", "stochastic"),
    derived="nearest, with bfv stochastic",
)
