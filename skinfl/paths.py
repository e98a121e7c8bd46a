"""Paths as a user types them. Light: the command line's ``--help`` imports this and nothing heavy."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence, Union

from skinfl.errors import SettingsError, check_name

PathLike = Union[str, "os.PathLike[str]"]


def path(text: PathLike) -> Path:
    """Return what a user means by ``text``: ``~`` is a home folder wherever it came from.

    A shell expands it in ``--out ~/x`` only, not after ``=``, nor in a list of arguments of a program. Made
    to be the ``parser`` of typer's parameters, whose help shows its name. Raises
    :class:`~skinfl.errors.SettingsError` where there is no path in it.
    """
    if not isinstance(text, (str, os.PathLike)):
        raise SettingsError(f"{text!r} is no path: give a text or a pathlib.Path")
    if not str(text).strip():
        raise SettingsError("a path is empty: name a file or folder, '.' is where you are")
    check_name(str(text))
    # not Path.expanduser: to it './~', the way to name a file '~', is no different
    expanded = Path(os.path.expanduser(str(text)))
    if str(text).startswith("~") and str(expanded).startswith("~"):
        raise SettingsError(f"{text} names a user who has no home here: write the path in full, or ./{text}")
    try:
        os.lstat(str(expanded))
    except (FileNotFoundError, NotADirectoryError):
        pass  # what is to be read or made there says so itself
    except ValueError:
        raise SettingsError(f"{text!r} is no path: it holds a zero byte") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            shown = f"{str(text)[:40]}... ({len(str(text))} characters)"
            raise SettingsError(f"the path {shown} is too long for this disk: name a shorter one") from None
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise SettingsError(f"{text} cannot be reached: {error.strerror}") from None
    return expanded


def program() -> List[str]:
    """Return the arguments that start skinfl again, as this process was started or beside its interpreter."""
    started = Path(sys.argv[0])
    named = started.stem == "skinfl" and started.suffix in ("", ".exe") and started.is_file()
    script = started if named else Path(sys.executable).with_name("skinfl" + ".exe" * (os.name == "nt"))
    if (named or started.name != "__main__.py") and script.is_file():
        found = shutil.which("skinfl")
        if found is not None and os.path.samefile(found, str(script)):
            return ["skinfl"]
        return [_near(script)]
    return [_near(Path(sys.executable)), "-m", "skinfl"]


def this_command(name: str) -> List[str]:
    """Return the arguments that start this very command again: ``name`` of skinfl, or a script of its own."""
    if sys.argv[0].endswith(".py") and Path(sys.argv[0]).name != "__main__.py":
        return [_near(Path(sys.executable)), sys.argv[0]]
    return [*program(), name]


def command_line(arguments: Sequence[PathLike]) -> str:
    """Return ``arguments`` as a line that a shell takes apart into them again."""
    texts = [str(word) for word in arguments]
    return subprocess.list2cmdline(texts) if os.name == "nt" else " ".join(map(shlex.quote, texts))


def _near(file: Path) -> str:
    """Return ``file`` as it is named from here, where it lies below; links stay links."""
    try:
        inside = Path(os.path.abspath(str(file))).relative_to(Path.cwd())
    except (ValueError, OSError):
        return str(file)
    return str(inside) if len(inside.parts) > 1 else os.path.join(os.curdir, str(inside))
