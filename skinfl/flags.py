"""One command-line flag for each setting, made from the settings themselves."""

from __future__ import annotations

import functools
import inspect
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import typer

from skinfl import plugins
from skinfl.errors import SettingsError
from skinfl.registry import Option
from skinfl.settings import Settings, default_text, from_mapping, options, read_toml

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
    return lambda function: _Command(function, name, fixed or {}, groups)


class _Command:
    """A command whose flags are made when it is looked at, so that plugins may add to the settings before."""

    def __init__(self, function: Callable, name: str, fixed: Dict[str, Any], groups: Sequence[str]):
        functools.update_wrapper(self, function, ("__module__", "__name__", "__qualname__", "__doc__"))
        self._function = function
        self._name = name
        self._fixed = fixed
        self._groups = groups
        self._own = list(inspect.signature(function).parameters.values())[1:]

    @property
    def __signature__(self) -> inspect.Signature:
        shared = [p for p in _parameters(self._groups) if p.name not in self._fixed]
        return inspect.Signature([*self._own, *shared])

    @property
    def __annotations__(self) -> Dict[str, Any]:  # type: ignore[override]
        return {p.name: p.annotation for p in self.__signature__.parameters.values()}

    def __call__(self, **values: Any) -> Any:
        extra = {p.name: values.pop(p.name) for p in self._own}
        values["plugins"] = plugins.loaded() or None
        return self._function(_invocation(values, self._fixed, self._name), **extra)


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
    for option in options().values():
        if option.flag and (not groups or option.group in groups or option.name == "seed"):
            found.append(_flag(option))
    return found


def _flag(option: Option) -> inspect.Parameter:
    kind = str if option.type is Path else option.type
    text = option.help
    if option.choices:
        text += f"; one of {', '.join(map(str, option.choices))}"
    text += f" (default: {default_text(option)})"
    dashed = option.dashed
    names = f"--{dashed}/--no-{dashed}" if kind is bool else f"--{dashed}"
    return _parameter(
        option.name,
        kind,
        typer.Option(None, names, help=text, show_default=False, rich_help_panel=option.group),
    )


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Optional[kind])
