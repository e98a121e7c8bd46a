"""The same training under several protections, side by side."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np

from skinfl.assembly import FederatedData, protection_of
from skinfl.errors import CheckpointError, SettingsError
from skinfl.federation.events import Listener
from skinfl.files import write_json
from skinfl.paths import PathLike
from skinfl.report import findings, html, plots
from skinfl.run import Outcome, run
from skinfl.run_folder import CHECKPOINT, COMPARISON, FIGURES, RunFolder, claimed
from skinfl.settings import Settings

KIND = "compare"
REFERENCE = "plaintext"
#: what is compared with it where nothing else is asked for
DEFAULT = ("smpc", "he")


def compare(
    settings: Settings,
    federated: FederatedData,
    out: Union[PathLike, RunFolder],
    *,
    protections: Optional[Sequence[str]] = None,
    listeners: Callable[[str], Sequence[Listener]] = lambda protection: (),
    resume: bool = False,
) -> Dict[str, Any]:
    """Run plaintext and each of ``protections`` with the same seeds; return ``compare.json``'s content.

    Each run is left in ``out/<protection>``; ``out`` is a path or a folder claimed already. ``protections``
    are secret sharing and homomorphic encryption where none are named. ``listeners(protection)`` gives a run
    its listeners. With ``resume``, the protections are those it was begun with, and runs that left a
    checkpoint go on from it.
    """
    with claimed(out, KIND, resume) as folder:
        names = chosen(protections, folder)
        for name in names:  # an impossible one is refused before hours are spent on those before it
            protection_of(settings.replace(protection=name)).setup(tuple(federated.partition))
        folder.begin(settings, protections=names)
        return _compare(settings, federated, folder, names, listeners)


def chosen(protections: Optional[Sequence[str]], folder: RunFolder) -> List[str]:
    """Return what is compared with plaintext; a comparison is resumed with what it was begun with."""
    if isinstance(protections, str):
        raise SettingsError(f"protections = {protections!r}: give a list of names, as [{protections!r}]")
    begun = folder.about.get("options", {}).get("protections")
    asked = [p for p in dict.fromkeys(protections or ()) if p != REFERENCE]
    if begun is None:
        return list(DEFAULT) if protections is None else asked
    if protections is not None and asked != begun:
        raise CheckpointError(
            f"{folder.path} was begun with --protections {','.join(begun) or REFERENCE}: resume without "
            "--protections, or start a new comparison in another --out"
        )
    return begun


def _compare(
    settings: Settings,
    federated: FederatedData,
    folder: RunFolder,
    protections: Sequence[str],
    listeners: Callable[[str], Sequence[Listener]],
) -> Dict[str, Any]:
    out = folder.path
    outcomes: List[Outcome] = []
    for protection in (REFERENCE, *protections):
        run_folder = out / protection
        outcomes.append(
            run(
                settings.replace(protection=protection),
                federated,
                run_folder,
                listeners=listeners(protection),
                resume=folder.resumed and (run_folder / CHECKPOINT).exists(),
            )
        )
    names = [o.result["protection"] for o in outcomes]
    # of parts that stay at hospitals there is no one network to answer for the test set
    answers = {name: o.predictions for name, o in zip(names, outcomes) if o.predictions is not None}
    changes = {
        name: findings.differences(answers[name], answers[names[0]], settings.seed)
        for name in names[1:]
        if name in answers
    }
    comparison = {
        "runs": [o.result for o in outcomes],
        "differences": {
            name: float(np.abs(o.model - outcomes[0].model).max()) for name, o in zip(names, outcomes)
        },
        "metric_differences": changes,
        "verdict": findings.verdicts(names[0], changes) if changes else [],
    }
    write_json(out / COMPARISON, comparison)
    figures = plots.draw_comparison(
        out / FIGURES,
        comparison,
        {name: o.records for name, o in zip(names, outcomes)},
        answers,
    )
    html.write_comparison_report(out, comparison, figures)
    return comparison
