"""A run's folder: claimed by one process at a time, and it says what kind of run it holds.

``.lock`` is locked while a process writes there; the system lets go of it when that process dies, however it
dies, so a run that was killed blocks nobody. ``run.json`` says what a run is and where its data lay. It is
written with the first checkpoint, when all that can be wrong with settings and data is known to be right: a
start that fails before leaves nothing behind.

Light, since the command line's ``--help`` imports it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, ContextManager, Dict, List, Union

from skinfl.errors import CheckpointError, ModelError, SettingsError, SkinflError
from skinfl.files import write_json, write_text
from skinfl.paths import PathLike
from skinfl.paths import path as user_path
from skinfl.settings import Settings, to_toml

CHECKPOINT = "checkpoint.skinfl"
RESULT = "result.json"
ROUNDS = "rounds.jsonl"
CONFIG = "config.toml"
MODEL = "model.npz"
#: a model of each hospital, where they have their own
PERSONAL = "personal"
FIGURES = "figures"
REPORT = "report.html"
#: the test set with what the network says of it, and the ids of what it learnt from
PREDICTIONS = "predictions.csv"
TRAINED_ON = "trained_on.csv"
COMPARISON = "compare.json"
ABOUT = "run.json"
LOCK = ".lock"
#: how often a folder that is taken away is made again; where no file can be made it looks the same
_TRIES = 1000
#: what makes a folder one that must not be written into by another run
_RESULTS = (
    *(RESULT, MODEL, PERSONAL, FIGURES, REPORT, COMPARISON),
    *("scale.json", "variants.json", "variants.png", "inference.json"),
)
#: what goes on with a run of each kind
_COMMANDS = {
    "train": "skinfl train",
    "compare": "skinfl compare",
    "inference": "experiments/run_inference.py",
    "flower": "experiments/run_flower.py",
}

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from None

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunFolder:
    """A folder that this process may write a run into, until :meth:`close`; made by :func:`claim`.

    ``path`` is the folder, ``kind`` the command that writes it, ``resumed`` whether it holds a run already,
    and ``about`` the content of its ``run.json``, empty before :meth:`begin`. As a context manager it is
    closed at the end.
    """

    def __init__(self, path: Path, kind: str, *, resumed: bool):
        self.path = path
        self.kind = kind
        self.resumed = resumed
        self.about: Dict[str, Any] = read_about(path) if resumed else {}
        self._made: List[Path] = [] if resumed else _make(path)
        self._lock = _lock(path, resumed)

    def begin(self, settings: Settings, **options: Any) -> None:
        """Write down what the run is; ``options`` are what a resume needs beside its settings."""
        source = Path(settings.data).expanduser()
        data = os.path.abspath(str(source)) if source.exists() else None
        self.about = {"kind": self.kind, "data": data, "options": options}
        if not self.resumed:  # of a run that was killed in its first round
            for name in (CHECKPOINT, ROUNDS):
                with suppress(FileNotFoundError):
                    (self.path / name).unlink()
        write_json(self.path / ABOUT, self.about)
        write_text(self.path / CONFIG, to_toml(settings))

    def own(self) -> None:
        """Take the folder for made by this process, even if another made it on the way to losing it."""
        made = Path(os.path.abspath(str(self.path)))
        if made not in self._made:
            self._made.insert(0, made)

    def close(self) -> None:
        """Let go of the folder; where no run came of it, take away what was made for it."""
        if self.about and not self.resumed and not holds_results(self.path):
            for name in (CONFIG, CHECKPOINT, ROUNDS, ABOUT):
                with suppress(OSError):
                    (self.path / name).unlink()
        with suppress(OSError):
            (self.path / LOCK).unlink()
        os.close(self._lock)
        for folder in self._made:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def claim(out: PathLike, kind: str, *, resume: bool = False) -> RunFolder:
    """Claim ``out`` for a run of ``kind``, a command's name; with ``resume`` for the run it holds.

    Raises a :class:`~skinfl.errors.SkinflError` where another process writes there, where it holds a run
    (without ``resume``) or none of that kind (with it), and where it cannot be written.
    """
    path = user_path(out)
    if resume:
        _check_kind(path, kind)
        return RunFolder(path, kind, resumed=True)
    _check_free(path)
    folder = RunFolder(path, kind, resumed=False)
    try:
        _check_free(path)  # another run may have come and gone meanwhile
    except SkinflError:
        folder.close()
        raise
    return folder


def claim_new(name: str, kind: str) -> RunFolder:
    """Claim ``runs/<time>-<name>``, or the same with ``-2``, ``-3`` and so on where runs begin together."""
    first = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    number = 1
    while True:
        path = first if number == 1 else first.with_name(f"{first.name}-{number}")
        number += 1
        if not path.exists():
            with suppress(_Claimed):
                folder = claim(path, kind)
                folder.own()
                return folder


def claimed(out: Union[PathLike, RunFolder], kind: str, resume: bool) -> ContextManager[RunFolder]:
    """Return ``out`` as it is where its caller has claimed it, else claimed while the context lasts."""
    return nullcontext(out) if isinstance(out, RunFolder) else claim(out, kind, resume=resume)


def read_about(path: Path) -> Dict[str, Any]:
    """Return the content of a run's ``run.json``."""
    try:
        about = json.loads((path / ABOUT).read_text("utf-8"))
        kinds: Dict[str, Any] = {"kind": str, "options": dict, "data": (str, type(None))}
        if not all(isinstance(about[key], kind) for key, kind in kinds.items()):
            raise TypeError
        return about
    except FileNotFoundError:
        raise CheckpointError(f"{path} holds no run ({ABOUT} is missing): name a run's folder") from None
    except NotADirectoryError:
        raise CheckpointError(f"{path} is a file: name the run's folder") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path / ABOUT}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path / ABOUT} is damaged: restore the file, or start the run anew") from None


