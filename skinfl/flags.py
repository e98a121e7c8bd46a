"""One command-line flag for each setting, made from the settings themselves."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import typer

from skinfl.errors import SettingsError
from skinfl.settings import Settings, from_mapping, read_toml

#: flags that are no settings: where a run is written, and what its settings start from
_RUN_FLAGS = {
    "out": "folder to write to; the default is runs/<time>-<name>",
    "resume": "folder of a run to go on with; its settings are used",
    "config": "TOML file with settings; flags override it",
}


class Invocation(NamedTuple):
    """What the flags of a command ask for."""

    settings: Settings
    out: Path
    resume: bool


def settings_command(
    name: str, fixed: Optional[Dict[str, Any]] = None, groups: Sequence[str] = ()
) -> Callable[[Callable], Callable]:
    """Turn ``f(invocation, ...)`` into a command with a flag for each setting.

    ``fixed`` settings get no flag. ``groups`` limits the flags to these headings (and ``--seed``), for
    commands that write no run.
    """
    fixed = fixed or {}

    def decorate(function: Callable) -> Callable:
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = [p for p in _parameters(groups) if p.name not in fixed]

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            extra = {p.name: values.pop(p.name) for p in own}
            return function(_invocation(values, fixed, name), **extra)

        command.__signature__ = inspect.Signature([*own, *shared])
        command.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return command

    return decorate


def _invocation(values: Dict[str, Any], fixed: Dict[str, Any], name: str) -> Invocation:
    config, resume, out = (values.pop(flag, None) for flag in ("config", "resume", "out"))
    given = {**{k: v for k, v in values.items() if v is not None}, **fixed}
    if resume is not None:
        if config is not None or out is not None:
            raise SettingsError(
                "--resume takes settings and place from the run: leave out --config and --out"
            )
        folder = Path(resume)
        return Invocation(from_mapping({**read_toml(folder / "config.toml"), **given}), folder, True)
    base = read_toml(Path(config)) if config is not None else {}
    folder = Path(out) if out else Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    if (folder / "config.toml").exists():
        raise SettingsError(f"{folder} holds a run already: --resume it, or name another --out")
    return Invocation(from_mapping({**base, **given}), folder, False)


def _parameters(groups: Sequence[str]) -> List[inspect.Parameter]:
    found = []
    if not groups:
        for flag, text in _RUN_FLAGS.items():
            found.append(
                _parameter(flag, str, typer.Option(None, f"--{flag}", help=text, rich_help_panel="Run"))
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
