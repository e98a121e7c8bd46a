"""skinfl from Python: load data, train, compare; what the command line does, with results to go on with.

Options are those of :class:`skinfl.Settings`, by the same names as the command line's flags; a path may be
a str. Errors are :class:`skinfl.SkinflError` with one line that says what to mend.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import pandas as pd

from skinfl import plugins, tracking
from skinfl.assembly import FederatedData, check, load_federated_data, share_out
from skinfl.classifier import Picture
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.display import display_for, loading_display
from skinfl.errors import SettingsError
from skinfl.federation.events import Listener
from skinfl.paths import PathLike, path
from skinfl.results import ComparisonResult, TrainingResult
from skinfl.run import KIND as TRAINING
from skinfl.run import run
from skinfl.run_folder import COMPARISON, CONFIG, RunFolder, claim, claim_new, data_of, read_about
from skinfl.settings import Settings, read_toml
from skinfl.studies.compare import KIND as COMPARING
from skinfl.studies.compare import chosen
from skinfl.studies.compare import compare as run_comparison
from skinfl.use.evaluating import evaluate_on
from skinfl.use.exporting import export as write_export
from skinfl.use.frames import predict_pictures
from skinfl.use.models import Model, classifier_of, load_for, photographs_of, run_of


def load_data(
    source: PathLike = "synthetic", *, image_size: int = 28, progress: bool = True, **options: Any
) -> LesionDataset:
    """Read a data set as its publisher ships it, or draw the synthetic one.

    Parameters
    ----------
    source: ``"synthetic"``, or a folder or file; see :func:`skinfl.data.load`.
    image_size: pixels a side that the images are resized to.
    progress: whether to show a bar.
    options: ``fit``, ``colour_constancy``, ``cache_dir`` and ``metadata``, as for :func:`skinfl.data.load`.

    Raises :class:`~skinfl.errors.DataError` that names the file and the remedy.
    """
    with loading_display(progress) as show:
        return load(source, image_size=image_size, progress=show, **options)


def train(
    settings: Optional[Settings] = None,
    *,
    data: Union[PathLike, LesionDataset, None] = None,
    out: Optional[PathLike] = None,
    resume: bool = False,
    progress: bool = True,
    listeners: Sequence[Listener] = (),
    track: str = "",
    **options: Any,
) -> TrainingResult:
    """Train one network across hospitals in this process.

    Parameters
    ----------
    settings: what to start from; None means the defaults, on resuming the settings of the run.
    data: a data set as :func:`load_data` returns it, or its source.
    out: folder to write to; the default is ``runs/<time>-train`` in the working directory.
    resume: go on with the run in ``out`` where it was interrupted, bit for bit.
    progress: whether to show a bar and a line for each round.
    listeners: called with each event of the run, see :mod:`skinfl.federation.events`.
    track: where each round's figures go as well, by comma: tensorboard, mlflow, wandb.
    options: changes to ``settings``, e.g. ``protection="smpc", rounds=3``.

    Returns a :class:`~skinfl.results.TrainingResult`. Raises a :class:`~skinfl.errors.SkinflError`
    for whatever a user can mend; finished rounds are kept in ``out``.
    """
    if not isinstance(listeners, (list, tuple)) or not all(map(callable, listeners)):
        raise SettingsError("listeners: give a list of what is called with each event")
    wanted = _settings(settings, data, options, out if resume else None)
    check(wanted)
    names = tracking.check(track)
    with _claim(out, TRAINING, resume) as folder:
        federated = _federated(wanted, data, folder, progress)
        trackers = tracking.listeners(names, folder.path, wanted.asdict(), print)
        with display_for(wanted.protection, progress) as display, ExitStack() as ending:
            for tracker in trackers:
                ending.callback(tracker.close)
            run(wanted, federated, folder, listeners=[*display, *listeners, *trackers])
        return TrainingResult(folder.path)


def compare(
    settings: Optional[Settings] = None,
    *,
    protections: Optional[Sequence[str]] = None,
    data: Union[PathLike, LesionDataset, None] = None,
    out: Optional[PathLike] = None,
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> ComparisonResult:
    """Train under plaintext and each of ``protections`` with the same seeds; otherwise as :func:`train`.

    ``protections`` None means secret sharing and homomorphic encryption, or on resuming those the
    comparison was begun with.
    """
    wanted = _settings(settings, data, options, out if resume else None)
    with ExitStack() as displays, _claim(out, COMPARING, resume) as folder:
        for name in ("plaintext", *chosen(protections, folder)):
            check(wanted.replace(protection=name))  # all of them before any is trained
        federated = _federated(wanted, data, folder, progress)

        def listeners(protection: str) -> Tuple[Listener, ...]:
            displays.close()
            return displays.enter_context(display_for(protection, progress))

        run_comparison(wanted, federated, folder, protections=protections, listeners=listeners)
        return ComparisonResult(folder.path)


def load_result(folder: PathLike) -> Union[TrainingResult, ComparisonResult]:
    """Return what :func:`train` or :func:`compare` returned, from the folder that it left.

    Raises a :class:`~skinfl.errors.SkinflError` where there is no finished run.
    """
    place = path(folder)
    return ComparisonResult(place) if (place / COMPARISON).exists() else TrainingResult(place)


def predict(
    pictures: Union[Picture, Sequence[Picture]], model: Model, *, tta: Optional[int] = None
) -> pd.DataFrame:
    """Say what a network sees in photographs: one row each, one column a class, probabilities.

    Parameters
    ----------
    pictures: a file, a folder with all that lies below it, a PIL image, uint8 pixels, or a list of these.
    model: a run's folder, a model file, or a network such as :attr:`TrainingResult.model`.
    tta: views of each photograph, turned and mirrored, whose mean is taken; 1 to 8.

    Raises :class:`~skinfl.errors.DataError` at the first that is no photograph.
    """
    return predict_pictures(classifier_of(model), pictures, tta=tta)


def evaluate(
    model: Model,
    data: Union[PathLike, LesionDataset],
    *,
    metadata: Optional[PathLike] = None,
    everything: bool = False,
    tta: Optional[int] = None,
    seed: int = 0,
    progress: bool = True,
) -> Dict[str, Any]:
    """Evaluate a network on another data set, whose classes are matched by name.

    Parameters
    ----------
    model: a run's folder, a model file, or a network.
    data: a data set's source, or one whose images have the network's size.
    metadata: the publisher's table, where it lies elsewhere.
    everything: also use what the network learnt from, which is left out otherwise; it can be told only of a
        run's folder.
    tta: as for :func:`predict`.
    seed: decides what the intervals draw.
    progress: whether to show a bar.

    Returns what ``skinfl evaluate --json`` writes, see :func:`skinfl.use.evaluating.evaluate_on`. Raises
    :class:`~skinfl.errors.DataError` where there is no class in common.
    """
    classifier = classifier_of(model)
    with loading_display(progress) as show:
        dataset = (
            data
            if isinstance(data, LesionDataset)
            else load_for(classifier, data, metadata=metadata, progress=show)
        )
        if dataset.image_shape[1:] != (classifier.image_size, classifier.image_size):
            raise SettingsError(
                f"the images of the data set have {dataset.image_shape[1]} pixels a side, the network takes "
                f"{classifier.image_size}: load it with image_size={classifier.image_size}"
            )
        return evaluate_on(
            classifier, dataset, run=run_of(model), everything=everything, tta=tta, seed=seed, progress=show
        ).result


def export(model: Model, out: PathLike, *, format: str = "torchscript") -> Path:
    """Write a network as one file for other programs, checked against torch first; return the file's path.

    ``format`` is ``"torchscript"`` or ``"onnx"``; see :mod:`skinfl.use.exporting` for what goes in and out.
    """
    place, run = path(out), run_of(model)
    classifier = classifier_of(model)
    write_export(classifier, place, format, [] if run is None else photographs_of(run, classifier))
    return place


def _settings(
    settings: Optional[Settings],
    data: Union[PathLike, LesionDataset, None],
    options: Dict[str, Any],
    begun: Optional[PathLike],
) -> Settings:
    if settings is not None and not isinstance(settings, Settings):
        raise SettingsError(
            f"settings = {settings!r}: expected skinfl.Settings; name data with data=, options by their names"
        )
    if settings is None and begun is not None:
        read_about(path(begun))  # says so where it is no run's folder
        settings = Settings(**read_toml(path(begun) / CONFIG))
    if plugins.is_model(str(options.get("model"))):
        plugins.load(options["model"])
    base = settings or Settings()
    if not isinstance(data, LesionDataset):
        return base.replace(**({} if data is None else {"data": data}), **options)
    made = {"image_size": data.image_shape[1]}
    if data.preparation is not None:
        made.update(data.preparation._asdict())
    for name, value in made.items():
        asked = options.pop(name, base.given.get(name))
        if asked not in (None, value):
            here = f"have {value} pixels a side" if name == "image_size" else f"were made with {value!r}"
            raise SettingsError(
                f"{name} = {asked}, and the images of the data set {here}: "
                f"load it with {name}={asked!r}, or leave that out"
            )
    return base.replace(**made, **options)


def _claim(out: Optional[PathLike], kind: str, resume: bool) -> RunFolder:
    if out is None:
        if resume:
            raise SettingsError("resume=True needs out: the folder of the run to go on with")
        return claim_new(kind, kind)
    return claim(out, kind, resume=resume)


def _federated(
    settings: Settings, data: Union[PathLike, LesionDataset, None], folder: RunFolder, progress: bool
) -> FederatedData:
    if isinstance(data, LesionDataset):
        with loading_display(progress) as show:
            return share_out(settings, data, show)
    if folder.resumed and data is None:
        settings = settings.replace(data=data_of(folder, settings.data))
    with loading_display(progress) as show:
        return load_federated_data(settings, show)
