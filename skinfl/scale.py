"""Where federated training lies between its two ends, centralised and local-only, over some seeds."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import numpy as np
from rich.table import Table

from skinfl.assembly import Material, assemble, load_material
from skinfl.baselines import centralised, local_only
from skinfl.federation.events import RoundFinished
from skinfl.settings import Settings

ENDS = ("centralised", "federated", "local-only")


def scale(
    settings: Settings, seeds: int, progress: Optional[Callable[[int, int, str], None]] = None
) -> List[Dict[str, Any]]:
    """Return one row a seed: the seed and the balanced accuracy on the common test set of each end."""
    rows = []
    for seed in range(settings.seed, settings.seed + seeds):
        chosen = settings.replace(seed=seed)
        material = load_material(chosen, progress)
        rows.append(
            {
                "seed": seed,
                "centralised": centralised(chosen, material, progress).metrics["balanced_accuracy"],
                "federated": _federated(chosen, material, progress),
                "local-only": local_only(chosen, material, progress).metrics["balanced_accuracy"],
            }
        )
    return rows


def _federated(
    settings: Settings, material: Material, progress: Optional[Callable[[int, int, str], None]]
) -> float:
    metrics = None
    for event in assemble(settings, material).federation.run():
        if isinstance(event, RoundFinished):
            metrics = event.record["metrics"] or metrics
            if progress is not None:
                progress(event.round, settings.rounds, f"federated ({settings.strategy})")
    return metrics["balanced_accuracy"]


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
