"""Figures of one run and of a comparison, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from skinfl.files import PathLike
from skinfl.predictions import LesionClass, Predictions
from skinfl.report import alt, findings, wording
from skinfl.report.canvas import (
    BAND,
    BELOW,
    DASHES,
    FAINT,
    HEIGHT,
    LETTERS,
    LINE,
    PALETTE,
    WIDTH,
    chance,
    figure_at,
    fill,
    in_full,
    label_bars,
    line_of,
    marked,
    names_of,
    nested,
    readable_on,
    slant,
)

if TYPE_CHECKING:
    from skinfl.federation.records import RoundRecord

#: more bars than this and only some of them get a name
NAMED_BARS = 12
#: more classes than this and a confusion matrix has room for their short names only
NAMED_CLASSES = 12
#: more curves than this in one picture cannot be told apart
CURVES = 16
#: more subgroups than this, the largest, and a picture is longer than a screen
GROUPS = 24


class Drawn(NamedTuple):
    """A figure: what stands below it, where it is, and what it shows in words."""

    caption: str
    path: Path
    alt: str


def draw_run(
    folder: PathLike,
    result: Mapping[str, Any],
    rounds: Sequence[RoundRecord],
    found: Optional[Predictions] = None,
) -> List[Drawn]:
    """Draw the figures of a run into ``folder``.

    ``found`` are the answers for the test set; without any, only what rounds and counts tell is drawn.
    """
    folder = Path(folder)
    classes = wording.classes_of(result["data"])
    figures = [Drawn("Training curves", training_curves(rounds, folder / "curves.png"), alt.curves(rounds))]
    if result["final"] is not None:
        figures.append(
            Drawn(
                "Confusion matrix on the common test set: the number is photographs, the colour the share of "
                f"the true class. {wording.SIGN} malignant.",
                confusion_matrix(result["final"], classes, folder / "confusion.png"),
                "Confusion matrix. " + alt.confusion(result["final"]["confusion"], classes),
            )
        )
    if found is not None and len(found.labels):
        figures += _draw_answers(folder, result, found)
    if result["partition"]:
        figures.append(
            Drawn(
                f"Who holds what. {wording.SIGN} malignant.",
                who_holds_what(result["partition"], classes, folder / "partition.png"),
                "Stacked bars: " + alt.partition(result["partition"]),
            )
        )
    return figures


def _draw_answers(folder: Path, result: Mapping[str, Any], found: Predictions) -> List[Drawn]:
    figures = []
    curves = findings.roc_curves(found, 0, intervals=False)
    known = result.get("auc_intervals", {})
    curves = [c._replace(interval=known.get(c.name or wording.MALIGNANT)) for c in curves]
    if curves:
        labels = {each.name: wording.class_label(each) for each in found.classes}
        areas = "; ".join(
            f"{'malignant against benign' if c.name is None else labels[c.name]} {c.auc:.3f}" for c in curves
        )
        figures.append(
            Drawn(
                "ROC curves on the common test set, each class against the rest, with the area under the "
                f"curve and its 95% interval over lesions. {wording.SIGN} malignant.",
                roc(curves, found.classes, folder / "roc.png"),
                f"ROC curves; areas under them: {areas}.",
            )
        )
    bins = findings.reliability(found)
    figures.append(
        Drawn(
            "Reliability on the common test set: of the photographs for which the model is so sure, how many "
            "it gets right. On the dashed line it is as sure as it should be, below it is too sure.",
            reliability(bins, folder / "reliability.png"),
            "Reliability diagram. " + alt.reliability(bins),
        )
    )
    rows = [row for row in result.get("subgroups", ()) if not row["too_small"]]
    if rows:
        figures.append(
            Drawn(
                "Subgroups of the common test set, with 95% intervals over lesions. Groups too small to "
                "judge are in the table only.",
                subgroups(rows, folder / "subgroups.png"),
                "Dots with intervals by sex, age and site; the table of subgroups has the same numbers.",
            )
        )
    return figures


def draw_comparison(
    folder: PathLike,
    comparison: Mapping[str, Any],
    rounds: Optional[Mapping[str, Sequence[RoundRecord]]] = None,
    found: Optional[Mapping[str, Predictions]] = None,
) -> List[Drawn]:
    """Draw the figures of a comparison into ``folder``; ``rounds`` and ``found`` are by protection."""
    folder = Path(folder)
    figures = []
    if rounds:
        figures.append(
            Drawn(
                "The common test set over rounds. Where lines cover one another the protections are equal.",
                metrics_over_rounds(rounds, folder / "rounds.png"),
                "Lines of balanced accuracy and AUC over rounds, one a protection. " + alt.last(rounds),
            )
        )
    if found:
        curves = {name: _first_curve(answers) for name, answers in found.items()}
        drawn = {name: curve for name, curve in curves.items() if curve is not None}
        if drawn:
            first = next(iter(drawn.values()))
            classes = {each.name: each.full_name for each in next(iter(found.values())).classes}
            what = (
                "malignant against benign"
                if first.name is None
                else f"{classes[first.name]} against the rest"
            )
            areas = "; ".join(f"{name} {curve.auc:.3f}" for name, curve in drawn.items())
            figures.append(
                Drawn(
                    f"ROC curves of {what} on the common test set, with the areas under them.",
                    roc_by_protection(drawn, folder / "roc.png"),
                    f"ROC curves of {what}; areas under them: {areas}.",
                )
            )
    costs = "; ".join(
        f"{run['protection']} {wording.size(run['bytes']['up_per_hospital_per_round'])} up, "
        f"{wording.duration(wording.per_round(run['seconds']['total'], run['rounds']))} s"
        for run in comparison["runs"]
    )
    figures.append(
        Drawn(
            "Bytes and seconds by protection",
            cost_by_protection(comparison, folder / "cost.png"),
            f"Bars of bytes per hospital and round and of seconds per round: {costs}.",
        )
    )
    return figures


def _first_curve(found: Predictions) -> Optional[findings.Curve]:
    """Return the curve that protections are compared by: malignant or benign, else melanoma, else any."""
    curves = findings.roc_curves(found, 0, intervals=False)
    melanoma = findings.melanoma_of(found.classes)
    wanted = [curve for curve in curves if curve.name is None]
    wanted += [c for c in curves if melanoma is not None and c.name == found.names[melanoma]]
    return (wanted + curves)[0] if curves else None


def draw_variants(path: PathLike, metrics: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """Draw each metric over rounds, a line a variant: the mean over seeds, and a band of all seeds.

    ``metrics`` are ``{metric: {variant: (seeds, rounds)}}``; rounds not evaluated are NaN.
    """
    with figure_at(path, 1, len(metrics), size=(WIDTH * 1.3, HEIGHT)) as (figure, axes):
        for axis, (key, variants) in zip(axes[0], metrics.items()):
            for k, (name, values) in enumerate(variants.items()):
                shown = ~np.isnan(values).any(axis=0)
                number, values = np.flatnonzero(shown) + 1, values[:, shown]
                colour = PALETTE[k % len(PALETTE)]
                dashes = DASHES[k % len(DASHES)]
                label = names_of([name])[0]
                axis.plot(number, values.mean(axis=0), dashes, color=colour, label=label)
                axis.fill_between(number, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)
            axis.set_title(wording.METRIC_LABELS[key])
            axis.set_xlabel("round")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        figure.legend(*axes[0, -1].get_legend_handles_labels(), ncol=3, **BELOW)
        figure.tight_layout()
    return Path(path)


def training_curves(rounds: Sequence[RoundRecord], path: PathLike) -> Path:
    """Draw loss, accuracy, balanced accuracy and macro F1 over rounds.

    The line is the common test set; the band reaches from the worst to the best hospital: training
    loss in the first panel, the hospitals' own test images in the others.
    """
    panels = [
        ("Loss", "loss", lambda entry: entry.train_loss or {"all": entry.mean_loss}),
        *(
            (wording.METRIC_LABELS[key], key, lambda entry, key=key: _of_hospitals(entry, key))
            for key in ("accuracy", "balanced_accuracy", "macro_f1")
        ),
    ]
    number = [entry.round for entry in rounds]
    # One round makes a band without width: its ends get a mark.
    ends = "_" if len(rounds) == 1 else ""
    with figure_at(path, 2, 2, size=(WIDTH, 4.2)) as (figure, axes):
        for axis, (title, key, hospitals) in zip(axes.flat, panels):
            (line,) = axis.plot(
                *_defined(number, [entry.metric(key) for entry in rounds]),
                color=LINE,
                marker="o",
                markersize=3,
            )
            values = [[v for v in hospitals(entry).values() if v is not None] for entry in rounds]
            x, low = _defined(number, [min(v, default=None) for v in values])
            _, high = _defined(number, [max(v, default=None) for v in values])
            band = axis.fill_between(x, low, high, facecolor=BAND, edgecolor=FAINT, linewidth=0.5)
            axis.plot(x, low, x, high, color=FAINT, linewidth=0.8, marker=ends, markersize=12, zorder=1)
            axis.set_title(title)
            axis.set_xlim(min(number) - 0.3, max(number) + 0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
            if key != "loss":
                axis.set_ylim(0, 1.02)
        for axis in axes[1]:
            axis.set_xlabel("round")
        figure.legend([line, band], ["common test set", "from worst to best hospital"], ncol=2, **BELOW)
        figure.tight_layout()
    return Path(path)


def confusion_matrix(metrics: Mapping[str, Any], classes: Sequence[LesionClass], path: PathLike) -> Path:
    """Draw the confusion matrix: colour is the share of the true class, the number is images."""
    counts = np.asarray(metrics["confusion"], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    short = [marked(names_of([each.name])[0], each) for each in classes]
    roomy = len(classes) <= NAMED_CLASSES
    full = [in_full(each, 20) for each in classes] if roomy else short
    lines = max(2.2 if roomy else 1.0, *(1.0 + name.count("\n") for name in full))
    size = (WIDTH, 1.0 + len(classes) * min(0.68, 0.17 * lines))
    with figure_at(path, size=size) as (figure, axes):
        axis = axes[0, 0]
        picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        colours = picture.to_rgba(shares)
        for row, column in np.ndindex(*counts.shape):
            axis.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=LETTERS - 1 if roomy else 6,
                color=readable_on(colours[row, column]),
            )
        axis.set_xticks(range(len(short)))
        axis.set_xticklabels(short, **slant(short, 32))
        axis.set_yticks(range(len(full)))
        axis.set_yticklabels(full)
        axis.set_xlabel("the model says")
        axis.set_ylabel("diagnosis")
        axis.spines[:].set_visible(False)
        figure.tight_layout()
    return Path(path)


def who_holds_what(
    partition: Mapping[str, Mapping[str, Mapping[str, int]]], classes: Sequence[LesionClass], path: PathLike
) -> Path:
    """Draw each hospital's images by class, training above and test below, for 2 to 100 hospitals.

    ``partition`` is ``{hospital: {"train": {class: images}, "test": {class: images}}}``, with
    ``"validation"`` drawn between them where there are such images.
    """
    hospitals = list(partition)
    places = np.arange(len(hospitals))
    heights = {"train": 3.0, "validation": 1.0, "test": 1.3}
    if not any(sum(folds.get("validation", {}).values()) for folds in partition.values()):
        del heights["validation"]
    count, ratios = len(heights), {"height_ratios": list(heights.values())}
    tall = 2.0 + 2.0 * sum(heights.values()) / 4.3
    with figure_at(path, count, 1, sharex=True, gridspec_kw=ratios, size=(WIDTH, tall)) as (figure, axes):
        for axis, fold in zip(axes[:, 0], heights):
            bottom = np.zeros(len(hospitals))
            bars = []
            for k, each in enumerate(classes):
                counts = np.array([partition[hospital][fold].get(each.name, 0) for hospital in hospitals])
                bars.append(axis.bar(places, counts, 0.85, bottom, **fill(k)))
                bottom += counts
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if fold == "train" else 3))
            axis.set_ylabel({"train": "training images", "test": "test images"}.get(fold, fold))
        _name_bars(axes[-1, 0], hospitals)
        # Top of the legend is the top of a bar.
        figure.legend(bars[::-1], [in_full(each, 52) for each in classes][::-1], **BELOW)
        figure.align_ylabels()
        figure.tight_layout()
    return Path(path)


def roc(curves: Sequence[findings.Curve], classes: Sequence[LesionClass], path: PathLike) -> Path:
    """Draw ROC curves, malignant against benign thick and black; the legend has the areas under them."""
    by_name = {each.name: each for each in classes}
    shown = sorted(curves, key=lambda curve: curve.name is not None and not by_name[curve.name].malignant)
    with figure_at(path, size=(WIDTH, 4.4)) as (figure, axes):
        axis = axes[0, 0]
        chance(axis)
        handles = []
        for curve in shown[:CURVES]:
            if curve.name is None:
                name, look = "malignant against benign", {"color": PALETTE[-1], "linewidth": 2.6}
            else:
                name = in_full(by_name[curve.name], 36)
                look = line_of([each.name for each in classes].index(curve.name))
            ends = "" if curve.interval is None else f" ({curve.interval[0]:.2f}–{curve.interval[1]:.2f})"
            (line,) = axis.plot(curve.false_positives, curve.sensitivity, **look)
            line.set_label(f"{name}: {curve.auc:.3f}{ends}")
            handles.append(line)
        figure.legend(handles, [line.get_label() for line in handles], **BELOW)
        figure.tight_layout()
    return Path(path)


def roc_by_protection(curves: Mapping[str, findings.Curve], path: PathLike) -> Path:
    """Draw one ROC curve a protection; the later ones are thinner, so that equal ones are seen."""
    with figure_at(path, size=(WIDTH, 4.2)) as (figure, axes):
        axis = axes[0, 0]
        chance(axis)
        for k, (name, curve) in enumerate(curves.items()):
            label = f"{names_of([name])[0]}: {curve.auc:.3f}"
            axis.plot(curve.false_positives, curve.sensitivity, label=label, **nested(k, len(curves)))
        figure.legend(*axis.get_legend_handles_labels(), ncol=2, **BELOW)
        figure.tight_layout()
    return Path(path)


def metrics_over_rounds(rounds: Mapping[str, Sequence[RoundRecord]], path: PathLike) -> Path:
    """Draw balanced accuracy and AUC on the common test set over rounds, a line a protection."""
    with figure_at(path, 2, 1, sharex=True, size=(WIDTH, 4.6)) as (figure, axes):
        for axis, key in zip(axes[:, 0], ("balanced_accuracy", "auc")):
            for k, (name, records) in enumerate(rounds.items()):
                points = _defined([r.round for r in records], [r.metric(key) for r in records])
                mark = {"marker": "o", "markersize": 6 - min(k, 4)} if len(records) < 12 else {}
                axis.plot(*points, label=names_of([name])[0], **mark, **nested(k, len(rounds)))
            axis.set_title(wording.METRIC_LABELS[key])
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes[1, 0].set_xlabel("round")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), ncol=3, **BELOW)
        figure.tight_layout()
    return Path(path)


def reliability(bins: findings.Bins, path: PathLike) -> Path:
    """Draw how often the answer is right by how sure the model is, and how many photographs that are."""
    shown = bins.counts > 0
    width = bins.edges[1] - bins.edges[0]
    middle = bins.edges[:-1] + width / 2
    ratios = {"height_ratios": [3, 1]}
    with figure_at(path, 2, 1, sharex=True, gridspec_kw=ratios, size=(WIDTH, 4.6)) as (figure, axes):
        above, below = axes[:, 0]
        above.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1, label="as sure as it should be")
        above.plot(bins.confidence[shown], bins.accuracy[shown], "o-", color=LINE, label="the model")
        above.set_xlim(0, 1)
        above.set_ylim(0, 1.02)
        above.set_ylabel("share right")
        above.legend(loc="upper left")
        below.bar(middle, bins.counts, width * 0.9, color=LINE)
        below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        below.set_ylabel("photographs")
        below.set_xlabel("probability of the answer")
        figure.align_ylabels()
        figure.tight_layout()
    return Path(path)


def subgroups(rows: Sequence[Mapping[str, Any]], path: PathLike) -> Path:
    """Draw a dot with its interval for each subgroup: the metrics that say most, beside each other."""
    rows = sorted(sorted(rows, key=lambda row: -row["photographs"])[:GROUPS], key=list(rows).index)
    keys = {"balanced_accuracy": "Balanced accuracy"}
    if any(row.get("malignant_found") is not None for row in rows):
        keys = {"malignant_found": "Malignant found", "benign_found": "Benign recognised"}
    names = [f"{names_of([row['group']])[0]} ({row['photographs']:,})" for row in rows]
    with figure_at(path, 1, len(keys), sharey=True, size=(WIDTH, 1.0 + 0.24 * len(rows))) as (figure, axes):
        for axis, (key, title) in zip(axes[0], keys.items()):
            for place, row in enumerate(rows):
                value, ends = row.get(key), row.get(f"{key}_interval")
                if value is None:
                    continue
                axis.plot([value], [place], "o", color=LINE, markersize=5)
                if ends is not None:
                    axis.plot(ends, [place, place], color=LINE, linewidth=1.4)
            axis.set_title(title)
            axis.set_xlim(-0.02, 1.02)
            axis.grid(axis="x", color="#D9DDE2", linewidth=0.6)
            axis.set_axisbelow(True)
            for place in range(1, len(rows)):
                if rows[place]["by"] != rows[place - 1]["by"]:
                    axis.axhline(place - 0.5, color=FAINT, linewidth=0.8)
        axes[0, 0].set_yticks(range(len(rows)))
        axes[0, 0].set_yticklabels(names)
        axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
        figure.tight_layout()
    return Path(path)


def cost_by_protection(comparison: Mapping[str, Any], path: PathLike) -> Path:
    """Draw bytes per hospital and round, and seconds per round by phase, one bar per protection."""
    runs = comparison["runs"]
    places = np.arange(len(runs))
    with figure_at(path, 2, 1, size=(WIDTH, 2.6 + 0.62 * len(runs))) as (figure, axes):
        traffic, time = axes[:, 0]
        for k, direction in enumerate(("up", "down")):
            counts = [run["bytes"][f"{direction}_per_hospital_per_round"] or 0 for run in runs]
            bars = traffic.barh(places + 0.4 * k - 0.2, counts, 0.36, color=PALETTE[k], label=direction)
            label_bars(traffic, bars, [wording.size(count) for count in counts])
        plain = runs[0]["bytes"]["float32"]
        traffic.axvline(plain, color=FAINT, linewidth=1.2, linestyle="--", label="plain float32")
        traffic.xaxis.set_major_formatter(FuncFormatter(lambda count, _: wording.size(count)))
        traffic.xaxis.set_major_locator(MaxNLocator(nbins=5))
        traffic.set_title("Bytes per hospital and round")
        total = np.zeros(len(runs))
        for k, phase in enumerate(wording.PHASES):
            seconds = [wording.per_round(run["seconds"][phase], run["rounds"]) or 0 for run in runs]
            bars = time.barh(places, seconds, 0.6, total, label=phase, **fill(k))
            total += seconds
        label_bars(time, bars, [f"{wording.duration(seconds)} s" for seconds in total])
        time.set_title("Seconds per round")
        for axis in (traffic, time):
            axis.set_yticks(places)
            axis.set_yticklabels(names_of([run["protection"] for run in runs]))
            axis.invert_yaxis()
            axis.set_xlim(0, axis.get_xlim()[1] * 1.2)
            # the axis below has its numbers between
            axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncol=3, handlelength=1.2)
        figure.tight_layout()
    return Path(path)


def _name_bars(axis: Axes, names: Sequence[str]) -> None:
    step = -(-len(names) // NAMED_BARS)
    axis.set_xticks(range(0, len(names), step))
    shown = names_of(names[::step])
    axis.set_xticklabels(shown, **slant(shown))


def _of_hospitals(entry: RoundRecord, key: str) -> Dict[str, Optional[float]]:
    return {name: metrics[key] for name, metrics in entry.hospital_metrics.items()}


def _defined(x: Sequence[int], y: Sequence[Optional[float]]) -> Tuple[List[int], List[float]]:
    """Return the points whose ``y`` is not ``None``, so that a line goes on over rounds not evaluated."""
    points = [(a, b) for a, b in zip(x, y) if b is not None]
    return [a for a, _ in points], [b for _, b in points]
