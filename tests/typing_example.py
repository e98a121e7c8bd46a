"""The public interface as a user writes it, for mypy --strict: what ``py.typed`` promises.

``make lint`` checks it; a call or attribute that lost its type fails there. Nothing here is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple, Union

import numpy as np
import pandas as pd
from torch import Tensor, nn

import skinfl
from skinfl.data import LesionDataset, Reader, all_readers, load
from skinfl.federation.events import Event, RoundFinished
from skinfl.federation.strategies import build_strategy
from skinfl.federation.strategies.base import Strategy, UpdateSum
from skinfl.federation.update import StateLayout
from skinfl.protection.base import Exchange, Protection, Roles
from skinfl.protection.build import build_protection
from skinfl.protection.layout import Layout, Segment


def data(folder: Path) -> Tuple[LesionDataset, np.ndarray]:
    dataset: skinfl.LesionDataset = skinfl.load_data(folder, image_size=32, progress=False)
    same: LesionDataset = load(str(folder))
    readers: Sequence[Reader] = all_readers()
    assert readers and same.classes == dataset.classes
    return dataset, dataset.labels


def one(dataset: LesionDataset) -> pd.DataFrame:
    settings = skinfl.Settings(rounds=3, lr=0.01).replace(protection="smpc")
    rounds: int = settings.rounds

    def listener(event: Event) -> None:
        if isinstance(event, RoundFinished):
            shown: str = f"{event.round} of {rounds}: {event.record.train_loss}"
            print(shown)

    result: skinfl.TrainingResult = skinfl.train(settings, data=dataset, out="run", listeners=[listener])
    accuracy: Optional[float] = result.metrics["balanced_accuracy"]
    curve: Path = result.figures["curves"]
    page: str = result._repr_html_()
    print(accuracy, curve, page, result.per_class.loc["mel"], result.settings.replace(rounds=4))
    history: pd.DataFrame = result.history
    return history


def several() -> Dict[str, skinfl.TrainingResult]:
    comparison: skinfl.ComparisonResult = skinfl.compare(protections=["he"], data="synthetic", rounds=1)
    difference: float = comparison.differences["he"]
    table: pd.DataFrame = comparison.table
    print(difference, table)
    return comparison.runs


def diagnosis(run: Union[str, Path], pixels: np.ndarray) -> Tensor:
    found = skinfl.load_result(run)
    if isinstance(found, skinfl.ComparisonResult):
        raise skinfl.SkinflError("give the folder of one run")
    model: nn.Module = found.model
    probabilities: Dict[str, float] = found.model.predict(pixels)
    print(model, max(probabilities.values()))
    logits: Tensor = found.model.forward(Tensor(pixels))
    return logits


def use(run: Path, photographs: Sequence[Path]) -> pd.DataFrame:
    result = skinfl.train(data="synthetic", rounds=1, track="tensorboard")
    table: pd.DataFrame = result.predictions()
    answers: pd.DataFrame = skinfl.predict(list(photographs), run, tta=8)
    figures: Dict[str, object] = skinfl.evaluate(result.model, "synthetic", everything=True)
    file: Path = skinfl.export(run, "lesions.onnx", format="onnx")
    print(answers, figures, file, result.model.class_info, result.model.temperature)
    return table


def seams(layout: StateLayout, opened: np.ndarray) -> np.ndarray:
    strategy: Strategy = build_strategy("fedavg", {}, 1)
    total: UpdateSum = strategy.unpack(opened, layout)
    change: np.ndarray = total.mean_change
    protection: Protection = build_protection("plaintext")
    roles: Roles = protection.setup(["north", "south"])
    exchange = Exchange("run", 1, Layout([Segment("x", 3)]))
    message: bytes = roles.hospitals["north"].protect(np.zeros(3), exchange).messages["aggregator"]
    sender: str = roles.aggregators["aggregator"].receive(message, exchange)
    print(sender)
    return change
