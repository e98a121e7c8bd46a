"""The command line: ``skinfl train``, ``compare``, ``data`` and what extras add.

Exit status: 0 done; 2 something the user can mend, in one line; 130 interrupted, the run can be resumed.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import typer
from rich.console import Console

from skinfl import data_commands, plugins, use_commands
from skinfl.console import RunDisplay, fail, loading, prepare_streams, settle_streams
from skinfl.errors import SkinflError, broken_package
from skinfl.flags import Invocation, settings_command
from skinfl.inference import commands as inference_commands
from skinfl.paths import PathLike, command_line, path, program, this_command
from skinfl.run_folder import CHECKPOINT, MODEL, PERSONAL
from skinfl.settings import Settings
from skinfl.version import __version__

if TYPE_CHECKING:
    from skinfl.assembly import FederatedData

#: the base of all usage errors; newer versions of typer raise those of a click of their own
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
# torch and what builds on it are imported where a command needs them, so that --help is quick.
_HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(pretty_exceptions_enable=False, context_settings=_HELP)
#: why a file or terminal takes no more of what is printed; other files' errors have a name in them
_NO_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG)
_console = Console()


def _say(text: str) -> None:
    _console.print(text, markup=False, highlight=False, soft_wrap=True)


def _load_federated(settings: Settings) -> FederatedData:
    from skinfl.assembly import load_federated_data

    _use_threads(settings)
    with loading(_console) as progress:
        federated = load_federated_data(settings, progress)
    dataset, split = federated.dataset, federated.split
    note = " (synthetic: drawn, not photographed)" if dataset.synthetic else ""
    _say(
        f"data: {dataset.name}{note}, {len(dataset)} images, {len(split.train)} to train and "
        f"{len(split.test)} to test, lesions in both: {split.leaked_lesions}"
    )
    if split.protocol != "grouped":
        _console.print(f"split: {split.protocol!r}, which lets lesions leak from training into the test set")
    return federated


def _use_threads(settings: Settings) -> None:
    """Limit torch's threads: on small networks a second one costs more than it brings.

    On a machine with other work it costs many times more, since the threads wait for one another.
    """
    import torch

    torch.set_num_threads(settings.threads)


def train_and_report(invocation: Invocation, track: str = "") -> None:
    """Run one training and say what came of it; ``track`` names where its figures go as well."""
    from skinfl import tracking
    from skinfl.report.table import print_classes
    from skinfl.run import load_matching, run

    settings, folder = invocation.settings, invocation.folder
    trackers = tracking.listeners(tracking.check(track), folder.path, settings.asdict(), _say)
    if folder.resumed:
        load_matching(folder.path / CHECKPOINT, settings)  # before the data are read, which takes longer
    federated = _load_federated(settings)
    display = RunDisplay(_console, settings.protection)
    try:
        outcome = run(settings, federated, folder, listeners=[display, *trackers])
    finally:
        display.close()
        for tracker in trackers:
            tracker.close()
    final = outcome.result["final"]
    _say(
        f"final: accuracy {final['accuracy']:.3f}, balanced accuracy {final['balanced_accuracy']:.3f}, "
        f"macro F1 {final['macro_f1']:.3f}"
    )
    if outcome.result["selected_by"] != "last":
        early = ", where nothing got better any more" if outcome.result["stopped_early"] else ""
        best, rounds = outcome.result["best_round"], outcome.result["rounds"]
        _say(f"the model is that after round {best} of {rounds}{early}, as the validation images say")
    print_classes([outcome.result], _console)
    for sentence in outcome.result["sentences"]:
        _say(sentence)
    _warn_of_missing_updates([outcome.result])
    _say(f"report: {outcome.out / 'report.html'}")
    if outcome.result["rounds_with_update"]:
        _say_how_to_go_on(settings, folder.path)


def compare_and_report(invocation: Invocation, protections: Optional[str]) -> None:
    """Run plaintext and the other protections, print the table."""
    from skinfl.assembly import check
    from skinfl.report.table import print_comparison
    from skinfl.run import load_matching
    from skinfl.studies.compare import chosen, compare

    settings, folder = invocation.settings, invocation.folder
    names = chosen(None if protections is None else _listed(protections), folder)
    for name in ("plaintext", *names):
        checked = settings.replace(protection=name)
        check(checked)  # refuses what is bound to fail before anything runs
        if folder.resumed and (folder.path / name / CHECKPOINT).exists():
            load_matching(folder.path / name / CHECKPOINT, checked)
    federated = _load_federated(settings)
    displays: List[RunDisplay] = []

    def listeners(protection: str) -> Tuple[RunDisplay, ...]:
        for display in displays:
            display.close()
        displays.append(RunDisplay(_console, protection))
        return (displays[-1],)

    try:
        comparison = compare(settings, federated, folder, protections=names, listeners=listeners)
    finally:
        for display in displays:
            display.close()
    print_comparison(comparison, _console)
    _warn_of_missing_updates(comparison["runs"])
    _say(f"report: {folder.path / 'report.html'}")
    _say_how_to_go_on(settings, folder.path / (names[0] if names else "plaintext"))


def _warn_of_missing_updates(results: Sequence[Mapping[str, Any]]) -> None:
    """Say where a run looks trained and is not, or less than it seems."""
    for result in results:
        rounds, with_update = result["rounds"], result["rounds_with_update"]
        if not with_update:
            _say(
                f"warning: no update entered the model in any of {rounds} rounds of {result['protection']}: "
                "these are the figures of an untrained network"
            )
        elif with_update < rounds:
            _say(
                f"note: {rounds - with_update} of {rounds} rounds of {result['protection']} brought no update"
            )


def _say_how_to_go_on(settings: Settings, run: Path) -> None:
    """Print commands that can be pasted: what a trained network is for."""
    if settings.model != "skinnet":  # the others can't be evaluated on encrypted images
        return
    photographs: PathLike = "PHOTOGRAPHS"
    commands: List[List[PathLike]] = []
    if settings.data == "synthetic":
        photographs = run / "pictures"
        commands.append([*program(), "data", "make-synthetic", photographs, "--images", "60"])
        photographs = photographs / "HAM10000_images_part_1"
    # where there is no common model, each hospital has its own
    model = run if (run / MODEL).exists() else min((run / PERSONAL).glob("*.npz"), default=run)
    commands.append([*program(), "diagnose", photographs, "--local", "--model", model])
    commands.append([*program(), "serve", "--model", model])
    _say("go on with:")
    for arguments in commands:
        _say(f"  {command_line(arguments)}")


def scale_and_report(invocation: Invocation, seeds: int, ways: str) -> None:
    """Train centralised, federated and local-only for some seeds; print how each does, all and at home."""
    from skinfl.files import write_json
    from skinfl.studies.scale import scale, scale_tables

    _use_threads(invocation.settings)
    rows: List[Dict[str, Any]] = []
    with loading(_console) as progress:
        for row in scale(invocation.settings, seeds, _listed(ways), progress):
            if not rows:
                invocation.folder.begin(invocation.settings, seeds=seeds)
            rows.append(row)
            found = write_json(invocation.out / "scale.json", rows)  # each may cost an hour: none is lost
    for table in scale_tables(rows):
        _console.print(table)
    _say(f"figures: {found}")


def variants_and_report(invocation: Invocation, variants: str, seeds: int) -> None:
    """Train under several protections and seeds; print and draw what each costs."""
    from skinfl.files import write_json
    from skinfl.report.plots import draw_variants
    from skinfl.studies.variants import curves, measure, variants_table

    _use_threads(invocation.settings)
    rows: List[Dict[str, Any]] = []
    names = _listed(variants)
    with loading(_console) as progress:
        for row in measure(invocation.settings, names, seeds, progress):
            if not rows:
                invocation.folder.begin(invocation.settings, variants=list(names), seeds=seeds)
            rows.append(row)
            write_json(invocation.out / "variants.json", rows)  # each costs minutes: none is lost
    _console.print(variants_table(rows))
    accuracies = {key: curves(rows, key) for key in ("accuracy", "balanced_accuracy")}
    _say(f"figure: {draw_variants(invocation.out / 'variants.png', accuracies)}")


def _listed(text: str) -> Tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def examples(*lines: str) -> str:
    """Return what stands below a command's help: commands that can be pasted, one a line."""
    return "\n\n".join(("Examples:", *lines))


