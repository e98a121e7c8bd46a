"""``skinfl predict``, ``evaluate`` and ``export``: what a trained network is used for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

import typer
from rich.console import Console

from skinfl.console import loading, report
from skinfl.errors import DataError, SettingsError, nearest
from skinfl.paths import path

if TYPE_CHECKING:
    from skinfl.use.predicting import Answer

console = Console()
NO_DEVICE = "This is research software, not a medical device: no diagnosis or treatment may rest on it."
_SHOWN = (
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_f1", "macro F1"),
    ("auc", "AUC"),
    ("melanoma_sensitivity_at_90_specificity", "melanoma sensitivity at 90% specificity"),
)
#: a file's name takes no more of a line than this, unless its last part needs it
_WIDEST = 60
#: photographs that an exported network is checked on
_CHECKED = 32
MODEL = typer.Option(..., "--model", parser=path, help="folder of a run, or the model.npz that it wrote")
TTA = typer.Option(
    None,
    "--tta",
    min=1,
    max=8,
    help="views of each photograph, turned and mirrored, whose mean is taken; the default is as in training",
)
DEVICE = typer.Option("auto", "--device", help="where the network computes: auto, cpu, cuda, cuda:1 or mps")
FORCE = typer.Option(False, "--force", help="replace what is there already")


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(
        epilog="Examples:\n\nskinfl predict lesion.jpg --model runs/RUN\n\n"
        "skinfl predict photographs --model runs/RUN --csv answers.csv --tta 8"
    )(predict)
    app.command(
        epilog="Examples:\n\nskinfl evaluate --model runs/RUN --data ~/ISIC2019\n\n"
        "skinfl evaluate --model runs/RUN --data ~/PAD-UFES-20 --json figures.json --csv answers.csv"
    )(evaluate)
    app.command(
        epilog="Examples:\n\nskinfl export --model runs/RUN --format onnx --out lesions.onnx\n\n"
        "skinfl export --model runs/RUN --out lesions.pt --photographs ~/photographs"
    )(export)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def predict(
    images: List[Path] = typer.Argument(
        ..., parser=path, help="image files, or folders with all that lies below them"
    ),
    model: Path = MODEL,
    table: Optional[Path] = typer.Option(
        None, "--csv", parser=path, help="table to write: the probability of each class for each photograph"
    ),
    tta: Optional[int] = TTA,
    device: str = DEVICE,
    force: bool = FORCE,
) -> None:
    """Say what a network sees in photographs.

    What is wrong with one image is said on stderr, with exit status 2 at the end; the others are classified.
    """
    _check_free([("--csv", table)], force)
    from skinfl.devices import compute_on
    from skinfl.predictions import write_predictions
    from skinfl.use.models import classifier_of
    from skinfl.use.predicting import image_files, predict_files, table_of

    classifier = classifier_of(model)
    compute = compute_on(device, "off", image_size=classifier.image_size)
    files = image_files(images)
    answers: List[Answer] = []
    bad = 0

    def complain(file: Path, error: DataError) -> None:
        nonlocal bad
        bad += 1
        report(error if str(file) in str(error) else f"{file}: {error}")

    lines = _Lines(files, classifier.class_info)
    done = False
    try:
        with loading(console) as progress, compute.place(classifier):
            for batch in predict_files(classifier, files, tta=tta, complain=complain):
                for answer in batch:
                    _say(lines.of(answer))
                answers += batch
                progress(len(answers) + bad, len(files), "photographs")
        done = True
    finally:
        # Whatever ends it, hours of answers are not thrown away.
        if table is not None and answers:
            write_predictions(table, table_of(classifier, answers))
            _say(f"table: {table}" if done else f"table of the {len(answers)} that are done: {table}")
    if answers:
        _say(NO_DEVICE)
    if bad:
        others = "the others are classified" if answers else "there are no others"
        report(f"{bad} of {len(files)} files could not be read, see above; {others}")
        raise typer.Exit(2)


class _Lines:
    """The lines of a table that is printed while it is made; a heading stands before the first.

    What is longest comes last, so that few lines are wider than a terminal.
    """

    def __init__(self, files: Sequence[Path], classes: Sequence[Any]):
        from skinfl.predictions import in_full

        self._names = [in_full(each) for each in classes]
        self._malignant = [k for k, each in enumerate(classes) if each.malignant]
        self._width = min(_WIDEST, max(map(len, ["file", *map(str, files)])))
        heading = ["file".ljust(self._width), *(["any malignant"] if self._malignant else []), "probability"]
        self._heading = "  ".join([*heading, "diagnosis"])

    def of(self, answer: Answer) -> str:
        """Return an answer's line, the first with the heading above it."""
        best = int(answer.probabilities.argmax())
        cells = [f"{answer.probabilities[best]:>11.1%}", self._names[best]]
        if self._malignant:
            cells.insert(0, f"{answer.probabilities[self._malignant].sum():>13.1%}")
        line = "  ".join([str(answer.file).ljust(self._width), *cells])
        heading, self._heading = self._heading, ""
        return f"{heading}\n{line}" if heading else line


