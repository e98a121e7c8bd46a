"""Where federated training lies between its two ends, centralised and local-only, over some seeds.

Each way is measured on the common test set, and at each hospital on its own test photographs, which together
are the common ones. The models that hospitals keep for themselves (``personal``, ``fine_tune_epochs``) are
measured at home only: none of them is meant for another hospital's patients.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from rich.table import Table

from skinfl.assembly import Assembly, FederatedData, assemble, load_federated_data, personal_plan
from skinfl.data.sources import Progress
from skinfl.errors import SettingsError
from skinfl.federation.events import RoundFinished
from skinfl.metrics import mean_of_known
from skinfl.report.wording import UNDEFINED, over_seeds
from skinfl.settings import Settings
from skinfl.studies.baselines import Baseline, centralised, local_only

#: of a way's figures, those that tables show, and what they are called there
SHOWN = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
#: of these, those that have a table by hospital
AT_HOME = ("auc", "balanced_accuracy")
PERSONAL = "personalised"


def scale(
    settings: Settings, seeds: int, ways: Sequence[str] = (), progress: Progress = None
) -> Iterator[Dict[str, Any]]:
    """Yield one row a seed and way: ``seed``, ``way``, ``metrics`` and ``at_hospitals``.

    ``ways``: of :data:`WAYS`; empty: all. ``metrics`` are those on the common test set, None for the models
    that hospitals keep for themselves, which are a row of their own where there are any.

    Raises :class:`~skinfl.errors.SettingsError` for another way.
    """
    for way in ways:
        if way not in WAYS:
            raise SettingsError(f"--ways {way}: must be some of {', '.join(WAYS)}, with commas between them")
    for seed in range(settings.seed, settings.seed + seeds):
        chosen = settings.replace(seed=seed)
        federated = load_federated_data(chosen, progress)
        for way in dict.fromkeys(ways or WAYS):
            for found in WAYS[way](chosen, federated, progress):
                yield {
                    "seed": seed,
                    "way": found.name,
                    "metrics": found.metrics,
                    "at_hospitals": found.at_hospitals,
                }


def run_through(
    settings: Settings, federated: FederatedData, label: str, progress: Progress = None
) -> Assembly:
    """Run a federation to its end, leaving nothing on disk; its records are what it is run for."""
    assembly = assemble(settings, federated)
    for event in assembly.federation.run():
        if isinstance(event, RoundFinished) and progress is not None:
            progress(event.round, settings.rounds, label)
    return assembly


def _federated(settings: Settings, federated: FederatedData, progress: Progress) -> List[Baseline]:
    assembly = run_through(settings, federated, f"federated ({settings.strategy})", progress)
    state = assembly.federation.state
    kept = state.kept_record
    found = []
    if not assembly.layout.personal:  # else there is no network that is the same for all
        found.append(Baseline("federated", kept.metrics, kept.hospital_metrics))
    if personal_plan(settings).evaluated:
        found.append(Baseline(PERSONAL, None, state.records[-1].personal_metrics))
    return found


#: by name: each gives one row, or two where hospitals have models of their own beside the common one
WAYS: Dict[str, Callable[[Settings, FederatedData, Progress], List[Baseline]]] = {
    "centralised": lambda *given: [centralised(*given)],
    "federated": _federated,
    "local-only": lambda *given: [local_only(*given)],
}


def scale_tables(rows: List[Dict[str, Any]]) -> List[Table]:
    """Return tables by way, of means over seeds: on the common test set, and at each hospital."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    common = Table(title="On the common test set")
    common.add_column("training")
    for title in SHOWN.values():
        common.add_column(title, justify="right")
    for way in ways:
        found = [row["metrics"] for row in rows if row["way"] == way and row["metrics"] is not None]
        if found:
            common.add_row(way, *(_shown([metrics[name] for metrics in found]) for name in SHOWN))
    return [common, *(_at_home(rows, ways, name) for name in AT_HOME)]


def _at_home(rows: List[Dict[str, Any]], ways: List[str], name: str) -> Table:
    """Return a table of hospitals by way, of one figure on each hospital's own test photographs."""
    table = Table(title=f"At each hospital: {SHOWN[name]} on its own test photographs")
    table.add_column("hospital")
    for way in ways:
        table.add_column(way, justify="right")
    by_way: Dict[str, Dict[str, List[Optional[float]]]] = {way: {} for way in ways}
    for row in rows:
        for hospital, metrics in row["at_hospitals"].items():
            by_way[row["way"]].setdefault(hospital, []).append(metrics[name])
    hospitals = list(dict.fromkeys(hospital for found in by_way.values() for hospital in found))
    for hospital in hospitals:
        table.add_row(hospital, *(_shown(by_way[way].get(hospital, [])) for way in ways))
    if len(hospitals) > 1:
        table.add_section()
        means = [mean_of_known([mean_of_known(found) for found in by_way[way].values()]) for way in ways]
        table.add_row("mean of them", *(_shown([mean]) for mean in means))
    return table


def _shown(values: Sequence[Optional[float]]) -> str:
    """Return the mean over seeds in words; a hospital without one class in its test set has no AUC."""
    known = [value for value in values if value is not None]
    return over_seeds(known, 3) if known else UNDEFINED
