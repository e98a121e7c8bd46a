"""The command line: ``skinfl train``, ``compare``, ``baseline``, ``data`` and what extras add.

Exit status: 0 done; 2 something the user can mend, in one line; 130 interrupted, the run can be resumed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import typer
from rich.console import Console

from skinfl import __version__
from skinfl.assembly import Material, load_material
from skinfl.console import RunDisplay, fail, loading
from skinfl.errors import SettingsError, SkinflError
from skinfl.settings import Settings, from_mapping, read_toml

app = typer.Typer(
    help="Train one skin-lesion classifier across hospitals without showing each other anything.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()


class Request:
    """What the flags of a training command ask for: settings, where to write, whether to resume."""

    def __init__(self, values: Dict[str, Any], fixed: Dict[str, Any], name: str):
        config, resume, out = values.pop("config"), values.pop("resume"), values.pop("out")
        given = {**{k: v for k, v in values.items() if v is not None}, **fixed}
        if resume is not None and config is not None:
            raise SettingsError("--resume takes its settings from the run's folder: leave out --config")
        self.resume = resume is not None
        base: Dict[str, Any] = {}
        if resume is not None:
            base = read_toml(Path(resume) / "config.toml")
        elif config is not None:
            base = read_toml(Path(config))
        self.settings = from_mapping({**base, **given})
        if resume is not None:
            self.out = Path(resume)
        else:
            self.out = Path(out) if out else Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
            if (self.out / "config.toml").exists():
                raise SettingsError(f"{self.out} holds a run already: --resume it, or name another --out")


def settings_command(name: str, fixed: Optional[Dict[str, Any]] = None) -> Callable[[Callable], Callable]:
    """Turn ``f(request, ...)`` into a command with one flag for each setting but the ``fixed`` ones."""
    fixed = fixed or {}

    def decorate(function: Callable) -> Callable:
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = [p for p in _settings_parameters() if p.name not in fixed]

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            extra = {p.name: values.pop(p.name) for p in own}
            return function(Request(values, fixed, name), **extra)

        command.__signature__ = inspect.Signature([*own, *shared])
        command.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return command

    return decorate


def _settings_parameters() -> List[inspect.Parameter]:
    """Return one parameter for each setting, and those that every training command has."""
    run = [
        ("out", str, "folder to write to; the default is runs/<time>-<name>"),
        ("resume", str, "folder of a run to go on with; its settings are used"),
        ("config", str, "TOML file with settings; flags override it"),
    ]
    found = [
        _parameter(n, kind, typer.Option(None, f"--{n}", help=h, rich_help_panel="Run")) for n, kind, h in run
    ]
    defaults = Settings()
    for f in dataclasses.fields(Settings):
        kind = {"int": int, "float": float, "bool": bool, "str": str}[
            f.type.replace("Optional[", "").rstrip("]")
        ]
        flag = "--" + f.name.replace("_", "-")
        text = f.metadata["help"]
        if f.metadata["choices"]:
            text += f"; one of {', '.join(f.metadata['choices'])}"
        default = getattr(defaults, f.name)
        if f.default is not None:
            text += f" (default: {str(default).lower() if kind is bool else default})"
        names = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        option = typer.Option(None, names, help=text, show_default=False, rich_help_panel=f.metadata["group"])
        found.append(_parameter(f.name, kind, option))
    return found


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Optional[kind])


def _material(settings: Settings) -> Material:
    with loading(_console) as progress:
        material = load_material(settings, progress)
    dataset, split = material.dataset, material.split
    note = " (synthetic: drawn, not photographed)" if dataset.synthetic else ""
    _console.print(
        f"data: {dataset.name}{note}, {len(dataset)} images, {len(split.train)} to train and "
        f"{len(split.test)} to test, lesions in both: {split.leaked_lesions}",
        markup=False,
        highlight=False,
    )
    if split.protocol != "grouped":
        _console.print(f"split: {split.protocol!r}, which lets lesions leak from training into the test set")
    return material


def train_and_report(request: Request) -> None:
    """Run one training and say what came of it."""
    from skinfl.run import run

    material = _material(request.settings)
    display = RunDisplay(_console, request.settings.protection)
    try:
        outcome = run(request.settings, material, request.out, listeners=[display], resume=request.resume)
    except KeyboardInterrupt:
        display.close()
        _interrupted(request.out)
    finally:
        display.close()
    final = outcome.result["final"]
    _console.print(
        f"final: accuracy {final['accuracy']:.3f}, balanced accuracy {final['balanced_accuracy']:.3f}, "
        f"macro F1 {final['macro_f1']:.3f}",
        highlight=False,
    )
    _console.print(f"report: {outcome.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def compare_and_report(request: Request, protections: str) -> None:
    """Run plaintext and the other protections, print the table."""
    from skinfl.compare import compare
    from skinfl.report.table import print_comparison

    names = tuple(p.strip() for p in protections.split(",") if p.strip())
    for name in names:
        request.settings.replace(protection=name)  # refuses an unknown name before anything runs
    material = _material(request.settings)
    displays: List[RunDisplay] = []

    def listeners(protection: str) -> Tuple[RunDisplay, ...]:
        for display in displays:
            display.close()
        displays.append(RunDisplay(_console, protection))
        return (displays[-1],)

    try:
        comparison = compare(
            request.settings,
            material,
            request.out,
            protections=names,
            listeners=listeners,
            resume=request.resume,
        )
    except KeyboardInterrupt:
        displays[-1].close()
        _interrupted(request.out)
    finally:
        for display in displays:
            display.close()
    print_comparison(comparison, _console)
    _console.print(f"report: {request.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def scale_and_report(request: Request, seeds: int) -> None:
    """Train centralised, federated and local-only for some seeds, print balanced accuracies."""
    from skinfl.report.files import write_json
    from skinfl.scale import scale, scale_table

    with loading(_console) as progress:
        rows = scale(request.settings, seeds, progress)
    write_json(request.out / "scale.json", rows)
    _console.print(scale_table(rows))
    _console.print(f"figures: {request.out / 'scale.json'}", markup=False, highlight=False, soft_wrap=True)


def _interrupted(out: Path) -> None:
    print(f"interrupted: finished rounds are kept, go on with --resume {out}", file=sys.stderr)
    raise SystemExit(130)


@app.command()
@settings_command("train")
def train(request: Request) -> None:
    """Train under one protection and write a report."""
    train_and_report(request)


@app.command()
@settings_command("compare", {"protection": "plaintext"})
def compare(
    request: Request,
    protections: str = typer.Option("smpc,he", help="protections to compare with plaintext, by comma"),
) -> None:
    """Train under several protections with the same seeds and print them side by side."""
    compare_and_report(request, protections)


def version(value: bool) -> None:
    """Print the version and leave."""
    if value:
        print(f"skinfl {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    show_version: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def execute(command: Callable[[], Any]) -> None:
    """Run a command; what a user can mend becomes one line on stderr and exit status 2."""
    try:
        command()
    except SkinflError as error:
        fail(error)


def main() -> None:
    """Entry point of the console script ``skinfl``."""
    execute(app)


def experiment(name: str, function: Callable, fixed: Dict[str, Any]) -> None:
    """Run a script of ``experiments/``: a training command with some settings fixed."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command(help=function.__doc__)(settings_command(name, fixed)(function))
    execute(command)
