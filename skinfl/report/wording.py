"""How numbers and warnings read, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.predictions import LesionClass

UNDEFINED = "–"
#: key in a metrics dict -> what a reader sees; in the order of all tables
METRIC_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "auc": "AUC, one-vs-rest",
    "melanoma_sensitivity_at_90_specificity": "Melanoma sensitivity at 90% spec.",
}
#: what marks a class that is cancer: the word, and a sign where there is no room for it
MALIGNANT = "malignant"
SIGN = "▲"
PHASES = ("train", "protect", "combine", "open", "evaluate")


def score(value: Optional[float]) -> str:
    """Return a metric to three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}"


def interval(ends: Optional[Sequence[float]]) -> str:
    """Return the ends of an interval: ``0.512 to 0.587``."""
    return UNDEFINED if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def change(value: Optional[float]) -> str:
    """Return a difference of two metrics with its sign; what rounds to nothing has none."""
    if value is None:
        return UNDEFINED
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def classes_of(data: Mapping[str, Any]) -> Tuple[LesionClass, ...]:
    """Return the classes that a result's ``data`` tell of, in their order.

    A result without ``class_info`` has their short names only.
    """
    info = {each["name"]: each for each in data.get("class_info") or ()}
    return tuple(
        LesionClass(name, info[name]["full_name"], info[name]["malignant"])
        if name in info
        else LesionClass(name, name)
        for name in data["classes"]
    )


def class_label(each: LesionClass) -> str:
    """Return a class on one line: ``melanoma (malignant)``."""
    return f"{each.full_name} ({MALIGNANT})" if each.malignant else each.full_name


def difference(value: Optional[float]) -> str:
    """Return a small difference in scientific notation, an exact zero as ``0``."""
    if value is None:
        return UNDEFINED
    return f"{value:.1e}" if value else "0"


def size(count: Optional[float]) -> str:
    """Return a number of bytes in decimal units: ``512 B``, ``83.4 kB``, ``1.25 MB``."""
    if count is None:
        return UNDEFINED
    if count < 1000:
        return f"{count:.0f} B"
    power = 1 + (count >= 999.5e3) + (count >= 999.5e6)
    return f"{_three_digits(count / 1000**power)} {('kB', 'MB', 'GB')[power - 1]}"


def over_seeds(values: Union[Sequence[float], np.ndarray], decimals: int, sign: str = "") -> str:
    """Return a mean, ± the standard deviation where there are several: ``0.951 ± 0.004``."""
    mean = f"{np.mean(values):{sign}.{decimals}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else mean


def multiple(count: Optional[float], unit: Optional[float]) -> str:
    """Return ``count`` as a multiple of ``unit``: ``2.00×``."""
    return UNDEFINED if count is None or not unit else f"{_three_digits(count / unit)}×"


def duration(seconds: Optional[float]) -> str:
    """Return seconds: three decimals when short, none when long."""
    if seconds is None:
        return UNDEFINED
    if 0 < seconds < 0.001:
        return "<0.001"
    return f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"


def per_round(seconds: Optional[float], rounds: int) -> Optional[float]:
    """Return the mean over ``rounds`` of what the whole run took."""
    return None if seconds is None or not rounds else seconds / rounds


def headline(result: Mapping[str, Any]) -> str:
    """Return one line on what was trained where: data, hospitals, strategy, rounds."""
    data = result["data"]
    # a coordinator is not told what the hospitals hold
    held = [] if data["name"] is None else [str(data["name"]), f"{data['images']} images"]
    parts = [*held, f"{result['hospitals']} hospitals", str(result["strategy"]), f"{result['rounds']} rounds"]
    return ", ".join(parts)


def folds(counts: Mapping[str, Any]) -> str:
    """Return how many images are for what: ``1350 training, 150 validation, 375 test``."""
    titles = {"train_images": "training", "validation_images": "validation", "test_images": "test"}
    return ", ".join(f"{counts[key]} {title}" for key, title in titles.items() if counts.get(key))


def trained(trainable: str) -> str:
    """Return what the setting ``trainable`` means."""
    kind, _, number = trainable.partition(":")
    if kind == "last":
        stages = "last stage" if number == "1" else f"last {number} stages"
        return f"the {stages} and the classifier"
    return {"head": "a classifier on the features of the pretrained network"}.get(kind, "the whole network")


def kept(result: Mapping[str, Any]) -> str:
    """Return which round's model a run gives, and why."""
    text = f"that of round {result['best_round']} of {result['rounds']}"
    by = str(result.get("selected_by", "last"))
    if by == "last" or not result.get("validation"):
        return f"{text}, the last one"
    early = "; the run ended early, as nothing got better" if result.get("stopped_early") else ""
    return f"{text}, the best on the validation images by {METRIC_LABELS.get(by, by)}{early}"


def personal(found: Mapping[str, Any]) -> str:
    """Return how the hospitals' own models came to be, as a sentence."""
    kinds = {
        "batchnorm": "BatchNorm stays at each hospital",
        "head": "The last layer stays at each hospital",
        "ditto": "Each hospital trains a model of its own beside the common one (Ditto)",
        "none": "",
    }
    parts = [kinds.get(found["kind"], f"What {found['kind']} keeps back stays at each hospital")]
    epochs = found["fine_tune_epochs"]
    if epochs:
        passes = "1 pass" if epochs == 1 else f"{epochs} passes"
        parts.append(f"each trains a copy of the final model on its own images for {passes}")
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def data_notes(result: Mapping[str, Any]) -> List[str]:
    """Return what a reader must know of data and training before believing any figure; empty if nothing."""
    data = result["data"]
    notes = []
    if result.get("rounds_with_update") == 0:
        notes.append(
            "No update entered the model in any round: these are the figures of an untrained network."
        )
    if data["synthetic"]:
        note = result.get("synthetic")
        notes.append(
            "Synthetic data: the images were drawn by a generator, not taken of patients. "
            "The figures compare methods; they say nothing about diagnosis."
            + (f" {note}" if isinstance(note, str) and note else "")
        )
    if data.get("protocol") == "published":
        notes.append(
            "Published protocol: training and test images are split as in the published code. "
            "Compare with the paper's table only."
        )
    if data["leaked_lesions"]:
        notes.append(
            f"Leak: {data['leaked_lesions']} lesions have images both in training and in test. "
            "The test figures look better than the model is."
        )
    return notes


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
