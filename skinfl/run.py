"""One training run: from settings to a folder with results, checkpoint, figures and a report."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.assembly import Assembly, FederatedData, assemble, model_options
from skinfl.data.classes import described
from skinfl.data.dataset import LesionDataset
from skinfl.errors import CheckpointError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.evaluation import predict
from skinfl.federation.events import Event, Listener, RoundFinished
from skinfl.federation.records import RoundRecord, Seconds, write_records
from skinfl.federation.rounds import RunState
from skinfl.federation.update import has_batchnorm
from skinfl.files import write_json
from skinfl.metrics import spread
from skinfl.models.store import save_model
from skinfl.paths import PathLike
from skinfl.predictions import ClassName, Predictions, write_predictions
from skinfl.report import examples, findings, html, page, plots
from skinfl.run_folder import (
    CHECKPOINT,
    CONFIG,
    FIGURES,
    MODEL,
    PREDICTIONS,
    RESULT,
    ROUNDS,
    TRAINED_ON,
    RunFolder,
    claimed,
)
from skinfl.settings import Settings
from skinfl.use.evaluating import write_learnt
from skinfl.version import __version__

__all__ = ["CHECKPOINT", "CONFIG", "FIGURES", "MODEL", "RESULT", "ROUNDS", "Outcome", "run"]
KIND = "train"


class Outcome(NamedTuple):
    """What a run gave: ``result`` is the content of ``result.json``, ``model`` the final state vector.

    ``records`` say how each round went, ``predictions`` what the final model says of the common test set.
    """

    result: Dict[str, Any]
    model: np.ndarray
    out: Path
    records: Tuple[RoundRecord, ...]
    predictions: Predictions


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

    More rounds are allowed, and another place of the data where the checkpoint knows their digest.
    """
    checkpoint = load_checkpoint(path)
    free = {"rounds", "plugins", *(("data",) if checkpoint.data else ())}
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
    test = federated.test
    found = predictions_of(settings, test, assembly, hospitals_of(federated))
    result = summarise(settings, federated, assembly, out.name)
    result.update(findings.summary(found, settings.seed, result.get("thresholds")))
    write_json(out / RESULT, result)
    write_model(out / MODEL, settings, federated.dataset, assembly)
    write_learnt(out / TRAINED_ON, federated.dataset, federated.split.train)
    write_predictions(out / PREDICTIONS, found)
    write_pages(out, result, state.records, found, test)
    return Outcome(result, state.server.model, out, state.records, found)


def write_pages(
    out: Path,
    result: Mapping[str, Any],
    records: Sequence[RoundRecord],
    found: Optional[Predictions],
    test: Optional[LesionDataset],
) -> None:
    """Draw a run's figures and write its report, with examples of ``test``, which ``found`` answers for."""
    figures = plots.draw_run(out / FIGURES, result, records, found)
    shown = page.Html()
    if found is not None and test is not None and test.images.dtype == np.uint8:
        shown = examples.section(found, test.images, result["config"]["seed"], test.synthetic)
    html.write_report(out, result, records, figures, shown)


def write_model(file: Path, settings: Settings, dataset: LesionDataset, assembly: Assembly) -> None:
    """Write the network as the last round left it; of ``dataset``, image shape and classes are needed."""
    state = assembly.federation.state
    assembly.layout.write(assembly.model, state.server.model)
    channels, size, _ = dataset.image_shape
    normalisation = state.begun.normalisation
    save_model(
        file,
        assembly.model,
        name=settings.model,
        in_channels=channels,
        image_size=size,
        classes=len(dataset.classes),
        class_names=dataset.classes,
        class_info=described(dataset.class_info),
        doconv=settings.doconv,
        options=model_options(settings),
        normalisation_mean=normalisation.mean,
        normalisation_std=normalisation.std,
    )


def hospitals_of(federated: FederatedData) -> np.ndarray:
    """Return the hospital that holds each photograph of the test set, ``""`` where none does."""
    holder = np.full(len(federated.dataset), "", dtype=object)
    for name, held in federated.partition.items():
        holder[held] = name
    return holder[federated.split.test]


def predictions_of(
    settings: Settings, test: LesionDataset, assembly: Assembly, hospitals: Optional[np.ndarray] = None
) -> Predictions:
    """Return what the network says of the test set, as the last round left it.

    ``hospitals``: who holds each photograph, as :func:`hospitals_of` returns it; None where nobody knows.
    """
    state = assembly.federation.state
    assembly.layout.write(assembly.model, state.server.model)
    local_batchnorm = settings.batchnorm == "local" and has_batchnorm(assembly.model)
    probabilities, _ = predict(
        assembly.model, test, state.begun.normalisation, batch_statistics=local_batchnorm
    )
    return Predictions(
        tuple(ClassName(*each) for each in described(test.class_info)),
        probabilities,
        test.labels,
        test.image_ids,
        test.lesion_ids,
        np.full(len(test), "", dtype=object) if hospitals is None else hospitals,
        test.sites,
        test.sexes,
        test.ages,
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
        "class_info": [each._asdict() for each in described(dataset.class_info)],
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
