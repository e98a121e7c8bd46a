"""Figures of one run and of a comparison, as PNG files.

Everything goes through matplotlib's objects and its Agg canvas: importing this module neither picks a
backend nor touches the settings of whoever plots beside it.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from skinfl.files import PathLike, write_bytes
from skinfl.report import wording

if TYPE_CHECKING:
    from skinfl.federation.records import RoundRecord

#: safe for the colour-blind: Okabe and Ito, *Color Universal Design*, 2008; black last
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
LINE, BAND = PALETTE[0], PALETTE[5]
SIZE = (6.0, 4.0)
SETTINGS: Dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "handlelength": 1.2}
#: more bars than this and only some of them get a name
NAMED_BARS = 12


def draw_run(folder: PathLike, result: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> Dict[str, Path]:
    """Draw the figures of a run into ``folder``; return ``{caption: path}``."""
    folder = Path(folder)
    classes = result["data"]["classes"]
    figures = {
        "Training curves": training_curves(rounds, folder / "curves.png"),
        "Confusion matrix on the common test set": confusion_matrix(
            result["final"], classes, folder / "confusion.png"
        ),
    }
    if result["partition"]:
        figures["Who holds what"] = who_holds_what(result["partition"], classes, folder / "partition.png")
    return figures


def draw_comparison(folder: PathLike, comparison: Mapping[str, Any]) -> Dict[str, Path]:
    """Draw the figures of a comparison into ``folder``; return ``{caption: path}``."""
    return {
        "Bytes and seconds by protection": cost_by_protection(comparison, Path(folder) / "cost.png"),
    }


def draw_variants(path: PathLike, metrics: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """Draw each metric over rounds, a line a variant: the mean over seeds, and a band of all seeds.

    ``metrics`` are ``{metric: {variant: (seeds, rounds)}}``; rounds not evaluated are NaN.
    """
    with _figure(path, 1, len(metrics)) as (figure, axes):
        for axis, (key, variants) in zip(axes[0], metrics.items()):
            for k, (name, values) in enumerate(variants.items()):
                shown = ~np.isnan(values).any(axis=0)
                number, values = np.flatnonzero(shown) + 1, values[:, shown]
                colour = PALETTE[k % len(PALETTE)]
                axis.plot(number, values.mean(axis=0), color=colour, label=_names([name])[0])
                axis.fill_between(number, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)
            axis.set_title(wording.METRIC_LABELS[key])
            axis.set_xlabel("round")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes[0, -1].legend(**BESIDE)
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
    with _figure(path, 2, 2) as (figure, axes):
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
            band = axis.fill_between(x, low, high, color=BAND, alpha=0.35, linewidth=0)
            axis.plot(x, low, x, high, color=BAND, linewidth=0.8, marker=ends, markersize=12, zorder=1)
            axis.set_title(title)
            axis.set_xlim(min(number) - 0.3, max(number) + 0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
            if key != "loss":
                axis.set_ylim(0, 1.02)
        for axis in axes[1]:
            axis.set_xlabel("round")
        figure.legend(
            [line, band], ["common test set", "from worst to best hospital"], loc="lower center", ncol=2
        )
        figure.tight_layout(rect=(0, 0.06, 1, 1))
    return Path(path)


def confusion_matrix(metrics: Mapping[str, Any], classes: Sequence[str], path: PathLike) -> Path:
    """Draw the confusion matrix: colour is the share of the true class, the number is images."""
    counts = np.asarray(metrics["confusion"], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    names = _names(classes)
    with _figure(path) as (figure, axes):
        axis = axes[0, 0]
        picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*counts.shape):
            axis.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.55 else "black",
            )
        axis.set_xticks(range(len(names)))
        axis.set_xticklabels(names, **_slant(names))
        axis.set_yticks(range(len(names)))
        axis.set_yticklabels(names)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        axis.spines[:].set_visible(False)
        bar = figure.colorbar(picture, ax=axis, label="share of the true class")
        bar.outline.set_visible(False)
        figure.tight_layout()
    return Path(path)


def who_holds_what(
    partition: Mapping[str, Mapping[str, Mapping[str, int]]], classes: Sequence[str], path: PathLike
) -> Path:
    """Draw each hospital's images by class, training above and test below, for 2 to 100 hospitals.

    ``partition`` is ``{hospital: {"train": {class: images}, "test": {class: images}}}``.
    """
    hospitals = list(partition)
    places = np.arange(len(hospitals))
    with _figure(path, 2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1.3]}) as (figure, axes):
        for axis, fold in zip(axes[:, 0], ("train", "test")):
            bottom = np.zeros(len(hospitals))
            bars = []
            for k, name in enumerate(classes):
                counts = np.array([partition[hospital][fold].get(name, 0) for hospital in hospitals])
                bars.append(axis.bar(places, counts, 0.85, bottom, **_fill(k)))
                bottom += counts
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if fold == "train" else 3))
        axes[0, 0].set_ylabel("training images")
        axes[1, 0].set_ylabel("test images")
        _name_bars(axes[1, 0], hospitals)
        # Top of the legend is the top of a bar.
        axes[0, 0].legend(bars[::-1], _names(classes)[::-1], **BESIDE)
        figure.align_ylabels()
        figure.tight_layout()
    return Path(path)


def cost_by_protection(comparison: Mapping[str, Any], path: PathLike) -> Path:
    """Draw bytes per hospital and round, and seconds per round by phase, one bar per protection."""
    runs = comparison["runs"]
    places = np.arange(len(runs))
    with _figure(path, 2, 1) as (figure, axes):
        traffic, time = axes[:, 0]
        for k, direction in enumerate(("up", "down")):
            counts = [run["bytes"][f"{direction}_per_hospital_per_round"] or 0 for run in runs]
            bars = traffic.barh(places + 0.4 * k - 0.2, counts, 0.36, color=PALETTE[k], label=direction)
            _label(traffic, bars, [wording.size(count) for count in counts])
        plain = runs[0]["bytes"]["float32"]
        traffic.axvline(plain, color="0.3", linewidth=0.9, linestyle="--", label="plain float32")
        traffic.xaxis.set_major_formatter(FuncFormatter(lambda count, _: wording.size(count)))
        traffic.xaxis.set_major_locator(MaxNLocator(nbins=5))
        traffic.set_title("Bytes per hospital and round")
        total = np.zeros(len(runs))
        for k, phase in enumerate(wording.PHASES):
            seconds = [wording.per_round(run["seconds"][phase], run["rounds"]) or 0 for run in runs]
            bars = time.barh(places, seconds, 0.6, total, color=PALETTE[k], label=phase)
            total += seconds
        _label(time, bars, [f"{wording.duration(seconds)} s" for seconds in total])
        time.set_title("Seconds per round")
        for axis in (traffic, time):
            axis.set_yticks(places)
            axis.set_yticklabels(_names([run["protection"] for run in runs]))
            axis.invert_yaxis()
            axis.set_xlim(0, axis.get_xlim()[1] * 1.12)
            axis.legend(**BESIDE)
        figure.tight_layout()
    return Path(path)


@contextmanager
def _figure(
    path: PathLike, rows: int = 1, columns: int = 1, **grid: Any
) -> Iterator[Tuple[Figure, np.ndarray]]:
    """Give a figure and its axes, an array of shape (rows, columns); write it to ``path`` at the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=SIZE, dpi=150)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **grid)
        buffer = io.BytesIO()
        # "tight" takes in what reaches past the edge: long slanted names, a legend beside the axes.
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    write_bytes(path, buffer.getvalue())