def evaluate(
    model: Path = MODEL,
    data: str = typer.Option(
        ..., "--data", help="data set as its publisher ships it, of classes that the network knows"
    ),
    metadata: Optional[Path] = typer.Option(
        None, "--metadata", parser=path, help="metadata table, where it lies elsewhere"
    ),
    figures: Optional[Path] = typer.Option(None, "--json", parser=path, help="file for all figures"),
    table: Optional[Path] = typer.Option(
        None, "--csv", parser=path, help="file for each photograph's answer"
    ),
    tta: Optional[int] = TTA,
    everything: bool = typer.Option(
        False, "--all", help="evaluate on what the network learnt from, too, which flatters it"
    ),
    seed: int = typer.Option(0, "--seed", help="decides what the intervals draw"),
    device: str = DEVICE,
    force: bool = FORCE,
) -> None:
    """Say how a network does on another data set, whose classes are matched by name.

    What cannot be matched is said and left out, and so is what the network learnt from.
    """
    _check_free([("--json", figures), ("--csv", table)], force)
    from skinfl.devices import compute_on
    from skinfl.files import write_json
    from skinfl.predictions import write_predictions
    from skinfl.use.evaluating import evaluate_on
    from skinfl.use.models import classifier_of, load_for, run_of

    classifier = classifier_of(model)
    compute = compute_on(device, "off", image_size=classifier.image_size)
    with loading(console) as progress, compute.place(classifier):
        dataset = load_for(classifier, data, metadata=metadata, progress=progress)
        found = evaluate_on(
            classifier,
            dataset,
            run=run_of(model),
            everything=everything,
            tta=tta,
            seed=seed,
            progress=progress,
        )
    for line in evaluation_lines(found.result):
        _say(line)
    if figures is not None:
        _say(f"figures: {write_json(figures, found.result)}")
    if table is not None:
        write_predictions(table, found.predictions)
        _say(f"table: {table}")


def export(
    model: Path = MODEL,
    out: Path = typer.Option(..., "--out", parser=path, help="file to write"),
    format: str = typer.Option("torchscript", "--format", help="torchscript or onnx"),
    photographs: Optional[Path] = typer.Option(
        None,
        "--photographs",
        parser=path,
        help="image file, or folder of them, to check the file on; the run's own are tried if it is left out",
    ),
    force: bool = FORCE,
) -> None:
    """Write a network as one file for other programs, checked against torch first.

    Pixels of 0 to 1 go in, shape (n, channels, size, size), probabilities come out: normalisation,
    temperature and softmax are inside.
    """
    _check_free([("--out", out)], force)
    from skinfl.predictions import in_full
    from skinfl.use.exporting import FORMATS, about
    from skinfl.use.exporting import export as write
    from skinfl.use.models import classifier_of, photographs_of, run_of
    from skinfl.use.predicting import image_files

    if format not in FORMATS:
        raise SettingsError(f"--format {format}: {nearest(format, FORMATS)}")
    classifier = classifier_of(model)
    run = run_of(model)
    if photographs is not None:
        pictures = [classifier.pixels(file) for file in image_files(photographs)[:_CHECKED]]
    else:
        pictures = [] if run is None else photographs_of(run, classifier)
    found = write(classifier, out, format, pictures)
    told = about(classifier)
    _say(f"input: {told['input']}")
    _say(f"output: {told['output']}: {', '.join(in_full(each) for each in classifier.class_info)}")
    if found.difference is None:
        _say(f"note: {found.note}")
    else:
        _say(
            f"checked on {found.checked}: probabilities differ from torch's by {found.difference:.1e} at most"
        )
    _say(f"{format}: {out}")


