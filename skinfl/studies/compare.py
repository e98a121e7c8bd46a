"""The same training under several protections, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from skinfl.assembly import FederatedData
from skinfl.federation.events import Listener
from skinfl.files import write_json, write_text
from skinfl.report import html, plots
from skinfl.run import CHECKPOINT, CONFIG, FIGURES, Outcome, run
from skinfl.settings import Settings, to_toml

COMPARISON = "compare.json"
REFERENCE = "plaintext"


def compare(
    settings: Settings,
    material: FederatedData,
    out: Path,
    *,
    protections: Sequence[str] = ("smpc", "he"),
    listeners: Callable[[str], Sequence[Listener]] = lambda protection: (),
    resume: bool = False,
) -> Dict[str, Any]:
    """Run plaintext and each of ``protections`` with the same seeds; return ``compare.json``'s content.

    Each run is left in ``out/<protection>``. ``listeners(protection)`` gives a run its listeners. With
    ``resume``, runs that left a checkpoint go on from it.
    """
    write_text(out / CONFIG, to_toml(settings))
    outcomes: List[Outcome] = []
    for protection in (REFERENCE, *(p for p in protections if p != REFERENCE)):
        folder = out / protection
        outcomes.append(
            run(
                settings.replace(protection=protection),
                material,
                folder,
                listeners=listeners(protection),
                resume=resume and (folder / CHECKPOINT).exists(),
            )
        )
    comparison = {
        "runs": [o.result for o in outcomes],
        "differences": {
            o.result["protection"]: float(np.abs(o.model - outcomes[0].model).max()) for o in outcomes
        },
    }
    write_json(out / COMPARISON, comparison)
    figures = plots.draw_comparison(out / FIGURES, comparison)
    html.write_comparison_report(out, comparison, figures)
    return comparison
