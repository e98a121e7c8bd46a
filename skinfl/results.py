"""What a finished run or comparison is to Python: read from its folder, which has everything.

Both are values: nothing here trains, and a result read a month later is the one that training returned.
"""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import pandas as pd

from skinfl.classifier import LesionClassifier, Picture
from skinfl.errors import SkinflError
from skinfl.federation.records import RoundRecord, read_records
from skinfl.metrics import SCALARS
from skinfl.predictions import read_predictions
from skinfl.report import wording
from skinfl.run_folder import (
    COMPARISON,
    CONFIG,
    FIGURES,
    PREDICTIONS,
    RESULT,
    ROUNDS,
    model_in,
)
from skinfl.settings import Settings, read_toml
from skinfl.use.frames import as_frame, predict_pictures


class TrainingResult:
    """What one training run gave.

    Attributes
    ----------
    folder: where everything lies, ``report.html`` with it.
    result: the content of ``result.json``.
    metrics: ``{name: number or None}`` of the final model on the common test set, see
        :func:`skinfl.metrics.evaluate_predictions`; None where the data does not define it.
    history: one row a round (index ``round``): the mean training loss, the metrics on the common test
        set (NaN where it was not evaluated), seconds, mean bytes up and down per hospital, and how many
        hospitals are in the sum.
    per_class: one row a class: sensitivity, specificity, auc, support (images in the test set).
    figures: PNG files by name.
    """

    def __init__(self, folder: Path):
        self.folder = Path(os.path.abspath(str(folder)))  # a notebook may change its place
        self.result: Dict[str, Any] = _read_json(self.folder / RESULT, ("data", "final", "rounds", "seconds"))
        final: Dict[str, Any] = self.result["final"] or {}
        self.metrics: Dict[str, Optional[float]] = {name: final.get(name) for name in SCALARS}
        self.history = _history(read_records(self.folder / ROUNDS))
        self.per_class = pd.DataFrame.from_dict(final.get("per_class", {}), orient="index")
        self.per_class.index.name = "class"
        self.figures: Dict[str, Path] = {p.stem: p for p in sorted((self.folder / FIGURES).glob("*.png"))}
        self._model: Optional[LesionClassifier] = None

    @property
    def model(self) -> LesionClassifier:
        """The trained network, ready for a photograph: ``model.predict("lesion.jpg")``."""
        if self._model is None:
            self._model = LesionClassifier.load(model_in(self.folder))
        return self._model

    def predictions(self) -> pd.DataFrame:
        """Return one row a photograph of the test set: what is known of it, and the network's answer.

        Columns: image_id, lesion_id, hospital, site, sex, age, diagnosis, predicted, and ``p_<class>``, the
        probabilities. Raises a :class:`~skinfl.errors.SkinflError` where the run holds none.
        """
        found = read_predictions(self.folder / PREDICTIONS, self.model.class_info)
        return as_frame(found)

    def predict(
        self, pictures: Union[Picture, Sequence[Picture]], *, tta: Optional[int] = None
    ) -> pd.DataFrame:
        """Return the probability of each class for photographs; see :func:`skinfl.predict`."""
        return predict_pictures(self.model, pictures, tta=tta)

    @property
    def settings(self) -> Settings:
        """What the run was made of."""
        return Settings(**read_toml(self.folder / CONFIG))

    @property
    def title(self) -> str:
        """One line that says what was trained."""
        r = self.result
        return f"{r['data']['name']}, {r['hospitals']} hospitals, {r['strategy']}, {r['protection']}"

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self._scores().items())
        return f"<TrainingResult {self.title}: {shown}; {self.folder}>"

    def _repr_html_(self) -> str:
        scores = pd.DataFrame({"value": self._scores()})
        notes = [*wording.data_notes(self.result), *self.result.get("sentences", ())]
        named = {each.name: wording.class_label(each) for each in wording.classes_of(self.result["data"])}
        per_class = self.per_class.rename(index=named)
        return _page(self.title, notes, [scores, per_class], list(self.figures.values()))

    def _scores(self) -> Dict[str, float]:
        return {name: value for name, value in self.metrics.items() if value is not None}