def _fill(k: int) -> Dict[str, Any]:
    """Return the look of the ``k``-th class; hatched when the palette starts again."""
    hatch = ("", "///", "...", "xxx")[k // len(PALETTE) % 4]
    return {"color": PALETTE[k % len(PALETTE)], "hatch": hatch, "edgecolor": "white", "linewidth": 0.0}


def _name_bars(axis: Axes, names: Sequence[str]) -> None:
    step = -(-len(names) // NAMED_BARS)
    axis.set_xticks(range(0, len(names), step))
    shown = _names(names[::step])
    axis.set_xticklabels(shown, **_slant(shown))


def _slant(names: Sequence[str]) -> Dict[str, Any]:
    """Return how to set names below an axis: level while they fit side by side."""
    if max(map(len, names)) * len(names) <= 60:
        return {}
    return {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}


def _label(axis: Axes, bars: Any, texts: Sequence[str]) -> None:
    """Write one text behind the end of each horizontal bar."""
    for bar, text in zip(bars, texts):
        axis.annotate(
            text,
            (bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height() / 2),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )


def _names(names: Sequence[Any]) -> List[str]:
    """Return names as labels: no formula is read into a dollar sign, the middle of long ones left out."""
    short = [name if len(name) <= 20 else f"{name[:12]}…{name[-7:]}" for name in map(str, names)]
    return [name.replace("$", r"\$") for name in short]


def _of_hospitals(entry: RoundRecord, key: str) -> Dict[str, Optional[float]]:
    return {name: metrics[key] for name, metrics in entry.hospital_metrics.items()}


def _defined(x: Sequence[int], y: Sequence[Optional[float]]) -> Tuple[List[int], List[float]]:
    """Return the points whose ``y`` is not ``None``, so that a line goes on over rounds not evaluated."""
    points = [(a, b) for a, b in zip(x, y) if b is not None]
    return [a for a, _ in points], [b for _, b in points]
