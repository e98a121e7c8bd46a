"""``skinfl data``: list what can be read, check a folder, draw the synthetic set, show a split."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import typer
from rich.console import Console

from skinfl.console import loading
from skinfl.errors import DataError, SettingsError
from skinfl.paths import path as user_path
from skinfl.settings import Settings

console = Console()
_PNG = b"\x89PNG\r\n\x1a\n"
app = typer.Typer(help="List, check, draw and split data sets.", pretty_exceptions_enable=False)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command("list", epilog="Examples:\n\nskinfl data list")
def list_sources() -> None:
    """List the data sets that can be read, where to get them and how their folders look."""
    from skinfl.data import inspect

    for source in inspect.known_sources():
        _say(f"{source.name}: {source.what}\n    from   {source.page}\n    files  {source.layout}")


@app.command(epilog="Examples:\n\nskinfl data make-synthetic pictures --images 200")
def make_synthetic(
    folder: Path = typer.Argument(..., parser=user_path, help="new folder to draw into"),
    images: int = typer.Option(2000, help="number of pictures"),
    size: int = typer.Option(96, help="height of a picture in pixels"),
    seed: int = typer.Option(0, help="decides what is drawn"),
) -> None:
    """Draw a synthetic data set in HAM10000's layout."""
    from skinfl.data import synthetic

    with loading(console) as progress:
        path = synthetic.write(folder, images=images, image_size=size, seed=seed, progress=progress)
    _say(f"drew {images} pictures into {path}: train on them with --data {path}")


@app.command(epilog="Examples:\n\nskinfl data check ~/HAM10000")
def check(
    path: Path = typer.Argument(..., parser=user_path, help="folder or file as its publisher ships it"),
    metadata: Optional[Path] = typer.Option(
        None, parser=user_path, help="metadata table, where it lies elsewhere"
    ),
) -> None:
    """Read everything, decode every image and list all problems at once."""
    from skinfl.data import inspect

    with loading(console) as progress:
        found = inspect.check(path, metadata=metadata, progress=progress)
    for remark in found.remarks:
        _say(f"note: {remark}")
    if found.images:
        lesions = f"{found.lesions} lesions" if found.lesions_known else "lesions unknown"
        _say(f"{found.source} at {found.path}: {found.images} images, {lesions}")
        for title, counts in (("class", found.classes), ("site", found.sites), ("size", found.sizes)):
            if counts:
                _say(f"  by {title}: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    if found.problems:
        for problem in found.problems[:-1]:
            _say(f"problem: {problem}")
        raise DataError(
            found.problems[-1]
            if len(found.problems) == 1
            else f"{found.problems[-1]} ({len(found.problems)} problems in all)"
        )
    elsewhere = "" if metadata is None else f" --metadata {shlex.quote(str(metadata))}"
    _say(f"no problems: it can be trained on with --data {shlex.quote(str(path))}{elsewhere}")


def show_split(settings: Settings, figure: Optional[Path], force: bool = False) -> None:
    """Print who holds what and the leakage check; draw it into ``figure`` if that is given.

    With ``force``, a figure that is there already is replaced; a file of another kind never is.
    """
    from skinfl.assembly import load_federated_data
    from skinfl.data import inspect
    from skinfl.data.classes import described
    from skinfl.report.wording import class_label

    if figure is not None:
        _check_figure(figure, force)

    with loading(console) as progress:
        found = load_federated_data(settings, progress)
    summary = inspect.summarise_split(found.dataset, found.split, found.partition)
    _say(f"{found.dataset.name}: {len(found.dataset)} images, split by protocol {summary['protocol']!r}")
    _say(_split_table(summary))
    classes = described(found.dataset.class_info)
    if any(each.full_name != each.name for each in classes):
        _say("classes: " + "; ".join(f"{each.name} {class_label(each)}" for each in classes))
    known = "" if summary["lesions_known"] else " (this data set does not tell which photographs share one)"
    _say(f"leakage check: {summary['leaked_lesions']} lesions in both training and test set{known}")
    if summary["leaked_patients"] is not None:
        _say(f"               {summary['leaked_patients']} patients in both")
    _say(f"               {summary['shared_lesions']} lesions at more than one hospital")
    if figure is not None:
        from skinfl.report.plots import who_holds_what

        _say(f"figure: {who_holds_what(_by_name(summary), classes, figure)}")


def _check_figure(figure: Path, force: bool) -> None:
    """Refuse to draw over what is no figure, or unasked over one, or into a file that says it is none."""
    if figure.suffix.lower() != ".png":
        raise SettingsError(f"--figure {figure}: a PNG file is drawn, give it a name that ends in .png")
    try:
        with open(str(figure), "rb") as file:
            is_png = file.read(len(_PNG)) == _PNG
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"--figure {figure}: {error.strerror}, name another file") from None
    if not is_png:
        raise SettingsError(f"--figure {figure} exists and is no PNG file: name another file")
    if not force:
        raise SettingsError(f"--figure {figure} exists: --force replaces it, or name another file")


def _split_table(summary: Mapping[str, Any]) -> str:
    """Return aligned lines: a terminal too narrow wraps them, and never cuts a number off."""
    rows = [["images, training + test", *summary["classes"], "all", "lesions"]]
    for name, held in summary["hospitals"].items():
        rows.append([name, *_cells(held["train"], held["test"]), str(held["lesions"])])
    rows.append(["all", *_cells(summary["train"], summary["test"]), ""])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    )


def _cells(train: List[int], test: List[int]) -> List[str]:
    return [f"{a}+{b}" for a, b in zip([*train, sum(train)], [*test, sum(test)])]


def _by_name(summary: Mapping[str, Any]) -> Dict[str, Dict[str, Dict[str, int]]]:
    return {
        name: {part: dict(zip(summary["classes"], held[part])) for part in ("train", "test")}
        for name, held in summary["hospitals"].items()
    }
