"""Secret sharing: additive in a ring, and Shamir's with a threshold."""

from skinfl.protection.registry import CLIP, PARTIES, PRECISION, PROTECTIONS, ROUNDING
from skinfl.registry import Option

PROTECTIONS.register(
    "smpc",
    "secret sharing between several parties, none of which sees an update",
    "skinfl.protection.smpc.protection:build",
    options=(
        Option("smpc_scheme", str, "additive", "secret sharing scheme", choices=("additive", "shamir")),
        PARTIES,
        Option(
            "threshold",
            int,
            None,
            "parties that suffice to open (Shamir)",
            low=1,
            derived="a majority of the parties",
        ),
        Option("ring", int, 32, "bits of the sharing ring", choices=(32, 64)),
        PRECISION,
        CLIP,
        ROUNDING,
    ),
)
