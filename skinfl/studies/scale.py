"""Where federated training lies between its two ends, centralised and local-only, over some seeds."""

from __future__ import annotations

from typing import Any, Dict, List

import numpy as np
from rich.table import Table

from skinfl.assembly import Assembly, FederatedData, assemble, load_federated_data
from skinfl.data.sources import Progress
from skinfl.federation.events import RoundFinished
from skinfl.settings import Settings
from skinfl.studies.baselines import centralised, local_only

ENDS = ("centralised", "federated", "local-only")


def scale(settings: Settings, seeds: int, progress: Progress = None) -> List[Dict[str, Any]]:
    """Return one row a seed: the seed and the balanced accuracy on the common test set of each end."""
    rows = []
    for seed in range(settings.seed, settings.seed + seeds):
        chosen = settings.replace(seed=seed)
        federated = load_federated_data(chosen, progress)
        rows.append(
            {
                "seed": seed,
                "centralised": centralised(chosen, federated, progress).metrics["balanced_accuracy"],
                "federated": _federated(chosen, federated, progress),
                "local-only": local_only(chosen, federated, progress).metrics["balanced_accuracy"],
            }
        )
    return rows


def run_through(
    settings: Settings, federated: FederatedData, label: str, progress: Progress = None
) -> Assembly:
    """Run a federation to its end, leaving nothing on disk; its records are what it is run for."""
    assembly = assemble(settings, federated)
    for event in assembly.federation.run():
        if isinstance(event, RoundFinished) and progress is not None:
            progress(event.round, settings.rounds, label)
    return assembly


def _federated(settings: Settings, federated: FederatedData, progress: Progress) -> float:
    assembly = run_through(settings, federated, f"federated ({settings.strategy})", progress)
    kept = assembly.federation.state.kept_record.metrics or {}  # what may be kept is evaluated
    return float(kept["balanced_accuracy"])


def scale_table(rows: List[Dict[str, Any]]) -> Table:
    """Return a table of balanced accuracies by seed, with mean and standard deviation below."""
    table = Table(title="Balanced accuracy on the common test set")
    table.add_column("seed", justify="right")
    for end in ENDS:
        table.add_column(end, justify="right")
    for row in rows:
        table.add_row(str(row["seed"]), *(f"{row[end]:.3f}" for end in ENDS))
    if len(rows) > 1:
        values = {end: [row[end] for row in rows] for end in ENDS}
        table.add_section()
        table.add_row("mean", *(f"{np.mean(values[end]):.3f}" for end in ENDS))
        table.add_row("sd", *(f"{np.std(values[end], ddof=1):.3f}" for end in ENDS))
    return table
