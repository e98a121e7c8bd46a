"""TensorBoard, MLflow and Weights & Biases: stand-ins of the three take down what they are told."""

from __future__ import annotations

import sys
import types

import pytest
from samples import toy_dataset

import skinfl
from skinfl import tracking
from skinfl.errors import MissingExtra, SettingsError

SMALL = {
    "hospitals": 3,
    "partition": "iid",
    "image_size": 12,
    "rounds": 2,
    "local_epochs": 1,
    "progress": False,
}


class Fakes:
    """What each stand-in was called with, in order."""

    def __init__(self):
        self.calls = []

    def note(self, name, result=None):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return result

        return call

    def named(self, name):
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


@pytest.fixture
def fakes(monkeypatch):
    fakes = Fakes()
    board, mlflow, wandb = (types.ModuleType(n) for n in ("torch.utils.tensorboard", "mlflow", "wandb"))

    class SummaryWriter:
        def __init__(self, log_dir):
            fakes.note("board")(log_dir)
            self.add_text = fakes.note("text")
            self.add_scalar = fakes.note("scalar")
            self.flush = fakes.note("flush")
            self.close = fakes.note("board closed")

    board.SummaryWriter = SummaryWriter
    mlflow.start_run, mlflow.log_params = fakes.note("mlflow"), fakes.note("params")
    mlflow.log_metrics, mlflow.end_run = fakes.note("metrics"), fakes.note("mlflow closed")
    run = types.SimpleNamespace(log=fakes.note("log"), finish=fakes.note("wandb closed"))
    wandb.init, wandb.Settings = fakes.note("wandb", run), lambda **options: options
    for module in (board, mlflow, wandb):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fakes


def test_each_round_goes_to_all_that_are_named(fakes, tmp_path):
    result = skinfl.train(
        data=toy_dataset(), out=str(tmp_path / "run"), track="tensorboard, mlflow,wandb", **SMALL
    )
    accuracies = list(result.history["accuracy"])
    scalars = [a for a, _ in fakes.named("scalar") if a[0] == "test/accuracy"]
    assert [a[1:] for a in scalars] == list(zip(accuracies, (1, 2)))
    assert [(a[0]["test/accuracy"], o["step"]) for a, o in fakes.named("metrics")] == list(
        zip(accuracies, (1, 2))
    )
    assert [(a[0]["test/accuracy"], o["step"]) for a, o in fakes.named("log")] == list(
        zip(accuracies, (1, 2))
    )
    figures = fakes.named("log")[-1][0][0]
    assert {"train/loss", "seconds/total", "bytes/up_per_hospital", "test/auc", "hospitals"} <= set(figures)
    assert all(type(value) is float for value in figures.values())
    for name in ("board closed", "mlflow closed", "wandb closed"):
        assert len(fakes.named(name)) == 1
    assert fakes.named("board")[0][0] == (str(tmp_path / "run" / "tensorboard"),)


def test_no_image_no_hospital_and_no_place_is_told(fakes, tmp_path):
    skinfl.train(data=toy_dataset(), out=str(tmp_path / "run"), track="mlflow,wandb,tensorboard", **SMALL)
    figures = [a[0] for name in ("metrics", "log") for a, _ in fakes.named(name)]
    assert not [key for each in figures for key in each if "hospital-" in key]
    told = fakes.named("params")[0][0][0]
    assert told["strategy"] == "fedavg" and not {"data", "metadata", "plugins"} & set(told)
    assert not {"data", "metadata", "plugins"} & set(fakes.named("wandb")[0][1]["config"])
    assert {name for name, _, _ in fakes.calls} == {
        *("board", "text", "scalar", "flush", "board closed"),
        *("mlflow", "params", "metrics", "mlflow closed", "wandb", "log", "wandb closed"),
    }


@pytest.mark.parametrize("fails", ["start_run", "log_metrics", "end_run"])
def test_a_tracker_that_breaks_is_given_up_and_the_run_goes_on(fakes, tmp_path, monkeypatch, capsys, fails):
    def broken(*_, **__):
        raise ConnectionError("the server\nis away")

    monkeypatch.setattr(sys.modules["mlflow"], fails, broken)
    result = skinfl.train(data=toy_dataset(), out=str(tmp_path / "run"), track="mlflow,wandb", **SMALL)
    assert len(result.history) == 2 and len(fakes.named("log")) == 2
    said = [line for line in capsys.readouterr().out.splitlines() if "mlflow" in line]
    assert said == ["note: mlflow is not written to any more (the server); the run goes on"]


@pytest.mark.parametrize(
    "name,module", [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_missing_package_is_one_line_before_anything_is_made(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"--track {name} needs the package {name}: .*skinfl\[tracking\]"):
        skinfl.train(data=toy_dataset(), out=str(tmp_path / "run"), track=name, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "names,word",
    [("tensorbord", "did you mean 'tensorboard'"), ("mlflow,mlflow", "twice"), (",", "names nothing")],
)
def test_a_wrong_name_is_one_line(tmp_path, names, word):
    with pytest.raises(SettingsError, match=word):
        skinfl.train(data=toy_dataset(), out=str(tmp_path / "run"), track=names, **SMALL)


def test_a_tracker_of_ones_own(tmp_path):
    seen = []

    class Mine(tracking.Tracker):
        def __init__(self, run):
            seen.append(run.name)

        def log(self, round, figures):
            seen.append(round)

        def close(self):
            seen.append("closed")

    tracking.TRACKERS.register("mine", "to a list", Mine)
    try:
        skinfl.train(data=toy_dataset(), out=str(tmp_path / "run"), track="mine", **SMALL)
    finally:
        tracking.TRACKERS.unregister("mine")
    assert seen == ["run", 1, 2, "closed"]
