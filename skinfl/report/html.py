"""``report.html``: one file that says what was trained, how well, at what cost, and who saw what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, List, Mapping, Sequence, Tuple

from skinfl.files import PathLike, write_text
from skinfl.predictions import LesionClass
from skinfl.report import page, wording
from skinfl.report.findings import SMALL
from skinfl.report.table import comparison_rows

if TYPE_CHECKING:
    from skinfl.federation.records import RoundRecord
    from skinfl.report.plots import Drawn

REPORT = "report.html"
NOTHING = page.Html()
COMMON = "Final model on the common test set"
INTERVALS = (
    "The intervals come of drawing the test set's lesions a thousand times, each with all its photographs. "
    "They say how much another test set of this size would differ, not how much another training would."
)
SUMMED = (
    "Made of sums over the hospitals: nobody has seen one hospital's figures. AUC is the mean over "
    "hospitals, by their numbers of test images."
)
SUBGROUPS = (
    "The most likely class is the answer. In brackets, 95% intervals over lesions. Balanced accuracy is over "
    "the classes that a group has, so groups compare only roughly. Fewer than "
    f"{SMALL} lesions are too few to judge."
)
THRESHOLD = "The threshold was chosen on the hospitals' validation images, and never on the test set."
OWN = (
    "Each model on its hospital's own test images. Hospitals' own models were made in or after the last "
    "round; the common one is that of round {round}."
)
NO_COMMON = (
    "Each model on its hospital's own test images. Parts of the network stay at hospitals, so there is no "
    "common one."
)
FOLDS = {"train": "training", "validation": "validation", "test": "test"}
NOISE = (
    "Noise here is that of the test set: lesions are drawn a thousand times, the same ones for both "
    "protections, and a difference exceeds it where it is seen at three decimals and its 95% interval "
    "leaves out zero. Another seed would train another model; that noise is not in it."
)
SECONDS = "Seconds are summed over the hospitals, which train one after another in a simulation."
CHECK = (
    "Largest difference of an opened sum from the plaintext sum of the same updates, over all rounds: "
    "only a simulation, which holds both, can compare them."
)


def write_report(
    out_dir: PathLike,
    result: Mapping[str, Any],
    rounds: Sequence[RoundRecord],
    figures: Sequence[Drawn],
    examples: page.Html = NOTHING,
) -> Path:
    """Write the report of one run to ``out_dir/report.html`` and return its path.

    ``result`` is the content of ``result.json``, ``rounds`` what was written down of each round. The PNG
    files of ``figures`` are embedded. ``examples`` are those of :func:`skinfl.report.examples.section`.
    """
    lead = f"{wording.headline(result)}; protection: {result['protection']}; workers: {result['workers']}"
    parts = [
        page.paragraph(lead, "lead"),
        *_notes(result),
        *_sentences(result),
        _metrics(result),
        _together(result),
        _thresholds(result),
        _classes(result),
        examples,
        *(page.figure(*each) for each in figures),
        _subgroups(result),
        _hospitals(result),
        _personal(result),
        _model(result),
        _costs(result),
        _protection(result),
        _left_out(result["left_out"]),
        _data(result),
        page.section("Details", _confusion(result), _rounds(rounds), _partition(result), *_settings(result)),
    ]
    return write_text(Path(out_dir) / REPORT, page.page(str(result["name"]), parts))


def write_comparison_report(
    out_dir: PathLike, comparison: Mapping[str, Any], figures: Sequence[Drawn]
) -> Path:
    """Write the report of a comparison to ``out_dir/report.html`` and return its path.

    ``comparison`` is the content of ``compare.json``; its runs' reports lie in folders below, named as their
    protections.
    """
    runs = comparison["runs"]
    headers, rows = comparison_rows(comparison)
    verdicts = comparison.get("verdict", ())
    reports = [page.link(run["protection"], f"{run['protection']}/{REPORT}") for run in runs]
    parts = [
        page.paragraph(wording.headline(runs[0]), "lead"),
        *_notes(runs[0]),
        *_sentences({"sentences": verdicts}),
        *([page.paragraph(NOISE, "remark")] if verdicts else []),
        page.paragraph(page.joined(["Reports of the runs: ", *_between(reports, ", ")])),
        # what the aggregator sees, the last row, stands with each protection below
        page.section("Comparison", page.table(headers, rows[:-1]), page.paragraph(SECONDS, "remark")),
        _classes_by_protection(runs),
        *(page.figure(*each) for each in figures),
        *(_protection(run, f"Protection: {run['protection']}") for run in runs),
        _data(runs[0]),
        page.section("Details", *_settings(runs[0])),
    ]
    title = "Comparison of protections: " + ", ".join(str(run["protection"]) for run in runs)
    return write_text(Path(out_dir) / REPORT, page.page(title, parts))


def _between(parts: Sequence[str], separator: str) -> List[str]:
    return [text for part in parts for text in (part, separator)][:-1]


def _notes(result: Mapping[str, Any]) -> List[page.Html]:
    return [page.paragraph(note, "note") for note in wording.data_notes(result)]


def _sentences(result: Mapping[str, Any]) -> List[page.Html]:
    sentences = result.get("sentences", ())
    return [
        *(page.paragraph(sentence, "finding") for sentence in sentences[:1]),
        *map(page.paragraph, sentences[1:]),
    ]


def _metrics(result: Mapping[str, Any]) -> page.Html:
    final = result["final"]
    if final is None:
        return NOTHING
    intervals = result.get("intervals", {})
    rows = [
        (label, wording.score(final[key]), wording.interval(intervals.get(key)))
        for key, label in wording.METRIC_LABELS.items()
    ]
    rows += [
        ("Expected calibration error", wording.score(final["ece"]), wording.UNDEFINED),
        ("Loss", wording.score(final["loss"]), wording.UNDEFINED),
    ]
    if not any(intervals.values()):
        return page.section(COMMON, page.table([], [row[:2] for row in rows]))
    chosen = []
    if result.get("selected_by", "last") != "last":
        by = wording.METRIC_LABELS.get(result["selected_by"], str(result["selected_by"]))
        kept = f"The model is that of round {result['best_round']}, chosen on the validation images by {by}."
        chosen.append(page.paragraph(kept, "remark"))
    calibration = result.get("calibration")
    if calibration is not None:
        chosen.append(
            page.paragraph(
                f"Probabilities are with the temperature of {result['temperature']:.3g} that the validation "
                f"images say; without it, the expected calibration error is "
                f"{wording.score(calibration['ece'])}.",
                "remark",
            )
        )
    return page.section(
        COMMON,
        page.table(("Metric", "Value", "95% interval"), rows),
        page.paragraph(INTERVALS, "remark"),
        *chosen,
    )


def _thresholds(result: Mapping[str, Any]) -> page.Html:
    """Return what a threshold changes that was chosen on validation images, nothing without any."""
    chosen = (result.get("thresholds") or {}).get(wording.MALIGNANT)
    if not chosen:
        return NOTHING
    rows = [
        (title, wording.score(found["sensitivity"]), wording.score(found["specificity"]))
        for title, found in (
            ("Test set, the most likely class is the answer", chosen.get("test_by_class")),
            (f"Test set, malignant from {chosen['threshold']:.3f} on", chosen.get("test")),
            (f"Validation images, malignant from {chosen['threshold']:.3f} on", chosen["validation"]),
        )
        if found
    ]
    headers = ("Malignant or benign", "Sensitivity", "Specificity")
    return page.section("Threshold", page.table(headers, rows), page.paragraph(THRESHOLD, "remark"))


def _together(result: Mapping[str, Any]) -> page.Html:
    """Return what the hospitals' sums say, for runs that nobody sees the test set of."""
    together = result.get("hospitals_together")
    if result["final"] is not None or together is None:
        return NOTHING
    rows = [(label, wording.score(together[key])) for key, label in wording.METRIC_LABELS.items()]
    title = "Final model on the hospitals' own test images together"
    return page.section(title, page.table([], rows), page.paragraph(SUMMED, "remark"))


