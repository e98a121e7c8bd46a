"""One command-line flag for each setting, made from the settings themselves."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import typer

from skinfl.errors import SettingsError
from skinfl.paths import command_line, path, this_command
from skinfl.run_folder import CONFIG, RunFolder, claim, claim_new, data_of, holds_results
from skinfl.settings import Settings, from_mapping, read_toml

#: flags that are no settings: where a run is written, and what its settings start from
_RUN_FLAGS = {
    "out": "folder to write to; the default is runs/<time>-<name>",
    "resume": "folder of a run to go on with; its settings are used",
    "config": "TOML file with settings; flags override it",
}


class Invocation(NamedTuple):
    """What the flags of a command ask for; ``folder`` is claimed, ``None`` where no run is written."""

    settings: Settings
    folder: Optional[RunFolder]

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def resume(self) -> bool:
        """Whether the folder holds a run to go on with."""
        return self.folder.resumed


def settings_command(
    name: str,
    fixed: Optional[Dict[str, Any]] = None,
    groups: Sequence[str] = (),
    *,
    kind: Optional[str] = None,
    resumable: bool = True,
) -> Callable[[Callable], Callable]:
    """Turn ``f(invocation, ...)`` into a command with a flag for each setting.

    ``fixed`` settings get no flag. ``groups`` limits the flags to these headings (and ``--seed``), for
    commands that write no run. ``kind`` is that of the run it writes, where it isn't ``name``; only with
    ``resumable`` is there a ``--resume``.
    """
    fixed = fixed or {}

    def decorate(function: Callable) -> Callable:
        own = list(inspect.signature(function).parameters.values())[1:]
        left_out = fixed if resumable else {*fixed, "resume"}
        shared = [p for p in _parameters(groups) if p.name not in left_out]

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            extra = {p.name: values.pop(p.name) for p in own}
            if groups:
                return function(Invocation(_settings(values, fixed), None), **extra)
            with _invocation(values, fixed, name, kind or name) as invocation:
                return function(invocation, **extra)

        command.__signature__ = inspect.Signature([*own, *shared])
        command.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return command

    return decorate


@contextmanager
def _invocation(values: Dict[str, Any], fixed: Dict[str, Any], name: str, kind: str) -> Iterator[Invocation]:
    """Give what the flags ask for; the run's folder is claimed until the command is over."""
    config, resume, out = (values.pop(flag, None) for flag in ("config", "resume", "out"))
    if resume is not None:
        if config is not None or out is not None:
            raise SettingsError(
                "--resume takes settings and place from the run: leave out --config and --out"
            )
        folder = claim(resume, kind, resume=True)
    else:
        settings = _settings(values, fixed, config)
        folder = claim_new(name, kind) if out is None else claim(out, kind)
    with folder:
        if resume is not None:
            settings = _settings(values, fixed, resume / CONFIG)
            if values.get("data") is None:
                settings = settings.replace(data=data_of(folder, settings.data))
        try:
            yield Invocation(settings, folder)
        except KeyboardInterrupt:
            _interrupted(name, folder.path)


def _settings(values: Dict[str, Any], fixed: Dict[str, Any], config: Optional[Path] = None) -> Settings:
    given = {key: value for key, value in values.items() if value is not None}
    base = {} if config is None else read_toml(config)
    return from_mapping({**base, **given, **fixed})


def _interrupted(name: str, out: Path) -> None:
    again = command_line([*this_command(name), "--resume", out])
    said = (
        f"finished rounds are kept, go on with {again}"
        if holds_results(out)
        else "there is nothing to keep yet"
    )
    print(f"interrupted: {said}", file=sys.stderr)
    raise SystemExit(130)


def _parameters(groups: Sequence[str]) -> List[inspect.Parameter]:
    found = []
    if not groups:
        for flag, text in _RUN_FLAGS.items():
            found.append(
                _parameter(
                    flag, Path, typer.Option(None, f"--{flag}", parser=path, help=text, rich_help_panel="Run")
                )
            )
    defaults = Settings()
    for f in dataclasses.fields(Settings):
        if groups and f.metadata["group"] not in groups and f.name != "seed":
            continue
        kind = {"int": int, "float": float, "bool": bool, "str": str}[
            f.type.replace("Optional[", "").rstrip("]")
        ]
        text = f.metadata["help"]
        if f.metadata["choices"]:
            text += f"; one of {', '.join(f.metadata['choices'])}"
        default = getattr(defaults, f.name)
        if f.default is not None:
            text += f" (default: {str(default).lower() if kind is bool else default})"
        dashed = f.name.replace("_", "-")
        names = f"--{dashed}/--no-{dashed}" if kind is bool else f"--{dashed}"
        option = typer.Option(None, names, help=text, show_default=False, rich_help_panel=f.metadata["group"])
        found.append(_parameter(f.name, kind, option))
    return found


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Optional[kind])