@app.command(
    epilog=examples(
        "skinfl train --protection smpc --rounds 3",
        "skinfl train --data ~/HAM10000 --strategy scaffold --hospitals 10",
        "skinfl train --resume runs/20260101-120000-train --rounds 20",
    )
)
@settings_command("train")
def train(
    invocation: Invocation,
    track: str = typer.Option(
        "", "--track", help="where each round's figures go as well, by comma: tensorboard, mlflow, wandb"
    ),
) -> None:
    """Train under one protection and write a report."""
    train_and_report(invocation, track)


PROTECTIONS = typer.Option(
    None,
    help="protections to compare with plaintext, by comma (default: smpc,he; those of the run with --resume)",
)


@app.command(
    epilog=examples(
        "skinfl compare --rounds 3",
        "skinfl compare --data ~/HAM10000 --protections smpc --hospitals 10",
    )
)
@settings_command("compare", {"protection": "plaintext"})
def compare(invocation: Invocation, protections: Optional[str] = PROTECTIONS) -> None:
    """Train under several protections with the same seeds and print them side by side."""
    compare_and_report(invocation, protections)


@data_commands.app.command(
    "split",
    epilog=examples(
        "skinfl data split --hospitals 10 --partition dirichlet",
        "skinfl data split --data ~/HAM10000 --figure who-holds-what.png",
    ),
)
@settings_command("split", groups=("Data", "Hospitals"))
def split(
    settings: Settings,
    figure: Optional[Path] = typer.Option(None, parser=path, help="PNG file to draw who holds what into"),
    force: bool = typer.Option(False, "--force", help="replace the figure if it is there"),
) -> None:
    """Show who holds what after the split, with its leakage check."""
    data_commands.show_split(settings, figure, force)