def data_of(folder: RunFolder, configured: str) -> str:
    """Return where the data of a resumed run lie now.

    ``configured`` is what its settings say, perhaps relative to where it was begun; the absolute path of then
    is in ``run.json``. Raises :class:`~skinfl.errors.SettingsError` where neither exists.
    """
    begun = folder.about.get("data")
    if begun is None:  # no path, the synthetic set
        return configured
    places = [configured, begun] if os.path.isabs(os.path.expanduser(configured)) else [begun, configured]
    for place in places:
        if os.path.exists(os.path.expanduser(place)):
            return configured if os.path.abspath(os.path.expanduser(configured)) == begun else place
    raise SettingsError(
        f"the data of this run lay at {begun}, says {folder.path / ABOUT}, and are gone: "
        "give their new place with --data"
    )


def model_in(path: PathLike) -> Path:
    """Return the model file that ``path`` means: itself, or that of a run whose folder it is."""
    path = Path(path)
    if not path.is_dir() or (path / MODEL).is_file():
        return path / MODEL if path.is_dir() else path
    own = sorted((path / PERSONAL).glob("*.npz"))
    if own:
        raise ModelError(f"{path} has no common model, but one of each hospital: name one, as {own[0]}")
    below = sorted(found.parent for found in path.glob(f"*/{MODEL}"))
    if below:
        raise ModelError(f"{path} holds several models: name one of {', '.join(map(str, below[:5]))}")
    unfinished = "; its run is not finished: --resume it" if (path / CHECKPOINT).is_file() else ""
    raise ModelError(
        f"no {MODEL} in {path}{unfinished or ': name a model file, or the folder of a finished run'}"
    )


class _Claimed(SettingsError):
    """Somebody else has the folder."""


def _check_free(path: Path) -> None:
    """Refuse a folder with files that a run would overwrite."""
    try:
        found = holds_results(path)
        foreign = [] if (path / ABOUT).exists() else [n for n in (CONFIG, CHECKPOINT) if (path / n).exists()]
    except OSError as error:
        raise _unwritable(path, error) from None
    if found:
        try:
            resume = "--resume it, or " if read_about(path)["kind"] in _COMMANDS else ""
        except CheckpointError:
            resume = ""
        raise _Claimed(f"{path} holds a run already: {resume}name another --out")
    if foreign:
        raise _Claimed(f"{path} holds a {foreign[0]} that no run wrote: name another --out")


def holds_results(path: Path) -> bool:
    """Whether a folder holds something that took time to make, a finished round at least."""
    if any((path / name).exists() for name in _RESULTS) or _finished_rounds(path):
        return True
    # a comparison's runs lie in folders of their own
    return (path / ABOUT).exists() and any(
        _finished_rounds(found.parent) for found in path.glob(f"*/{ROUNDS}")
    )


def _finished_rounds(path: Path) -> bool:
    return (path / ROUNDS).exists() and (path / ROUNDS).stat().st_size > 0


def _check_kind(path: Path, kind: str) -> None:
    found = read_about(path)["kind"]
    if found != kind:
        command = _COMMANDS.get(found)
        mend = f"go on with {command} --resume {path}" if command else "it cannot be resumed, start it anew"
        raise CheckpointError(f"{path} is a run of another kind ({found}, not {kind}): {mend}")


def _make(path: Path) -> List[Path]:
    """Make a folder and those above it; return what was made, the innermost first."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None
    return [Path(os.path.abspath(str(folder))) for folder in missing]


def _lock(path: Path, resumed: bool) -> int:
    """Lock the folder for this process; return the descriptor that holds the lock."""
    file = str(path / LOCK)
    tries = 0
    while True:
        tries += 1
        try:
            path.mkdir(parents=True, exist_ok=True)  # a start that failed may just have taken it away
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and tries < _TRIES:
                continue
            place = Path(file) if os.path.lexists(file) else path
            raise _unwritable(place, error, resumed=resumed) from None
        try:
            _try_lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise _Claimed(
                f"another process is writing to {path}: wait until it is done, or name another --out"
            ) from None
        except OSError:
            pass  # a file system without locks: nothing better can be had there
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)  # it was taken away before it was locked


def _unwritable(path: Path, error: OSError, *, resumed: bool = False) -> SkinflError:
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):
        path, reason = Path(error.filename or path), "it is no folder"
    if path.is_symlink() and not path.exists():
        reason = "it is a link to nothing"
    mend = "make it writable, or resume a copy of the folder" if resumed else "name another folder with --out"
    return SkinflError(f"cannot write {path}: {reason}; {mend}")
