"""``report.html``: one file that says what was trained, how well, at what cost, and who saw what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, List, Mapping, Sequence, Tuple

from skinfl.files import PathLike, write_text
from skinfl.report import page, wording
from skinfl.report.table import comparison_rows

if TYPE_CHECKING:
    from skinfl.federation.records import RoundRecord

REPORT = "report.html"
SECONDS = "Seconds are summed over the hospitals, which train one after another in a simulation."
CHECK = (
    "Largest difference of an opened sum from the plaintext sum of the same updates, over all rounds: "
    "only a simulation, which holds both, can compare them."
)


def write_report(
    out_dir: PathLike,
    result: Mapping[str, Any],
    rounds: Sequence[RoundRecord],
    figures: Mapping[str, PathLike],
) -> Path:
    """Write the report of one run to ``out_dir/report.html`` and return its path.

    ``result`` is the content of ``result.json``, ``rounds`` what was written down of each round, ``figures``
    maps captions to PNG files, which are embedded.
    """
    lead = f"{wording.headline(result)}; protection: {result['protection']}; workers: {result['workers']}"
    parts = [
        page.paragraph(lead, "lead"),
        *_notes(result),
        _metrics(result["final"]),
        _classes(result["final"]),
        _hospitals(result),
        *(page.figure(caption, path) for caption, path in figures.items()),
        _costs(result),
        _protection(result),
        _left_out(result["left_out"]),
        _data(result),
        page.section("Details", _rounds(rounds), _partition(result), *_settings(result)),
    ]
    return write_text(Path(out_dir) / REPORT, page.page(str(result["name"]), parts))


def write_comparison_report(
    out_dir: PathLike, comparison: Mapping[str, Any], figures: Mapping[str, PathLike]
) -> Path:
    """Write the report of a comparison to ``out_dir/report.html`` and return its path.

    ``comparison`` is the content of ``compare.json``, ``figures`` maps captions to PNG files.
    """
    runs = comparison["runs"]
    headers, rows = comparison_rows(comparison)
    parts = [
        page.paragraph(wording.headline(runs[0]), "lead"),
        *_notes(runs[0]),
        page.section("Comparison", page.table(headers, rows), page.paragraph(SECONDS, "remark")),
        *(page.figure(caption, path) for caption, path in figures.items()),
        *(_protection(run, f"Protection: {run['protection']}") for run in runs),
        _data(runs[0]),
        page.section("Details", *_settings(runs[0])),
    ]
    title = "Comparison of protections: " + ", ".join(str(run["protection"]) for run in runs)
    return write_text(Path(out_dir) / REPORT, page.page(title, parts))


def _notes(result: Mapping[str, Any]) -> List[page.Html]:
    return [page.paragraph(note, "note") for note in wording.data_notes(result)]


def _metrics(final: Mapping[str, Any]) -> page.Html:
    rows = [(label, wording.score(final[key])) for key, label in wording.METRIC_LABELS.items()]
    rows += [
        ("Expected calibration error", wording.score(final["ece"])),
        ("Loss", wording.score(final["loss"])),
    ]
    return page.section("Final model on the common test set", page.table([], rows))


def _classes(final: Mapping[str, Any]) -> page.Html:
    rows = [
        (name, row["support"], *(wording.score(row[key]) for key in ("sensitivity", "specificity", "auc")))
        for name, row in final["per_class"].items()
    ]
    headers = ("Class", "Test images", "Sensitivity", "Specificity", "AUC")
    return page.section("By class", page.table(headers, rows))


def _hospitals(result: Mapping[str, Any]) -> page.Html:
    keys = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
    rows = []
    for name, metrics in result["hospital_final"].items():
        held = result["partition"].get(name, {"train": {}, "test": {}})
        counts = (sum(held["train"].values()), sum(held["test"].values()))
        rows.append((name, *counts, *(wording.score(metrics[key]) for key in keys)))
    spread = [
        (wording.METRIC_LABELS[key], *(wording.score(values[end]) for end in ("min", "max", "std")))
        for key, values in result["spread"].items()
    ]
    return page.section(
        "Final model at each hospital, on its own test images",
        page.table(
            ("Hospital", "Training images", "Test images", *(wording.METRIC_LABELS[key] for key in keys)),
            rows,
        ),
        page.table(("Over hospitals", "Smallest", "Largest", "Standard deviation"), spread),
    )


def _costs(result: Mapping[str, Any]) -> page.Html:
    seconds = [
        (
            phase,
            wording.duration(wording.per_round(result["seconds"][phase], result["rounds"])),
            wording.duration(result["seconds"][phase]),
        )
        for phase in (*wording.PHASES, "total")
    ]
    counts = result["bytes"]
    traffic = [
        (label, wording.size(counts[key]), wording.multiple(counts[key], counts["float32"]))
        for label, key in (
            ("Up", "up_per_hospital_per_round"),
            ("Down", "down_per_hospital_per_round"),
            ("Model as float32", "float32"),
        )
    ]
    return page.section(
        "Cost",
        page.table(("Seconds", "Per round", "Whole run"), seconds),
        page.paragraph(SECONDS, "remark"),
        page.table(("Bytes", "Per hospital and round", "Multiple of float32"), traffic),
    )


def _protection(result: Mapping[str, Any], title: str = "Protection") -> page.Html:
    difference = wording.difference(result["max_abs_difference_from_plaintext_sum"])
    rows = [
        ("Protection", result["protection"]),
        ("The aggregator sees", result["aggregator_sees"]),
        *_flat(result["protection_details"]),
        ("Difference of the opened sum", difference),
    ]
    return page.section(title, page.table([], rows, "text"), page.paragraph(CHECK, "remark"))


def _left_out(left_out: Sequence[Mapping[str, Any]]) -> page.Html:
    if not left_out:
        return page.Html()
    rows = [(row["round"], row["hospital"], row["reason"]) for row in left_out]
    return page.section("Left out", page.table(("Round", "Hospital", "Reason"), rows, "text"))


def _data(result: Mapping[str, Any]) -> page.Html:
    data = result["data"]
    rows = [
        ("Data set", data["name"]),
        ("Images", f"{data['images']}: {data['train_images']} training, {data['test_images']} test"),
        ("Drawn, not photographed", _text(data["synthetic"])),
        ("Split protocol", data["protocol"]),
        ("Lesions both in training and in test", data["leaked_lesions"]),
        ("Classes", _text(data["classes"])),
    ]
    return page.section("Data", page.table([], rows, "text"))


def _rounds(rounds: Sequence[RoundRecord]) -> page.Html:
    keys = ("loss", "accuracy", "balanced_accuracy", "macro_f1")
    rows = [
        (
            entry.round,
            len(entry.trained),
            len(entry.left_out),
            *(wording.score(entry.metric(key)) for key in keys),
            f"{entry.mean_clipped or 0.0:.2%}",
            wording.size(sum(entry.bytes_up.values())),
            wording.size(sum(entry.bytes_down.values())),
            wording.duration(entry.seconds.total),
            wording.difference(entry.max_abs_difference_from_plaintext_sum),
        )
        for entry in rounds
    ]
    headers = (
        *("Round", "Trained", "Left out", "Loss", "Accuracy", "Balanced accuracy", "Macro F1"),
        *("Clipped", "Bytes up, all", "Bytes down, all", "Seconds", "Difference of the sum"),
    )
    return page.folded("Rounds", page.table(headers, rows))


def _partition(result: Mapping[str, Any]) -> page.Html:
    classes = result["data"]["classes"]
    rows = [
        (hospital, fold, *(folds[fold].get(name, 0) for name in classes), sum(folds[fold].values()))
        for hospital, folds in result["partition"].items()
        for fold in ("train", "test")
    ]
    return page.folded("Who holds what", page.table(("Hospital", "Fold", *classes, "All"), rows))


def _settings(result: Mapping[str, Any]) -> Tuple[page.Html, page.Html]:
    return (
        page.folded("Settings", page.table([], _flat(result["config"]), "text")),
        page.folded("Versions", page.table([], _flat(result["versions"]), "text")),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[Tuple[str, str]]:
    """Yield nested settings as dotted names and text."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if value is None or value == {}:
        return wording.UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)
