"""One training run: from settings to a folder with results, checkpoint, figures and a report."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from torch import nn

from skinfl.assembly import Assembly, FederatedData, assemble, model_options, personal_plan
from skinfl.data.dataset import LesionDataset
from skinfl.data.normalisation import Normalisation
from skinfl.errors import CheckpointError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.events import Event, Listener, RoundFinished
from skinfl.federation.records import RoundRecord, Seconds, write_records
from skinfl.federation.rounds import RunState
from skinfl.files import write_json
from skinfl.metrics import spread
from skinfl.models.store import save_model
from skinfl.paths import PathLike
from skinfl.report import html, plots
from skinfl.run_folder import CHECKPOINT, CONFIG, FIGURES, MODEL, PERSONAL, RESULT, ROUNDS, RunFolder, claimed
from skinfl.settings import Settings, bound_to_rounds
from skinfl.version import __version__

__all__ = ["CHECKPOINT", "CONFIG", "FIGURES", "MODEL", "RESULT", "ROUNDS", "Outcome", "run"]
KIND = "train"


class Outcome(NamedTuple):
    """What a run gave: ``result`` is the content of ``result.json``, ``model`` the final state vector."""

    result: Dict[str, Any]
    model: np.ndarray
    out: Path


def run(
    settings: Settings,
    federated: FederatedData,
    out: Union[PathLike, RunFolder],
    *,
    listeners: Sequence[Listener] = (),
    resume: bool = False,
) -> Outcome:
    """Train as ``settings`` say and leave everything in ``out``, a path or a folder claimed already.

    With ``resume`` it goes on from the checkpoint in ``out``; the result is bit for bit that of a run
    that was not interrupted. Raises a :class:`~skinfl.errors.SkinflError` for whatever a user can mend;
    where that is found before the first round, nothing is left of a new run.
    """
    with claimed(out, KIND, resume) as folder:
        return _run(settings, federated, folder, listeners)


def _run(
    settings: Settings, federated: FederatedData, folder: RunFolder, listeners: Sequence[Listener]
) -> Outcome:
    out = folder.path
    digest = federated.dataset.digest()
    checkpoint = None
    if folder.resumed:
        checkpoint = load_matching(out / CHECKPOINT, settings)
        _check_data(out, checkpoint, digest)
    assembly = assemble(settings, federated, checkpoint)
    folder.begin(settings)
    _save(out, settings, assembly, digest)

    def save(event: Event) -> None:
        if isinstance(event, RoundFinished):
            _save(out, settings, assembly, digest)

    # The checkpoint is written first: what a later listener shows as done can be resumed from.
    for event in assembly.federation.run():
        for listener in (save, *listeners):
            listener(event)
    return _finish(settings, federated, assembly, out)


def load_matching(path: Path, settings: Settings) -> Checkpoint:
    """Load a checkpoint; refuse one of another configuration.

    More rounds are allowed where nothing that was chosen depends on how many there are, and another place of
    the data where the checkpoint knows their digest.
    """
    checkpoint = load_checkpoint(path)
    free = {"rounds", "plugins", *(("data",) if checkpoint.data else ())}
    bound = bound_to_rounds(settings)
    stored_rounds = checkpoint.settings.get("rounds")
    if bound and stored_rounds != settings.rounds:
        raise CheckpointError(
            f"{path} was written with rounds = {stored_rounds}, which {bound} runs over from the "
            f"first on: resume with these, or start a new run of {settings.rounds} rounds in another --out"
        )
    for key, value in settings.asdict().items():
        # a setting that came later, with a release or a plugin, had its default
        default = value if key in checkpoint.settings else getattr(settings.replace(**{key: None}), key)
        stored = checkpoint.settings.get(key, default)
        if key not in free and stored != value:
            raise CheckpointError(
                f"{path} was written with {key} = {stored!r}, not {value!r}: "
                "resume with the same settings, or start a new run in another --out"
            )
    if checkpoint.state.round > settings.rounds:
        raise CheckpointError(
            f"{path} is of round {checkpoint.state.round}, beyond rounds = {settings.rounds}: ask for more"
        )
    return checkpoint


def _check_data(out: Path, checkpoint: Checkpoint, digest: str) -> None:
    """Refuse data other than those of the rounds before: they would be split otherwise, and leak."""
    if checkpoint.data != digest:
        raise CheckpointError(
            f"images were added, removed, relabelled or changed since {out} began: restore them, or give "
            "with --data where they lie as they were, or start a new run in another --out"
        )


def _save(out: Path, settings: Settings, assembly: Assembly, digest: str) -> None:
    state = assembly.federation.state
    checkpoint = Checkpoint(state, assembly.transport.state(), settings.asdict(), digest)
    save_checkpoint(out / CHECKPOINT, checkpoint)
    write_records(out / ROUNDS, state.records)


def _finish(settings: Settings, federated: FederatedData, assembly: Assembly, out: Path) -> Outcome:
    state = assembly.federation.state
    result = summarise(settings, federated, assembly, out.name)
    write_json(out / RESULT, result)
    write_models(out, settings, federated.dataset, assembly)
    figures = plots.draw_run(out / FIGURES, result, state.records)
    html.write_report(out, result, state.records, figures)
    return Outcome(result, state.server.model, out)


def write_models(out: Path, settings: Settings, dataset: LesionDataset, assembly: Assembly) -> None:
    """Write the network as the last round left it, and each hospital's own where it has one and lets it out.

    Where parts of it stay at hospitals there is no common one. Of ``dataset``, image shape and classes are
    needed.
    """
    state = assembly.federation.state
    if not assembly.layout.personal:
        assembly.layout.write(assembly.model, state.server.model)
        write_model(out / MODEL, settings, dataset, assembly.model, state.begun.normalisation)
    if personal_plan(settings).evaluated:
        for name, model in assembly.transport.personal_models(state.common):
            file = out / PERSONAL / f"{name}.npz"
            file.parent.mkdir(exist_ok=True)
            write_model(file, settings, dataset, model, state.begun.normalisation)


def write_model(
    file: Path, settings: Settings, dataset: LesionDataset, model: nn.Module, normalisation: Normalisation
) -> None:
    """Write a network; of ``dataset``, image shape and classes are needed."""
    channels, size, _ = dataset.image_shape
    save_model(
        file,
        model,
        name=settings.model,
        in_channels=channels,
        image_size=size,
        classes=len(dataset.classes),
        class_names=dataset.classes,
        doconv=settings.doconv,
        options=model_options(settings),
        normalisation_mean=normalisation.mean,
        normalisation_std=normalisation.std,
    )


def summarise(settings: Settings, federated: FederatedData, assembly: Assembly, name: str) -> Dict[str, Any]:
    """Return the content of ``result.json``."""
    state = assembly.federation.state
    last = state.records[-1]
    return {
        "name": name,
        "protection": settings.protection,
        "strategy": settings.strategy,
        "data": describe_data(federated),
        "partition": describe_partition(federated),
        "workers": assembly.workers,
        "hospitals": len(federated.partition),
        "rounds": state.round,
        "rounds_with_update": sum(bool(r.trained) for r in state.records),
        "final": last.metrics,
        "hospitals_together": last.hospitals_together,
        "hospital_final": last.hospital_metrics,
        "spread": spread(last.hospital_metrics),
        "personal": _personal(settings, assembly, last),
        "bytes": _bytes(state.records, assembly),
        "seconds": _seconds(state.records),
        "max_abs_difference_from_plaintext_sum": max_difference(state),
        "max_abs_difference_note": (
            "the opened sum against the plaintext sum of the same contributions, largest over all rounds: "
            "only a simulation, which holds both, can compare them"
        ),
        "left_out": [
            {"round": r.round, "hospital": hospital, "reason": reason}
            for r in state.records
            for hospital, reason in r.left_out.items()
        ],
        "protection_details": assembly.protection.describe(),
        "aggregator_sees": assembly.protection.aggregator_sees,
        "config": settings.asdict(),
        "versions": versions(),
    }


def _personal(settings: Settings, assembly: Assembly, last: RoundRecord) -> Optional[Dict[str, Any]]:
    """Return how the hospitals' own models do, None where they have none.

    ``common_model``: whether there is one for all; else all metrics are of the hospitals' own.
    """
    if not personal_plan(settings).evaluated:
        return None
    return {
        "kind": settings.personal,
        "fine_tune_epochs": settings.fine_tune_epochs,
        "common_model": not assembly.layout.personal,
        "hospitals_together": last.personal_together,
        "hospital_final": last.personal_metrics,
        "spread": spread(last.personal_metrics),
    }


def describe_data(federated: FederatedData) -> Dict[str, Any]:
    """Return what reports say of the data."""
    dataset, split = federated.dataset, federated.split
    return {
        "name": dataset.name,
        "images": len(dataset),
        "synthetic": dataset.synthetic,
        "leaked_lesions": split.leaked_lesions,
        "protocol": split.protocol,
        "train_images": len(split.train),
        "test_images": len(split.test),
        "classes": list(dataset.classes),
    }


def describe_partition(federated: FederatedData) -> Dict[str, Any]:
    """Return how many photographs of each class each hospital holds."""
    classes = federated.dataset.classes
    return {
        name: {
            part: {c: int(n) for c, n in zip(classes, held.class_counts())}
            for part, held in (("train", federated.train_of(name)), ("test", federated.test_of(name)))
        }
        for name in federated.partition
    }


def max_difference(state: RunState) -> Optional[float]:
    """Return the largest difference from the plaintext sum over all rounds that opened one."""
    found = [r.max_abs_difference_from_plaintext_sum for r in state.records]
    return max((d for d in found if d is not None), default=None)


def versions() -> Dict[str, str]:
    """Return the versions that the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"skinfl": __version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "tenseal", "syft", "sympc"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _bytes(records: Sequence[RoundRecord], assembly: Assembly) -> Dict[str, Any]:
    """Return mean bytes per hospital and round; ``float32`` is the state as plain float32 values."""
    return {
        "up_per_hospital_per_round": _mean(n for r in records for n in r.bytes_up.values()),
        "down_per_hospital_per_round": _mean(n for r in records for n in r.bytes_down.values()),
        "float32": 4 * assembly.layout.size,
    }


def _seconds(records: Sequence[RoundRecord]) -> Dict[str, float]:
    """Return seconds by phase, summed over rounds and hospitals, and their total."""
    by_phase = Seconds(*(float(sum(phase)) for phase in zip(*(r.seconds for r in records))))
    return {**by_phase._asdict(), "total": by_phase.total}


def _mean(values: Iterable[float]) -> float:
    found: List[float] = list(values)
    return float(np.mean(found)) if found else 0.0
