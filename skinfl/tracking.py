"""Optional listeners that write down a run where others look: TensorBoard, MLflow, Weights & Biases.

They are told the figures of each round that concern all hospitals together: losses and metrics, seconds, mean
bytes. No image goes there, no hospital's own figure, and of the settings nothing that names a place on disk.
A tracker that breaks in the middle is given up with one line: training goes on.

A tracker of one's own registers in :data:`TRACKERS`, with what builds it: called as ``build(run)`` with a
:class:`TrackedRun`, it returns a :class:`Tracker`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from skinfl.errors import BrokenPackage, MissingExtra, SettingsError, is_missing, printable
from skinfl.federation.events import Event, RoundFinished, RunStarted
from skinfl.federation.records import RoundRecord
from skinfl.metrics import SCALARS
from skinfl.registry import Registry
from skinfl.settings import options

EXTRA = "tracking"
#: beside settings that are paths: where things lie on this machine is nobody's business
_PLACES = ("data", "metadata", "plugins")

TRACKERS = Registry(
    "track", group="Run", help="where each round's figures go as well", default="", several=True
)


class TrackedRun(NamedTuple):
    """What a tracker is told of a run: its folder, its name, its settings as plain values."""

    folder: Path
    name: str
    settings: Dict[str, Any]


class Tracker(ABC):
    """Takes down figures. Any exception it raises is said once, and ends it and not the run."""

    @abstractmethod
    def log(self, round: int, figures: Dict[str, float]) -> None:
        """Take down a round's figures by name."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is held back."""


def figures_of(record: RoundRecord) -> Dict[str, float]:
    """Return what is told of a round: numbers about all hospitals together, none about one of them."""
    found: Dict[str, Optional[float]] = {"train/loss": record.mean_loss, "train/clipped": record.mean_clipped}
    for where, metrics in (("test", record.metrics), ("hospitals_together", record.hospitals_together)):
        found.update({f"{where}/{name}": (metrics or {}).get(name) for name in SCALARS})
    found.update({f"seconds/{phase}": spent for phase, spent in record.seconds._asdict().items()})
    found["seconds/total"] = record.seconds.total
    for way, sizes in (("up", record.bytes_up), ("down", record.bytes_down)):
        found[f"bytes/{way}_per_hospital"] = sum(sizes.values()) / len(sizes) if sizes else None
    found["hospitals"] = len(record.trained)
    return {name: float(value) for name, value in found.items() if value is not None}


class Tracking:
    """A listener that passes each finished round to trackers, which begin when the run does.

    ``say`` prints a line where one is given up. :meth:`close` ends them, whatever became of the run.
    """

    def __init__(self, names: str, folder: Path, settings: Dict[str, Any], say: Callable[[str], None]):
        self._entries = TRACKERS.chosen(names)
        known = options()
        told = {
            key: value
            for key, value in settings.items()
            if key not in _PLACES and not (key in known and known[key].type is Path)
        }
        self._run = TrackedRun(folder, folder.name, told)
        self._say = say
        self._trackers: Dict[str, Tracker] = {}

    def __call__(self, event: Event) -> None:
        """Take down ``event``."""
        if isinstance(event, RunStarted):
            for entry in self._entries:
                self._try(entry.name, lambda entry=entry: self._begin(entry.name))  # type: ignore[misc]
        elif isinstance(event, RoundFinished):
            figures = figures_of(event.record)
            for name, tracker in list(self._trackers.items()):
                self._try(name, lambda tracker=tracker: tracker.log(event.round, figures))  # type: ignore[misc]

    def close(self) -> None:
        """End the trackers."""
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.close)
        self._trackers = {}

    def _begin(self, name: str) -> None:
        self._trackers[name] = TRACKERS[name].builder(self._run)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a server that is away, a full disk, a login that is missing
            self._trackers.pop(name, None)
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._say(f"note: {name} is not written to any more ({printable(reason, 300)}); the run goes on")


def check(names: str) -> str:
    """Return the names of trackers as they are kept; refuse an unknown one, or one without its package.

    Called before any data is read. Raises a :class:`~skinfl.errors.SkinflError`.
    """
    kept: str = TRACKERS.selector.check(names) if names else ""
    if names and not kept:
        raise SettingsError(f"track = {names!r} names nothing: valid are {', '.join(TRACKERS.names)}")
    for entry in TRACKERS.chosen(kept):
        if entry.check is not None:
            entry.check(None)  # type: ignore[operator]
    return kept


def _needs(package: str, module: str) -> Callable[[Any], None]:
    def try_import(_: Any) -> None:
        _import(package, module)

    return try_import


def _import(package: str, module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:
        # torch's own module fails with an ImportError of its words where tensorboard is not there
        if is_missing(package, error) or (package == "tensorboard" and isinstance(error, ImportError)):
            raise MissingExtra(package, EXTRA, f"--track {package}") from None
        raise BrokenPackage(package, error) from error


@TRACKERS.register(
    "tensorboard",
    "event files in the run's folder, for 'tensorboard --logdir'",
    check=_needs("tensorboard", "torch.utils.tensorboard"),
)
class TensorBoard(Tracker):
    """Writes ``tensorboard/`` in the run's folder."""

    def __init__(self, run: TrackedRun):
        writer = _import("tensorboard", "torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=str(run.folder / "tensorboard"))
        rows = [f"    {key} = {value}" for key, value in sorted(run.settings.items())]
        self._writer.add_text("settings", "\n".join(rows))

    def log(self, round: int, figures: Dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, round)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@TRACKERS.register(
    "mlflow",
    "the MLflow server that MLFLOW_TRACKING_URI names, or ./mlruns",
    check=_needs("mlflow", "mlflow"),
)
class MLflow(Tracker):
    """Begins a run of the experiment that MLflow's own variables name."""

    def __init__(self, run: TrackedRun):
        self._mlflow = _import("mlflow", "mlflow")
        self._mlflow.start_run(run_name=run.name)
        self._mlflow.log_params({key: str(value)[:250] for key, value in run.settings.items()})

    def log(self, round: int, figures: Dict[str, float]) -> None:
        self._mlflow.log_metrics(figures, step=round)

    def close(self) -> None:
        self._mlflow.end_run()


@TRACKERS.register(
    "wandb", "Weights & Biases, as its own variables say (WANDB_MODE=offline)", check=_needs("wandb", "wandb")
)
class WeightsAndBiases(Tracker):
    """Begins a run of the project ``skinfl``, or of what WANDB_PROJECT names."""

    def __init__(self, run: TrackedRun):
        # it looks at code and repository unasked, which name files
        wandb = _import("wandb", "wandb")
        settings = wandb.Settings(disable_code=True, disable_git=True)
        self._run = wandb.init(
            project=_project(), name=run.name, dir=str(run.folder), config=run.settings, settings=settings
        )

    def log(self, round: int, figures: Dict[str, float]) -> None:
        self._run.log(figures, step=round)

    def close(self) -> None:
        self._run.finish()


def _project() -> str:
    return os.environ.get("WANDB_PROJECT") or "skinfl"


def listeners(
    names: str, folder: Path, settings: Dict[str, Any], say: Callable[[str], None]
) -> Sequence[Tracking]:
    """Return the listener for trackers by name, none where none is named."""
    found: List[Tracking] = [Tracking(names, folder, settings, say)] if names else []
    return found
