"""One training run: from settings to a folder with results, checkpoint, figures and a report."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.assembly import (
    Assembly,
    FederatedData,
    TrainingParts,
    assemble,
    model_options,
    personal_plan,
    training_parts,
)
from skinfl.data.classes import described
from skinfl.data.dataset import LesionDataset
from skinfl.data.normalisation import Normalisation
from skinfl.errors import CheckpointError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.events import Event, Listener, RoundFinished
from skinfl.federation.records import RoundRecord, Seconds, write_records
from skinfl.federation.rounds import Federation, RunState
from skinfl.federation.validation import (
    Malignant,
    malignant_scores,
    tempered,
    threshold_at_sensitivity,
)
from skinfl.files import write_json
from skinfl.metrics import evaluate_predictions, expected_calibration_error, spread
from skinfl.models.pretrained import describe
from skinfl.models.registry import ALL
from skinfl.models.store import save_model
from skinfl.networks import Learner, whole
from skinfl.paths import PathLike
from skinfl.predictions import Predictions, write_predictions
from skinfl.report import examples, findings, html, page, plots
from skinfl.report.wording import classes_of
from skinfl.run_folder import (
    CHECKPOINT,
    CONFIG,
    FIGURES,
    MODEL,
    PERSONAL,
    PREDICTIONS,
    RESULT,
    ROUNDS,
    TRAINED_ON,
    RunFolder,
    claimed,
)
from skinfl.settings import OF_THE_MACHINE, Settings, bound_to_rounds
from skinfl.use.evaluating import answers_for, write_learnt
from skinfl.version import __version__

__all__ = ["CHECKPOINT", "CONFIG", "FIGURES", "MODEL", "RESULT", "ROUNDS", "Outcome", "run"]
KIND = "train"
#: in a checkpoint, beside the settings
_WEIGHTS = "pretrained_sha256"


class Outcome(NamedTuple):
    """What a run gave: ``result`` is the content of ``result.json``, ``model`` the kept state vector.

    ``records`` say how each round went, ``predictions`` what the kept model says of the common test set; None
    where parts of it stay at hospitals.
    """

    result: Dict[str, Any]
    model: np.ndarray
    out: Path
    records: Tuple[RoundRecord, ...]
    predictions: Optional[Predictions]


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
    if checkpoint is not None:
        check_weights(out, checkpoint, assembly)
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
    the data where the checkpoint knows their digest; and another device, on which results differ in their
    last bits.
    """
    checkpoint = load_checkpoint(path)
    free = {"rounds", "plugins", *OF_THE_MACHINE, *(("data",) if checkpoint.data else ())}
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


def recorded(settings: Settings, assembly: Assembly) -> Dict[str, Any]:
    """Return the settings as a checkpoint keeps them, with what identifies the pretrained weights."""
    return {**settings.asdict(), _WEIGHTS: assembly.learner.sha256}


def check_weights(out: Path, checkpoint: Checkpoint, assembly: Assembly) -> None:
    """Refuse pretrained weights other than those of the rounds before."""
    if checkpoint.settings.get(_WEIGHTS, "") != assembly.learner.sha256:
        raise CheckpointError(
            f"the pretrained weights were changed since {out} began: restore them, or start a new run in "
            "another --out"
        )


def _save(out: Path, settings: Settings, assembly: Assembly, digest: str) -> None:
    state = assembly.federation.state
    checkpoint = Checkpoint(state, assembly.transport.state(), recorded(settings, assembly), digest)
    save_checkpoint(out / CHECKPOINT, checkpoint)
    write_records(out / ROUNDS, state.records)


def _finish(settings: Settings, federated: FederatedData, assembly: Assembly, out: Path) -> Outcome:
    state = assembly.federation.state
    result = summarise(settings, federated, assembly, out.name)
    write_learnt(out / TRAINED_ON, federated.dataset, federated.split.train)
    found = leave(out, settings, federated.dataset, assembly, result, federated.test, hospitals_of(federated))
    return Outcome(result, state.kept.model, out, state.records, found)


def leave(
    out: Path,
    settings: Settings,
    dataset: LesionDataset,
    assembly: Assembly,
    result: Dict[str, Any],
    test: Optional[LesionDataset],
    hospitals: Optional[np.ndarray] = None,
) -> Optional[Predictions]:
    """Write what a finished run leaves in its folder, and return the kept network's answers for ``test``.

    ``result`` is what :func:`summarise` gave; what the answers tell is added. There are none without a common
    test set or a common network: then the sums over hospitals speak. Of ``dataset``, image shape and classes
    are needed; ``hospitals`` is as in :func:`predictions_of`.
    """
    found = None
    if test is not None and not assembly.layout.personal:
        found = predictions_of(test, assembly, hospitals)
        result.update(findings.summary(found, settings.seed, result.get("thresholds")))
    elif result["hospitals_together"] is not None:
        confusion = result["hospitals_together"]["confusion"]
        result["sentences"] = findings.sentences(confusion, classes_of(result["data"]))
    write_json(out / RESULT, result)
    write_models(out, settings, dataset, assembly)
    if found is not None:
        write_predictions(out / PREDICTIONS, found)
    write_pages(out, result, assembly.federation.state.records, found, test)
    return found


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
    if found is not None and test is not None:
        shown = examples.section(found, test.photographs.images, result["config"]["seed"], test.synthetic)
    html.write_report(out, result, records, figures, shown)


