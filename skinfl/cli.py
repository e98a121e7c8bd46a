"""The command line: ``skinfl train``, ``compare``, ``baseline``, ``data`` and what extras add.

Exit status: 0 done; 2 something the user can mend, in one line; 130 interrupted, the run can be resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import typer
from rich.console import Console

from skinfl import __version__, data_commands, plugins
from skinfl.console import RunDisplay, fail, loading
from skinfl.errors import SettingsError, SkinflError
from skinfl.flags import Invocation, settings_command
from skinfl.inference import commands as inference_commands
from skinfl.settings import Settings

if TYPE_CHECKING:
    from skinfl.assembly import FederatedData

#: the base of all usage errors; newer versions of typer raise those of a click of their own
_UsageError = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
# torch and what builds on it are imported where a command needs them, so that --help is quick.
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()


def _material(settings: Settings) -> FederatedData:
    from skinfl.assembly import load_federated_data

    _use_threads(settings)
    with loading(_console) as progress:
        material = load_federated_data(settings, progress)
    dataset, split = material.dataset, material.split
    note = " (synthetic: drawn, not photographed)" if dataset.synthetic else ""
    _console.print(
        f"data: {dataset.name}{note}, {len(dataset)} images, {len(split.train)} to train and "
        f"{len(split.test)} to test, lesions in both: {split.leaked_lesions}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if split.protocol != "grouped":
        _console.print(f"split: {split.protocol!r}, which lets lesions leak from training into the test set")
    return material


def _use_threads(settings: Settings) -> None:
    """Limit torch's threads: on small networks a second one costs more than it brings.

    On a machine with other work it costs many times more, since the threads wait for one another.
    """
    import torch

    torch.set_num_threads(settings.threads)


def train_and_report(invocation: Invocation) -> None:
    """Run one training and say what came of it."""
    from skinfl.run import run

    material = _material(invocation.settings)
    display = RunDisplay(_console, invocation.settings.protection)
    try:
        outcome = run(
            invocation.settings, material, invocation.out, listeners=[display], resume=invocation.resume
        )
    except KeyboardInterrupt:
        display.close()
        _interrupted(invocation.out)
    finally:
        display.close()
    final = outcome.result["final"]
    _console.print(
        f"final: accuracy {final['accuracy']:.3f}, balanced accuracy {final['balanced_accuracy']:.3f}, "
        f"macro F1 {final['macro_f1']:.3f}",
        highlight=False,
    )
    _console.print(f"report: {outcome.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def compare_and_report(invocation: Invocation, protections: str) -> None:
    """Run plaintext and the other protections, print the table."""
    from skinfl.assembly import check
    from skinfl.report.table import print_comparison
    from skinfl.studies.compare import compare

    names = _listed(protections)
    for name in names:
        check(invocation.settings.replace(protection=name))  # refuses it before anything runs
    material = _material(invocation.settings)
    displays: List[RunDisplay] = []

    def listeners(protection: str) -> Tuple[RunDisplay, ...]:
        for display in displays:
            display.close()
        displays.append(RunDisplay(_console, protection))
        return (displays[-1],)

    try:
        comparison = compare(
            invocation.settings,
            material,
            invocation.out,
            protections=names,
            listeners=listeners,
            resume=invocation.resume,
        )
    except KeyboardInterrupt:
        displays[-1].close()
        _interrupted(invocation.out)
    finally:
        for display in displays:
            display.close()
    print_comparison(comparison, _console)
    _console.print(f"report: {invocation.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def scale_and_report(invocation: Invocation, seeds: int) -> None:
    """Train centralised, federated and local-only for some seeds, print balanced accuracies."""
    from skinfl.report.files import write_json
    from skinfl.studies.scale import scale, scale_table

    found = _new(invocation.out / "scale.json")
    _use_threads(invocation.settings)
    with loading(_console) as progress:
        rows = scale(invocation.settings, seeds, progress)
    write_json(found, rows)
    _console.print(scale_table(rows))
    _console.print(f"figures: {found}", markup=False, highlight=False, soft_wrap=True)


def variants_and_report(invocation: Invocation, variants: str, seeds: int) -> None:
    """Train under several protections and seeds; print and draw what each costs."""
    from skinfl.report.files import write_json
    from skinfl.report.plots import draw_variants
    from skinfl.studies.variants import curves, measure, variants_table

    found = _new(invocation.out / "variants.json")
    _use_threads(invocation.settings)
    rows: List[Dict[str, Any]] = []
    with loading(_console) as progress:
        for row in measure(invocation.settings, _listed(variants), seeds, progress):
            rows.append(row)
            write_json(found, rows)  # each costs minutes: none is lost
    _console.print(variants_table(rows))
    accuracies = {key: curves(rows, key) for key in ("accuracy", "balanced_accuracy")}
    figure = draw_variants(invocation.out / "variants.png", accuracies)
    _console.print(f"figure: {figure}", markup=False, highlight=False, soft_wrap=True)


def _new(path: Path) -> Path:
    """Return ``path``; refuse one that holds figures already, which may have taken hours."""
    if path.exists():
        raise SettingsError(f"{path} exists: name another --out")
    return path


def _listed(text: str) -> Tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _interrupted(out: Path) -> None:
    print(f"interrupted: finished rounds are kept, go on with --resume {out}", file=sys.stderr)
    raise SystemExit(130)


@app.command()
@settings_command("train")
def train(invocation: Invocation) -> None:
    """Train under one protection and write a report."""
    train_and_report(invocation)


@app.command()
@settings_command("compare", {"protection": "plaintext"})
def compare(
    invocation: Invocation,
    protections: str = typer.Option("smpc,he", help="protections to compare with plaintext, by comma"),
) -> None:
    """Train under several protections with the same seeds and print them side by side."""
    compare_and_report(invocation, protections)


@data_commands.app.command("split")
@settings_command("split", groups=("Data", "Hospitals"))
def split(
    invocation: Invocation,
    figure: Optional[str] = typer.Option(None, help="PNG file to draw who holds what into"),
) -> None:
    """Show who holds what after the split, with its leakage check."""
    data_commands.show_split(invocation.settings, figure)


app.add_typer(data_commands.app, name="data")
inference_commands.register(app)
if sys.version_info >= (3, 11):  # Flower's own lower limit
    from skinfl.flower.provisioning import commands as flower_commands

    flower_commands.register(app)


def version(value: bool) -> None:
    """Print the version and leave."""
    if value:
        print(f"skinfl {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    show_version: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Show the version."
    ),
    plugin: Optional[str] = typer.Option(
        None,
        plugins.FLAG,
        help="Python file or module that registers more to choose from; may stand more than once, anywhere",
    ),
) -> None:
    """Train one skin-lesion classifier across hospitals without showing each other anything."""


def execute(command: typer.Typer) -> None:
    """Run a command; what a user can mend becomes one line on stderr and exit status 2."""
    arguments = sys.argv[1:]
    try:
        arguments = plugins.load_for(arguments)
        status = typer.main.get_command(command)(arguments or None, standalone_mode=False)
    except typer.Exit as stop:
        status = stop.exit_code
    except typer.Abort:
        status = 130
    except _UsageError as error:
        fail(f"{error.format_message()} (--help lists what there is)")
    except SkinflError as error:
        fail(error)
    raise SystemExit(status if isinstance(status, int) else 0)


def main() -> None:
    """Entry point of the console script ``skinfl``."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    execute(app)


def experiment(name: str, function: Callable, fixed: Dict[str, Any]) -> None:
    """Run a script of ``experiments/``: a training command with some settings fixed."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command(help=function.__doc__)(settings_command(name, fixed)(function))
    execute(command)