def _classes(result: Mapping[str, Any]) -> page.Html:
    final = result["final"] or result.get("hospitals_together")
    if final is None:
        return NOTHING
    intervals = result.get("auc_intervals", {})
    rows = [
        (
            _named(each),
            row["support"],
            *(wording.score(row[key]) for key in ("sensitivity", "specificity", "auc")),
            *([wording.interval(intervals.get(each.name))] if intervals else []),
        )
        for each, row in ((each, final["per_class"][each.name]) for each in _told(result, final))
    ]
    headers = ["Class", "Test images", "Sensitivity", "Specificity", "AUC"]
    headers += ["95% interval of the AUC"] if intervals else []
    return page.section("By class", page.table(headers, rows))


def _told(result: Mapping[str, Any], final: Mapping[str, Any]) -> List[LesionClass]:
    return [each for each in wording.classes_of(result["data"]) if each.name in final["per_class"]]


def _named(each: LesionClass) -> page.Html:
    """Return a class in full, its short name behind it, malignant ones marked."""
    parts: List[str] = [each.full_name]
    if each.full_name != each.name:
        parts += [" ", page.span(each.name, "faint")]
    if each.malignant:
        parts += [" ", page.span(wording.MALIGNANT, "mark")]
    return page.joined(parts)


def _classes_by_protection(runs: Sequence[Mapping[str, Any]]) -> page.Html:
    finals = [run["final"] for run in runs]
    if any(final is None for final in finals):
        return NOTHING
    rows = [
        (_named(each), *(wording.score(final["per_class"][each.name]["sensitivity"]) for final in finals))
        for each in _told(runs[0], finals[0])
    ]
    return page.section(
        "Sensitivity by class", page.table(("Class", *(str(run["protection"]) for run in runs)), rows)
    )