def write_models(out: Path, settings: Settings, dataset: LesionDataset, assembly: Assembly) -> None:
    """Write the network that is kept, and each hospital's own where it has one and lets it out.

    Where parts of it stay at hospitals there is no common one. Of ``dataset``, image shape and classes are
    needed.
    """
    state = assembly.federation.state
    learner, normalisation = assembly.learner, state.begun.normalisation
    if not assembly.layout.personal:
        assembly.layout.write(assembly.model, state.kept.model)
        write_model(out / MODEL, settings, dataset, learner, normalisation, temperature=temperature_of(state))
    if personal_plan(settings).evaluated:
        for name, model in assembly.transport.personal_models(state.kept_common):
            file = out / PERSONAL / f"{name}.npz"
            file.parent.mkdir(exist_ok=True)
            write_model(file, settings, dataset, learner._replace(model=model), normalisation)


def write_model(
    file: Path,
    settings: Settings,
    dataset: LesionDataset,
    learner: Learner,
    normalisation: Normalisation,
    *,
    temperature: float = 1.0,
) -> None:
    """Write the whole network that ``learner.model`` is the trained part of.

    ``normalisation``: of what is trained. Of ``dataset``, image shape and classes are needed.
    """
    channels, size, _ = dataset.photograph_shape
    made = whole(settings, learner, normalisation)
    save_model(
        file,
        made.model,
        name=settings.model,
        in_channels=channels,
        image_size=size,
        fit=settings.fit,
        colour_constancy=settings.colour_constancy,
        classes=len(dataset.classes),
        class_names=dataset.classes,
        class_info=described(dataset.class_info),
        doconv=settings.doconv,
        options=model_options(settings),
        normalisation_mean=made.normalisation.mean,
        normalisation_std=made.normalisation.std,
        head=made.head,
        temperature=temperature,
        views=1 if settings.trainable == ALL else settings.views,
    )


def hospitals_of(federated: FederatedData) -> np.ndarray:
    """Return the hospital that holds each photograph of the test set, ``""`` where none does."""
    holder = np.full(len(federated.dataset), "", dtype=object)
    for name, held in federated.partition.items():
        holder[held] = name
    return holder[federated.split.test]


def predictions_of(
    test: LesionDataset, assembly: Assembly, hospitals: Optional[np.ndarray] = None
) -> Predictions:
    """Return what the kept network says of the test set, with the temperature that its model file has.

    ``hospitals``: who holds each photograph, as :func:`hospitals_of` returns it; None where nobody knows.
    """
    tested = assembly.federation.predict()
    assert tested is not None, "there is a test set, and one network for it"
    probabilities = tempered(tested[0], temperature_of(assembly.federation.state))
    return answers_for(test, described(test.class_info), probabilities, test.labels, hospitals)


