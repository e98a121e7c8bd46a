"""What protecting costs in accuracy, time and bytes: the same training under several protections."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
from rich.table import Table

from skinfl.assembly import load_federated_data
from skinfl.data.sources import Progress
from skinfl.errors import SettingsError, nearest
from skinfl.federation.records import RoundRecord
from skinfl.report.wording import over_seeds
from skinfl.settings import Settings
from skinfl.studies.scale import run_through

REFERENCE = "plaintext"
#: what each variant changes in the settings
VARIANTS: Dict[str, Dict[str, Any]] = {
    REFERENCE: {"protection": "plaintext"},
    "smpc": {"protection": "smpc"},
    "shamir": {"protection": "smpc", "smpc_scheme": "shamir"},
    "he-ckks": {"protection": "he", "he_scheme": "ckks-layers"},
    **{f"he-bfv-{bits}": {"protection": "he", "he_scheme": "bfv", "bits": bits} for bits in (16, 12, 8)},
}
Row = Dict[str, Any]


def measure(
    settings: Settings, variants: Sequence[str], seeds: int, progress: Progress = None
) -> Iterator[Row]:
    """Yield one row for each seed and variant, plaintext first, as soon as it is measured.

    A row holds the metrics after each round on the common test set, and means over rounds: bytes up per
    hospital as a multiple of the float32 state, and the share of a round's seconds (training included)
    that protecting, combining and opening took.
    """
    for name in variants:
        if name not in VARIANTS:
            raise SettingsError(f"unknown variant {name!r}: {nearest(name, VARIANTS)}")
    for seed in range(settings.seed, settings.seed + seeds):
        federated = load_federated_data(settings.replace(seed=seed), progress)
        for name in (REFERENCE, *(v for v in variants if v != REFERENCE)):
            chosen = settings.replace(seed=seed, **VARIANTS[name])
            assembly = run_through(chosen, federated, f"seed {seed}, {name}", progress)
            records = assembly.federation.state.records
            yield {
                "seed": seed,
                "variant": name,
                "accuracy": [r.metric("accuracy") for r in records],
                "balanced_accuracy": [r.metric("balanced_accuracy") for r in records],
                "upload": _upload(records) / (4 * assembly.layout.size),
                "share": _share(records),
                "clipped": max(r.mean_clipped or 0.0 for r in records),
            }


def variants_table(rows: Sequence[Row]) -> Table:
    """Return a table with one line a variant: means over seeds, ± the standard deviation over them.

    Metrics are in percent for plaintext, and for the others in percentage points of difference from it,
    taken seed by seed, so that what seeds have in common cancels.
    """
    table = Table(title="Final metrics of plaintext in %, of the others the difference in points")
    table.add_column("variant")
    for header in ("accuracy", "balanced accuracy", "upload × float32", "share of a round"):
        table.add_column(header, justify="right")
    by_variant = _by_variant(rows)
    for name, found in by_variant.items():
        cells = []
        for key in ("accuracy", "balanced_accuracy"):
            final, reference = (_final(of, key)[: len(found)] for of in (found, by_variant[REFERENCE]))
            cells.append(over_seeds(final, 2) if name == REFERENCE else over_seeds(final - reference, 2, "+"))
        upload, share = (np.mean([row[key] for row in found]) for key in ("upload", "share"))
        table.add_row(name, *cells, f"{upload:.2f}", f"{share:.2%}")
    return table


def curves(rows: Sequence[Row], key: str) -> Dict[str, np.ndarray]:
    """Return a metric by variant: float array of shape (seeds, rounds), NaN where not evaluated."""
    return {
        name: np.array([row[key] for row in found], dtype=float) for name, found in _by_variant(rows).items()
    }


def _by_variant(rows: Sequence[Row]) -> Dict[str, List[Row]]:
    found: Dict[str, List[Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return found


def _final(rows: Sequence[Row], key: str) -> np.ndarray:
    return 100 * np.array([row[key][-1] for row in rows], dtype=float)


def _upload(records: Sequence[RoundRecord]) -> float:
    return float(np.mean([n for r in records for n in r.bytes_up.values()]))


def _share(records: Sequence[RoundRecord]) -> float:
    protecting = sum(r.seconds.protect + r.seconds.combine + r.seconds.open for r in records)
    return protecting / sum(r.seconds.total for r in records)
