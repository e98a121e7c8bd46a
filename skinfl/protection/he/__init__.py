"""Homomorphic encryption through TenSEAL: CKKS and BFV."""

from typing import Any

from skinfl.protection.registry import CLIP, PRECISION, PROTECTIONS, ROUNDING
from skinfl.registry import Option


def _with_bfv(value: Any, otherwise: Any) -> Any:
    return lambda settings: value if settings.he_scheme == "bfv" else otherwise


PROTECTIONS.register(
    "he",
    "homomorphic encryption under a key that the hospitals alone hold",
    "skinfl.protection.he.protection:build",
    options=(
        Option(
            "he_scheme",
            str,
            "ckks-layers",
            "packing of homomorphic encryption",
            choices=("ckks-layers", "ckks-vector", "bfv"),
        ),
        Option(
            "bits",
            int,
            _with_bfv(16, None),
            "bits per quantised value (bfv)",
            choices=(8, 12, 16),
            derived="16 with bfv",
        ),
        Option(
            "degree",
            int,
            None,
            "degree of the ciphertexts' polynomials",
            choices=(1024, 2048, 4096, 8192, 16384, 32768),
            derived="the lightest that is secure",
        ),
        Option("error_feedback", bool, False, "keep what quantisation cut off for the next round (bfv)"),
        PRECISION,
        CLIP,
        ROUNDING,
    ),
    uses=("rounding_seed", "simulation_seed"),
    # BFV agrees on its ranges from round to round unless a clip is given
    defaults={"clip": _with_bfv(None, 64.0), "rounding": _with_bfv("stochastic", "nearest")},
)