def summarise(settings: Settings, federated: FederatedData, assembly: Assembly, name: str) -> Dict[str, Any]:
    """Return the content of ``result.json``."""
    state = assembly.federation.state
    last, kept = state.records[-1], state.kept_record
    parts = parts_of(settings, federated)
    return {
        "name": name,
        "protection": settings.protection,
        "strategy": settings.strategy,
        "pretrained": describe(assembly.learner.weights),
        "trained_values": assembly.layout.size,
        "data": describe_data(federated, parts),
        "partition": describe_partition(federated, parts),
        "workers": assembly.workers,
        "hospitals": len(federated.partition),
        "rounds": state.round,
        "rounds_with_update": sum(bool(r.trained) for r in state.records),
        "best_round": kept.round,
        "selected_by": settings.select,
        "stopped_early": state.ended and state.round < settings.rounds,
        "final": final_of(assembly.federation),
        "last": last.metrics,
        "validation": kept.validation,
        "last_validation": last.validation,
        "temperature": temperature_of(state),
        **operation(assembly.federation, settings.target_sensitivity),
        "hospitals_together": kept.hospitals_together,
        "hospital_final": kept.hospital_metrics,
        "spread": spread(kept.hospital_metrics),
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


def parts_of(settings: Settings, federated: FederatedData) -> Dict[str, TrainingParts]:
    """Return by hospital what is trained on and what validates."""
    return {name: training_parts(settings, federated.train_of(name), name) for name in federated.partition}


def describe_data(federated: FederatedData, parts: Mapping[str, TrainingParts]) -> Dict[str, Any]:
    """Return what reports say of the data; ``parts``: by hospital."""
    dataset, split = federated.dataset, federated.split
    trained, validated = (
        {lesion for part in parts.values() for lesion in getattr(part, side).lesion_ids}
        for side in TrainingParts._fields
    )
    return {
        "name": dataset.name,
        "images": len(dataset),
        "synthetic": dataset.synthetic,
        "leaked_lesions": split.leaked_lesions,
        "leaked_validation_lesions": len(trained & validated),
        "protocol": split.protocol,
        "train_images": sum(len(part.train) for part in parts.values()),
        "validation_images": sum(len(part.validation) for part in parts.values()),
        "test_images": len(split.test),
        "classes": list(dataset.classes),
        "class_info": [each._asdict() for each in described(dataset.class_info)],
    }


def describe_partition(federated: FederatedData, parts: Mapping[str, TrainingParts]) -> Dict[str, Any]:
    """Return how many photographs of each class each hospital holds."""
    classes = federated.dataset.classes
    found = {}
    for name, own in parts.items():
        folds = {**own._asdict(), "test": federated.test_of(name)}
        found[name] = {
            fold: {c: int(n) for c, n in zip(classes, held.class_counts())} for fold, held in folds.items()
        }
    return found


def temperature_of(state: RunState) -> float:
    """Return what the kept model's logits are divided by, as the validation images say; 1 without any."""
    validation = state.kept_record.validation
    return 1.0 if validation is None else float(validation["temperature"])


def final_of(federation: Federation) -> Optional[Dict[str, Any]]:
    """Return the metrics of the kept model on the common test set, of the probabilities that users are shown.

    These are after the temperature, in ``predictions.csv`` and wherever ``model.npz`` is used. What records
    hold is without: a round's temperature is known when the next one is over.
    """
    state, tested = federation.state, federation.predict()
    temperature = temperature_of(state)
    if tested is None or temperature == 1.0:
        return state.kept_record.metrics
    probabilities, labels = tempered(tested[0], temperature), tested[1]
    right = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-300)
    found = evaluate_predictions(probabilities, labels, federation.classes)
    return {**found, "loss": float(-np.log(right).mean())}


def operation(federation: Federation, target_sensitivity: float) -> Dict[str, Any]:
    """Return what the validation images say about using the kept model, and what it is worth on the test set.

    ``calibration``: the expected calibration error on the common test set without and with the temperature.
    ``thresholds``: from which probability on a lesion is called malignant, that no less than the target share
    of the malignant validation lesions is found, and the sensitivity and specificity of it; beside those of
    going by the most likely class. Probabilities are those after the temperature, which users are shown. Both
    are None where there is nothing to derive them from.
    """
    validation, tested = federation.state.kept_record.validation, federation.predict()
    shown, calibration, thresholds = None, None, None
    if tested is not None:
        probabilities, labels = tested
        shown = tempered(probabilities, temperature_of(federation.state)), labels
        if validation is not None:
            calibration = {
                "ece": expected_calibration_error(probabilities, labels),
                "ece_scaled": expected_calibration_error(shown[0], labels),
            }
    histograms = None if validation is None else validation["malignant"]
    if histograms is not None:
        found = Malignant(*(np.asarray(histograms[side]) for side in Malignant._fields))
        point = threshold_at_sensitivity(found, target_sensitivity)
        if point is not None:
            thresholds = {
                "malignant": {
                    "target_sensitivity": target_sensitivity,
                    "threshold": point.threshold,
                    "validation": {"sensitivity": point.sensitivity, "specificity": point.specificity},
                    **_on_test(shown, federation.malignant, point.threshold),
                }
            }
    return {"calibration": calibration, "thresholds": thresholds}


def _on_test(
    tested: Optional[Tuple[np.ndarray, np.ndarray]], malignant: Sequence[Optional[bool]], threshold: float
) -> Dict[str, Any]:
    """Return sensitivity and specificity for malignancy on the test set: at a threshold, and by class."""
    if tested is None or not any(malignant):
        return {"test": None, "test_by_class": None}
    probabilities, labels = tested
    known = np.array([flag is not None for flag in malignant])[labels]
    flags = np.array([flag is True for flag in malignant])
    calls = {
        "test": malignant_scores(probabilities, malignant) >= threshold,
        "test_by_class": flags[probabilities.argmax(axis=1)],
    }
    truth = flags[labels]
    return {
        name: {
            "sensitivity": _share(called[known & truth]),
            "specificity": _share(~called[known & ~truth]),
        }
        for name, called in calls.items()
    }


def _share(found: np.ndarray) -> Optional[float]:
    return float(found.mean()) if len(found) else None


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
