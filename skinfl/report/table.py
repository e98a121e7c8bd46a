"""The comparison of protections: one column per run, one row per quantity."""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Sequence, Tuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skinfl.report import wording

Run = Mapping[str, Any]
Rows = List[List[str]]

SEES = "The aggregator sees"


def comparison_rows(comparison: Mapping[str, Any]) -> Tuple[List[str], Rows]:
    """Return headers and rows of text; the first cell of a row is the quantity's name.

    ``comparison`` is ``{"runs": [result, ...], "differences": {protection: float}}``, the first run
    plaintext. The seconds in a result are those of the whole run; here they are per round.
    """
    rows = [row for group in _groups(comparison) for row in group]
    return _headers(comparison), [*rows, [SEES, *(str(run["aggregator_sees"]) for run in comparison["runs"])]]


def print_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    """Print the table, what must be known of the data above it, what the aggregator sees below.

    Five runs fit into 100 columns, three into 80.
    """
    runs = comparison["runs"]
    first = runs[0]
    console.print(Text(wording.headline(first), style="bold"))
    for note in wording.data_notes(first):
        console.print(Text(note, style="yellow"))
    table = Table()
    headers = _headers(comparison)
    table.add_column(Text(headers[0]), no_wrap=True)
    for header in headers[1:]:
        table.add_column(Text(header), justify="right", overflow="fold")
    for group in _groups(comparison):
        for row in group:
            table.add_row(*map(Text, row), end_section=row is group[-1])
    console.print(table)
    for k, sentence in enumerate(comparison.get("verdict", ())):
        console.print(Text(sentence, style="" if k else "bold"))
    print_classes(runs, console)
    console.print(Text(f"{SEES}:"))
    for line in _sees(comparison):
        console.print(Text(f"  {line}"))


def print_classes(runs: Sequence[Run], console: Console) -> None:
    """Print the sensitivity for each class, a column a run, with names in full and the malignant ones marked.

    A single run has its number of test images and its AUC beside it.
    """
    if any(run["final"] is None for run in runs):
        return
    table = Table()
    table.add_column(Text("Class"), overflow="fold")
    one = len(runs) == 1
    headers = ["Test images", "Sensitivity", "AUC"] if one else _protections(runs)
    for header in headers:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for each in wording.classes_of(runs[0]["data"]):
        found = [run["final"]["per_class"][each.name] for run in runs]
        cells = [wording.score(row["sensitivity"]) for row in found]
        if one:
            cells = [str(found[0]["support"]), *cells, wording.score(found[0]["auc"])]
        table.add_row(
            Text(wording.class_label(each), style="bold" if each.malignant else ""), *map(Text, cells)
        )
    if not one:
        console.print(Text("Sensitivity by class:"))
    console.print(table)


def as_markdown(comparison: Mapping[str, Any]) -> str:
    """Return what :func:`print_comparison` prints as Markdown; ends with a line end."""
    first = comparison["runs"][0]
    headers = _headers(comparison)
    rule = "| --- |" + " ---: |" * (len(headers) - 1)
    rows = [row for group in _groups(comparison) for row in group]
    blocks = [
        *(_escaped(line) for line in [wording.headline(first), *wording.data_notes(first)]),
        "\n".join([_markdown_row(headers), rule, *map(_markdown_row, rows)]),
        *map(_escaped, comparison.get("verdict", ())),
        f"{SEES}:",
        "\n".join(f"- {_escaped(line)}" for line in _sees(comparison)),
    ]
    return "\n\n".join(blocks) + "\n"


def _headers(comparison: Mapping[str, Any]) -> List[str]:
    return ["", *_protections(comparison["runs"])]


def _protections(runs: Sequence[Run]) -> List[str]:
    return [str(run["protection"]) for run in runs]


def _sees(comparison: Mapping[str, Any]) -> List[str]:
    return [f"{run['protection']}: {run['aggregator_sees']}" for run in comparison["runs"]]


def _groups(comparison: Mapping[str, Any]) -> List[Rows]:
    """Return the rows of numbers, those that belong together in one group."""
    runs: Sequence[Run] = comparison["runs"]
    differences = comparison["differences"]

    def row(label: str, cell: Callable[[Run], str]) -> List[str]:
        return [label, *(cell(run) for run in runs)]

    def seconds(phase: str) -> List[str]:
        return row(
            f"Seconds per round: {phase}",
            lambda run: wording.duration(wording.per_round(run["seconds"][phase], run["rounds"])),
        )

    def traffic(direction: str) -> Rows:
        key = f"{direction}_per_hospital_per_round"
        return [
            row(f"Bytes {direction} per hospital and round", lambda run: wording.size(run["bytes"][key])),
            row(
                f"Bytes {direction}, multiple of float32",
                lambda run: wording.multiple(run["bytes"][key], run["bytes"]["float32"]),
            ),
        ]

    scores = [
        row(label, lambda run, key=key: wording.score(run["final"][key]))  # type: ignore[misc] # mypy 11935
        for key, label in wording.METRIC_LABELS.items()
    ]
    distance = row(
        "Largest difference from plaintext",
        lambda run: wording.difference(differences.get(run["protection"])),
    )
    return [
        [*scores, distance],
        [seconds(phase) for phase in (*wording.PHASES, "total")],
        [*traffic("up"), *traffic("down")],
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Return ``text`` on one line, without what would end a cell or start HTML."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