def _confusion(result: Mapping[str, Any]) -> page.Html:
    final = result["final"] or result.get("hospitals_together")
    if final is None:
        return NOTHING
    classes = wording.classes_of(result["data"])
    rows = [(_named(each), *row, sum(row)) for each, row in zip(classes, final["confusion"])]
    heads = [each.name + (f" {wording.SIGN}" if each.malignant else "") for each in classes]
    return page.folded(
        "Confusion matrix in numbers",
        page.table(("Diagnosis, then what the model says", *heads, "All"), rows),
    )


def _subgroups(result: Mapping[str, Any]) -> page.Html:
    found = result.get("subgroups")
    if not found:
        return NOTHING
    split = any("malignant" in row for row in found)
    headers = ["Group", "Lesions (photographs)", "Accuracy", "Balanced accuracy"]
    headers += ["Malignant found", "Benign recognised"] if split else []
    parts: List[str] = []
    titles = {"sex": "Sex", "age": "Age in years", "site": "Site"}
    for by in dict.fromkeys(row["by"] for row in found):
        rows = [_subgroup(row, split) for row in found if row["by"] == by]
        parts.append(page.subsection(titles.get(by, by), page.table(headers, rows)))
    return page.section("Subgroups of the common test set", page.paragraph(SUBGROUPS, "remark"), *parts)


def _subgroup(row: Mapping[str, Any], split: bool) -> Tuple[str, ...]:
    """Return the cells of a group; one that is too small has its numbers of images only."""
    counts = (str(row["group"]), f"{row['lesions']:,} ({row['photographs']:,})")
    if row["too_small"]:
        return (*counts, "too small to judge", *([wording.UNDEFINED] * (3 if split else 1)))
    cells = [_with_interval(row, key) for key in ("accuracy", "balanced_accuracy")]
    for key, kind in (("malignant_found", "malignant"), ("benign_found", "benign")) if split else ():
        share = row[key]
        found = f"{round(share * row[kind]):,} of {row[kind]:,}" if share is not None else "none there"
        cells.append(found + _ends(row[f"{key}_interval"]))
    return (*counts, *cells)


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    return wording.score(row[key]) + _ends(row[f"{key}_interval"])