app.add_typer(data_commands.app, name="data")
use_commands.register(app)
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
    prepare_streams()
    try:
        arguments = plugins.load_for(sys.argv[1:])
        parser = typer.main.get_command(command)
        _tidy_help(parser)
        status = parser(arguments or None, standalone_mode=False)
        settle_streams()
    except typer.Exit as stop:
        status = stop.exit_code
    except typer.Abort:
        status = 130
    except _UsageError as error:
        fail(f"{error.format_message()} (--help lists what there is)")
    except SkinflError as error:
        fail(error)
    except Exception as error:
        broken = broken_package(error)
        if broken is not None:
            fail(broken)
        if not isinstance(error, OSError) or error.filename is not None or error.errno not in _NO_OUTPUT:
            raise
        fail(f"the output cannot be written ({error.strerror}): send it elsewhere, finished rounds are kept")
    raise SystemExit(status if isinstance(status, int) else 0)


def _tidy_help(command: Any) -> None:
    """Let help show ``--local`` as the flag it is: recent versions of typer write ``--local <bool>``."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for below in getattr(command, "commands", {}).values():
        _tidy_help(below)


def main() -> None:
    """Entry point of the console script ``skinfl``."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    execute(app)


def experiment(name: str, function: Callable, fixed: Dict[str, Any], **more: Any) -> None:
    """Run a script of ``experiments/``: a training command with some settings fixed.

    ``more`` goes to :func:`~skinfl.flags.settings_command`.
    """
    script = command_line(this_command(name))
    examples = f"Examples:\n\n{script} --rounds 3\n\n{script} --data PATH/TO/HAM10000 --out runs/mine"
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command(help=function.__doc__, epilog=examples, context_settings=_HELP)(
        settings_command(name, fixed, **more)(function)
    )
    execute(command)


if __name__ == "__main__":
    main()
