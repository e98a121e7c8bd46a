"""A user's own files that register strategies, protections, networks, readers and more.

``skinfl --plugin mine.py train --strategy mine`` runs ``mine.py`` before anything else is done, and so are
the files and modules that the variable ``SKINFL_PLUGINS`` lists. A run records its plugins, and ``--resume``
loads them.
A plugin is a program: it may do all that its user may. ``--model package.module:Class``, a network of one's
own, is one as well; where only a model file names it, it is not imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from skinfl.errors import SettingsError, SkinflError

VARIABLE = "SKINFL_PLUGINS"
FLAG = "--plugin"
_loaded: Dict[str, Any] = {}


def loaded() -> Tuple[str, ...]:
    """Return what was loaded: absolute paths of files, and names of modules."""
    return tuple(_loaded)


def load(plugin: str) -> None:
    """Run a file, or import a module by its name; what is loaded already is left alone.

    Raises :class:`~skinfl.errors.SettingsError`, in one line, for whatever goes wrong in it.
    """
    if is_model(plugin):
        _load_model(plugin)
        return
    path = Path(os.path.expanduser(plugin))
    is_file = path.suffix == ".py" or path.exists() or os.sep in plugin
    name = str(path.resolve()) if is_file else plugin
    if name in _loaded:
        return
    if is_file and not path.is_file():
        raise SettingsError(f"there is no plugin {plugin}: name a Python file or a module with {FLAG}")
    from skinfl.settings import options

    try:
        _loaded[name] = _run(path.resolve()) if is_file else importlib.import_module(name)
        options()  # refuses what does not go with the others
    except SkinflError as error:
        raise SettingsError(f"the plugin {plugin} cannot be used: {error}") from None
    except (Exception, SystemExit) as error:
        what = f"{_line_of(error, path)}{type(error).__name__}: {_first(error)}"
        raise SettingsError(f"the plugin {plugin} cannot be used: {what}") from error


def is_model(text: str) -> bool:
    """Whether a text is the import path of a network, ``package.module:Class``."""
    module, colon, name = text.partition(":")
    named = bool(colon) and name.isidentifier() and not os.path.exists(text)
    return named and all(part.isidentifier() for part in module.split("."))


def _load_model(plugin: str) -> None:
    """Register the network of an import path, by that path; the working directory is looked in as well."""
    if plugin in _loaded:
        return
    from skinfl.models.registry import register_import

    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        _loaded[plugin] = register_import(plugin)
    except SkinflError as error:
        raise SettingsError(f"the model {plugin} cannot be used: {error}") from None
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {_first(error)}"
        raise SettingsError(f"the model {plugin} cannot be used: {what}") from error


def load_for(arguments: Sequence[str]) -> List[str]:
    """Load what the environment and a command line ask for; return the arguments without ``--plugin``.

    The plugins of a run that ``--resume`` names, and of a file that ``--config`` names, are loaded as well,
    and the network that ``--model`` names by an import path. A model file names its network too, and loads
    nothing.
    """
    rest: List[str] = []
    recorded: List[str] = []
    asked = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += [argument, *waiting]
            break
        flag, equals, value = argument.partition("=")
        if flag == "--model":  # of a run's training: where a model file is meant, there is no such colon
            named = value if equals else (waiting[0] if waiting else "")
            if is_model(named):
                asked.append(named)
        if flag not in (FLAG, "--resume", "--config"):
            rest.append(argument)
            continue
        taken = not equals and bool(waiting)
        if taken:
            value = waiting.pop(0)
        if flag == FLAG:
            if not value:
                raise SettingsError(f"{FLAG} needs a Python file or a module's name")
            asked.append(value)
            continue
        rest += [argument, value] if taken else [argument]
        file = Path(os.path.expanduser(value))
        recorded += _recorded(file / "config.toml" if flag == "--resume" else file)
    if asked:  # one that was moved is named anew
        recorded = [plugin for plugin in recorded if not os.path.isabs(plugin) or os.path.exists(plugin)]
    for plugin in [*recorded, *asked]:
        load(plugin)
    return rest


def _recorded(file: Path) -> List[str]:
    """Return the plugins that a settings file names; a file that cannot be read is complained of later."""
    from skinfl.settings import parse_toml

    try:
        found = parse_toml(file).get("plugins", [])
    except SettingsError:
        return []
    return [plugin for plugin in found if isinstance(plugin, str)] if isinstance(found, list) else []


def _run(path: Path) -> Any:
    name = f"skinfl_plugin_{path.stem}"
    while name in sys.modules:
        name += "_"
    spec = importlib.util.spec_from_file_location(name, str(path))
    if spec is None or spec.loader is None:
        raise SettingsError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Return in which line of the plugin an error arose."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.resolve()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


def _first(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return text.splitlines()[0] if text else "no message"