class ComparisonResult:
    """The same training under several protections, plaintext first.

    Attributes
    ----------
    folder: where everything lies, ``report.html`` with it.
    runs: a :class:`TrainingResult` by protection.
    metrics: ``{protection: {name: number or None}}``.
    history, per_class: those of the runs, with the protection as outer index.
    table: one column a protection: metrics, mean bytes up per hospital and round, seconds a round.
    differences: largest absolute difference of the final model from plaintext's, by protection.
    verdict: sentences that say which metrics differ from plaintext's by more than noise.
    figures: PNG files by name.
    """

    def __init__(self, folder: Path):
        self.folder = Path(os.path.abspath(str(folder)))  # a notebook may change its place
        comparison = _read_json(self.folder / COMPARISON, ("differences", "runs"))
        names = [run["protection"] for run in comparison["runs"]]
        self.differences: Dict[str, float] = comparison["differences"]
        self.verdict: List[str] = comparison.get("verdict", [])
        self.runs: Dict[str, TrainingResult] = {name: TrainingResult(self.folder / name) for name in names}
        self.metrics = {name: run.metrics for name, run in self.runs.items()}
        self.history = _by_protection({name: run.history for name, run in self.runs.items()})
        self.per_class = _by_protection({name: run.per_class for name, run in self.runs.items()})
        self.table = pd.DataFrame({name: _column(run) for name, run in self.runs.items()})
        self.figures: Dict[str, Path] = {p.stem: p for p in sorted((self.folder / FIGURES).glob("*.png"))}

    @property
    def model(self) -> LesionClassifier:
        """The plaintext run's network; the others differ from it by :attr:`differences`."""
        return next(iter(self.runs.values())).model

    @property
    def title(self) -> str:
        """One line that says what was compared."""
        first = next(iter(self.runs.values())).result
        return f"{first['data']['name']}, {first['hospitals']} hospitals: {', '.join(self.runs)}"

    def __repr__(self) -> str:
        return f"<ComparisonResult {self.title}; {self.folder}>"

    def _repr_html_(self) -> str:
        notes = [note for run in self.runs.values() for note in wording.data_notes(run.result)]
        return _page(
            self.title, [*dict.fromkeys(notes), *self.verdict], [self.table], list(self.figures.values())
        )


def _read_json(path: Path, parts: Sequence[str]) -> Dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict) or not all(part in found for part in parts):
            raise ValueError
        return found
    except OSError as error:
        raise SkinflError(
            f"{path} cannot be read ({error.strerror}): name the folder of a finished run"
        ) from None
    except ValueError:
        raise SkinflError(f"{path} is damaged: run it again, or resume it") from None


def _history(records: List[RoundRecord]) -> pd.DataFrame:
    rows = []
    for record in records:
        up, down = (list(d.values()) for d in (record.bytes_up, record.bytes_down))
        rows.append(
            {
                "round": record.round,
                "train_loss": float("nan") if record.mean_loss is None else record.mean_loss,
                **{name: record.metric(name) for name in SCALARS},
                "seconds": record.seconds.total,
                "bytes_up": _mean(up),
                "bytes_down": _mean(down),
                "hospitals": len(record.trained),
            }
        )
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["round"])
    return frame.set_index("round").astype(float).astype({"hospitals": int} if rows else {})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _column(run: TrainingResult) -> Dict[str, Optional[float]]:
    seconds = run.result["seconds"]["total"] / max(1, run.result["rounds"])
    up = run.result["bytes"]["up_per_hospital_per_round"]
    return {**run.metrics, "bytes up per hospital and round": up, "seconds per round": seconds}


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _by_protection(frames: Dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, names=["protection"])


def _page(title: str, notes: List[str], frames: List[pd.DataFrame], pictures: List[Path]) -> str:
    """Return what a notebook shows: what must be known of the data, tables, then figures.

    Figures are embedded, so that the notebook keeps them.
    """
    parts = [f"<p><b>{html.escape(title)}</b></p>"]
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    parts += [frame.to_html(float_format=_shown, na_rep="", border=0) for frame in frames]
    for path in pictures:
        data = base64.b64encode(path.read_bytes()).decode()
        name = html.escape(path.stem.replace("_", " "))
        parts.append(f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,{data}">')
    return "\n".join(parts)
