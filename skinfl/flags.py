"""One command-line flag for each setting, made from the settings themselves."""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import typer

from skinfl import plugins
from skinfl.errors import SettingsError
from skinfl.paths import command_line, path, this_command
from skinfl.registry import Option
from skinfl.run_folder import CONFIG, RunFolder, claim, claim_new, data_of, holds_results
from skinfl.settings import Settings, default_text, from_mapping, options, read_toml

#: flags that are no settings: where a run is written, and what its settings start from
_RUN_FLAGS = {
    "out": "folder to write to; the default is runs/<time>-<name>",
    "resume": "folder of a run to go on with; its settings are used",
    "config": "TOML file with settings; flags override it",
}


class Invocation(NamedTuple):
    """What the flags of a command that writes a run ask for; ``folder`` is claimed."""

    settings: Settings
    folder: RunFolder

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

    ``fixed`` settings get no flag. ``groups`` limits the flags to these headings (and ``--seed``), for a
    command that writes no run: ``f(settings, ...)``. ``kind`` is that of the run it writes, where it isn't
    ``name``; only with ``resumable`` is there a ``--resume``.
    """
    return lambda function: _Command(function, name, fixed or {}, groups, kind or name, resumable)


class _Command:
    """A command whose flags are made when it is looked at, so that plugins may add to the settings before."""

    def __init__(
        self,
        function: Callable,
        name: str,
        fixed: Dict[str, Any],
        groups: Sequence[str],
        kind: str,
        resumable: bool,
    ):
        functools.update_wrapper(self, function, ("__module__", "__name__", "__qualname__", "__doc__"))
        self._function = function
        self._name = name
        self._fixed = fixed
        self._groups = groups
        self._kind = kind
        self._left_out = set(fixed) if resumable else {*fixed, "resume"}
        self._own = list(inspect.signature(function).parameters.values())[1:]

    @property
    def __signature__(self) -> inspect.Signature:
        shared = [p for p in _parameters(self._groups) if p.name not in self._left_out]
        return inspect.Signature([*self._own, *shared])

    @property
    def __annotations__(self) -> Dict[str, Any]:  # type: ignore[override]
        return {p.name: p.annotation for p in self.__signature__.parameters.values()}

    def __call__(self, **values: Any) -> Any:
        extra = {p.name: values.pop(p.name) for p in self._own}
        values["plugins"] = plugins.loaded() or None
        if self._groups:
            return self._function(_settings(values, self._fixed), **extra)
        with _invocation(values, self._fixed, self._name, self._kind) as invocation:
            return self._function(invocation, **extra)


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