def _ends(interval: Any) -> str:
    return "" if interval is None else f" ({interval[0]:.2f}–{interval[1]:.2f})"


def _hospitals(result: Mapping[str, Any]) -> page.Html:
    if not result["hospital_final"]:
        return NOTHING
    keys = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
    rows = []
    for name, metrics in result["hospital_final"].items():
        held = (result["partition"] or {}).get(name, {"train": {}, "test": {}})
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


def _personal(result: Mapping[str, Any]) -> page.Html:
    """Return how the hospitals' own models do, beside the common one where there is one."""
    found = result.get("personal")
    if not found:
        return NOTHING
    keys = ("accuracy", "balanced_accuracy", "auc")
    sides = [(found["hospitals_together"], found["hospital_final"])]
    if found["common_model"]:
        sides.append((result["hospitals_together"], result["hospital_final"]))
    rows = []
    for name in (None, *found["hospital_final"]):
        told = [together if name is None else each.get(name) for together, each in sides]
        cells = [wording.UNDEFINED if of is None else wording.score(of[key]) for key in keys for of in told]
        rows.append(("All hospitals together" if name is None else name, *cells))
    whose = ["own model", "common model"][: len(sides)]
    heads = [f"{wording.METRIC_LABELS[key]}: {of}" for key in keys for of in whose]
    remark = OWN.format(round=result.get("best_round", result["rounds"])) if len(sides) > 1 else NO_COMMON
    return page.section(
        "Hospitals' own models",
        page.table(("Hospital", *heads), rows),
        page.paragraph(f"{wording.personal(found)} {remark}", "remark"),
    )


def _model(result: Mapping[str, Any]) -> page.Html:
    """Return which network was trained, from what, and which round's is kept."""
    config = result["config"]
    rows = [("Network", config["model"])] if "model" in config else []
    weights = result.get("pretrained")
    if weights:
        rows.append(("Pretrained weights", f"{weights['source']}, SHA-256 {weights['sha256']}"))
    elif "pretrained" in result:
        rows.append(("Pretrained weights", "none: training began with weights drawn at random"))
    if "trained_values" in result:
        values = f"{wording.trained(config.get('trainable', 'all'))}: {result['trained_values']:,} numbers"
        rows.append(("Trained, sent and protected", values))
    if "best_round" in result:
        rows.append(("Model kept", wording.kept(result)))
    return page.section("Model", page.table([], rows, "text")) if rows else NOTHING


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
        return NOTHING
    rows = [(row["round"], row["hospital"], row["reason"]) for row in left_out]
    return page.section("Left out", page.table(("Round", "Hospital", "Reason"), rows, "text"))


def _data(result: Mapping[str, Any]) -> page.Html:
    data = result["data"]
    classes = page.lines(_named(each) for each in wording.classes_of(data))
    if data["name"] is None:  # a coordinator is not told what the hospitals hold
        return page.section("Data", page.table([], [("Classes", classes)], "text"))
    rows = [
        ("Data set", data["name"]),
        ("Images", f"{data['images']}: {wording.folds(data)}"),
        ("Drawn, not photographed", _text(data["synthetic"])),
        ("Split protocol", data["protocol"]),
        ("Lesions both in training and in test", data["leaked_lesions"]),
        ("Classes", classes),
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
    if not result["partition"]:
        return NOTHING
    classes = wording.classes_of(result["data"])
    rows = [
        (hospital, title, *(folds[fold].get(each.name, 0) for each in classes), sum(folds[fold].values()))
        for hospital, folds in result["partition"].items()
        for fold, title in FOLDS.items()
        if fold in folds
    ]
    heads = ("Hospital", "Fold", *map(_named, classes), "All")
    return page.folded("Who holds what", page.table(heads, rows))


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