def evaluation_lines(result: Mapping[str, Any]) -> List[str]:
    """Return what a terminal shows of an evaluation: what was compared with what, then the figures."""
    from skinfl.predictions import in_full

    names = {
        each["name"]: in_full((each["name"], each["full_name"], each["malignant"]))
        for each in result["classes"]
    }
    lesions = f" of {result['lesions']} lesions" if result["lesions_known"] else ""
    drawn = " (synthetic: drawn, not photographed)" if result["synthetic"] else ""
    lines = [f"{result['data']}{drawn}: evaluated on {result['images']} images{lesions}"]
    lines += _matching_lines(result, names)
    lines.append("")
    width = max(len(title) for _, title in _SHOWN)
    for key, title in _SHOWN:
        lines.append(f"{title.ljust(width)}  {_with_interval(result[key], result['intervals'][key])}")
    lines.append(f"(in brackets: {result['interval_level']:.0%} intervals by the bootstrap over lesions)")
    lines += ["", *_class_lines(result, names)]
    return lines


def _matching_lines(result: Mapping[str, Any], names: Mapping[str, str]) -> List[str]:
    lines = []
    for key, whose in (("matched", "data"), ("merged", "network")):
        renamed = {a: b for a, b in result[key].items() if a.lower() != b.lower()}
        if renamed:
            listed = ", ".join(f"{a} as {b}" for a, b in renamed.items())
            lines.append(f"classes of the {whose} that count as others: {listed}")
    unmatched: Dict[str, int] = result["unmatched"]["data"]
    if unmatched:
        listed = ", ".join(f"{name} ({count} images)" for name, count in unmatched.items())
        lines.append(f"classes that the network does not know, left out: {listed}")
    lacking = [names[name] for name in result["unmatched"]["model"]]
    if lacking:
        lines.append(f"classes that the data do not have, still among the answers: {', '.join(lacking)}")
    trained_on, left_out = result["trained_on"], result["left_out"]["trained_on"]
    if left_out:
        lines.append(
            f"left out: {left_out} images that the network learnt from ({result['trained_on_told_by']})"
        )
    elif trained_on:
        lines.append(
            f"warning: the network learnt from {trained_on} of these images or of their lesions: "
            "these figures say nothing of new patients"
        )
    elif not result["trained_on_told_by"]:
        lines.append("note: whether the network learnt from some of these images cannot be told")
    return lines


def _class_lines(result: Mapping[str, Any], names: Mapping[str, str]) -> List[str]:
    width = max(5, *map(len, names.values()))
    lines = [f"{'class'.ljust(width)}  images  sensitivity  specificity    AUC"]
    for name, own in result["per_class"].items():
        cells = [
            f"{own['support']:>6}",
            *(
                f"{_number(own[key]):>{n}}"
                for key, n in (("sensitivity", 11), ("specificity", 11), ("auc", 5))
            ),
        ]
        lines.append("  ".join([names[name].ljust(width), *cells]))
    return lines


def _with_interval(value: Optional[float], interval: Optional[Sequence[float]]) -> str:
    ends = "" if interval is None else f"  [{interval[0]:.3f}, {interval[1]:.3f}]"
    return _number(value) + ends


def _number(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.3f}"


def _check_free(named: Sequence[Any], force: bool) -> None:
    """Refuse, before any work, to write over a file unasked, or to where nothing can be written."""
    from skinfl.files import check_writable

    for flag, file in named:
        if file is None:
            continue
        if file.is_dir():
            raise SettingsError(f"{flag} {file} is a folder: name a file")
        if file.exists() and not force:
            raise SettingsError(f"{flag} {file} exists: --force replaces it, or name another file")
        check_writable(file)
    files = [str(file) for _, file in named if file is not None]
    if len(set(files)) < len(files):
        raise SettingsError(f"{files[0]} is named for two things: name two files")
