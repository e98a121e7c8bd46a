"""What all figures have in common: size, letters, colours, and how a name is written into one.

Everything goes through matplotlib's objects and its Agg canvas: importing this module neither picks a
backend nor touches the settings of whoever plots beside it.
"""

from __future__ import annotations

import io
import textwrap
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from skinfl.files import PathLike, write_bytes
from skinfl.predictions import LesionClass
from skinfl.report import wording

#: dark enough for white paper (contrast of 4.5 and more) and of hues that the colour-blind tell apart, after
#: Okabe and Ito, *Color Universal Design*, 2008; lines differ in their dashes as well, fills in their hatches
PALETTE = ("#0072B2", "#A84B00", "#00704F", "#A3397A", "#5B4FA0", "#7A6A00", "#B00020", "#000000")
DASHES = ("-", "--", "-.", ":")
LINE, BAND, FAINT, PAPER = PALETTE[0], "#B7D6EA", "#5D646C", "#FFFFFF"
#: inches. A figure must be read on a phone, where it is 350 pixels wide: no wider, and no smaller letters
WIDTH, HEIGHT = 4.8, 3.6
LETTERS = 9.5
SETTINGS: Dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": LETTERS,
    "xtick.labelsize": LETTERS,
    "ytick.labelsize": LETTERS,
}
BELOW: Dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "handlelength": 2.2}


@contextmanager
def figure_at(
    path: PathLike,
    rows: int = 1,
    columns: int = 1,
    *,
    size: Tuple[float, float] = (WIDTH, HEIGHT),
    **grid: Any,
) -> Iterator[Tuple[Figure, np.ndarray]]:
    """Give a figure and its axes, an array of shape (rows, columns); write it to ``path`` at the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=size, dpi=170)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **grid)
        buffer = io.BytesIO()
        # "tight" takes in what reaches past the edge: long slanted names, a legend beside the axes.
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    write_bytes(path, buffer.getvalue())


def fill(k: int) -> Dict[str, Any]:
    """Return the look of the ``k``-th class; hatched when the palette starts again."""
    hatch = ("", "///", "...", "xxx")[k // len(PALETTE) % 4]
    return {"color": PALETTE[k % len(PALETTE)], "hatch": hatch, "edgecolor": PAPER, "linewidth": 0.6}


def line_of(k: int) -> Dict[str, Any]:
    """Return the look of the ``k``-th class's line; neighbours differ in colour and in dashes."""
    return {"color": PALETTE[k % (len(PALETTE) - 1)], "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.6}


def nested(k: int, lines: int) -> Dict[str, Any]:
    """Return the look of the ``k``-th of lines that may lie on one another."""
    width = 1.6 + 2.2 * (lines - 1 - k) if lines <= 4 else 1.6
    return {"color": PALETTE[k % len(PALETTE)], "linestyle": DASHES[min(k, 1)], "linewidth": width}


def chance(axis: Axes) -> None:
    """Prepare axes for ROC curves, with the line of who guesses."""
    axis.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1)
    axis.set_xlim(-0.01, 1.01)
    axis.set_ylim(-0.01, 1.01)
    axis.set_xlabel("others suspected wrongly (1 − specificity)")
    axis.set_ylabel("found (sensitivity)")


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the contrast ratio, 1 to 21, of two colours given as red, green, blue from 0 to 1 (WCAG 2.1)."""
    levels = [np.asarray(colour[:3], dtype=float) for colour in (one, other)]
    linear = [np.where(v <= 0.03928, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for v in levels]
    low, high = sorted(float(v @ (0.2126, 0.7152, 0.0722)) for v in linear)
    return (high + 0.05) / (low + 0.05)


def readable_on(background: Sequence[float]) -> str:
    """Return black or white, whichever is read better on a colour: the contrast is 4.58 at least."""
    return max("black", "white", key=lambda name: contrast(to_rgb(name), background))


def slant(names: Sequence[str], room: int = 48) -> Dict[str, Any]:
    """Return how to set names below an axis: level while they fit side by side, in ``room`` letters."""
    if max(map(len, names)) * len(names) <= room:
        return {}
    return {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}


def label_bars(axis: Axes, bars: Any, texts: Sequence[str]) -> None:
    """Write one text behind the end of each horizontal bar."""
    for bar, text in zip(bars, texts):
        axis.annotate(
            text,
            (bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height() / 2),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=LETTERS,
        )


def names_of(names: Sequence[Any]) -> List[str]:
    """Return names as labels: no formula is read into a dollar sign, the middle of long ones left out."""
    short = [name if len(name) <= 20 else f"{name[:12]}…{name[-7:]}" for name in map(str, names)]
    return [name.replace("$", r"\$") for name in short]


def marked(text: str, each: LesionClass) -> str:
    """Return ``text`` with the sign of what is malignant behind it, where the class is."""
    return f"{text} {wording.SIGN}" if each.malignant else text


def in_full(each: LesionClass, width: int) -> str:
    """Return a class's name in full as lines of at most ``width`` letters, malignant ones marked."""
    lines = textwrap.wrap(marked(each.full_name, each), width, max_lines=4, placeholder=" …") or [each.name]
    return "\n".join(line.replace("$", r"\$") for line in lines)
