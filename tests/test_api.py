"""skinfl from Python: what a notebook or a script calls."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from samples import toy_dataset

import skinfl
from skinfl.data.dataset import LesionDataset
from skinfl.data.preparation import Preparation
from skinfl.errors import SettingsError

SMALL = {
    "hospitals": 3,
    "partition": "iid",
    "image_size": 12,
    "rounds": 2,
    "local_epochs": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "run"
    return skinfl.train(data=toy_dataset(), protection="smpc", out=str(out), **SMALL)


def test_metrics_history_and_classes_are_those_of_the_run(result):
    assert result.metrics["accuracy"] == result.result["final"]["accuracy"]
    assert all(value is None or isinstance(value, float) for value in result.metrics.values())
    assert list(result.history.index) == [1, 2] and result.history.index.name == "round"
    assert result.history["accuracy"].iloc[-1] == result.metrics["accuracy"]
    assert (result.history[["train_loss", "seconds", "bytes_up", "bytes_down"]] > 0).all().all()
    assert list(result.history["hospitals"]) == [3, 3]
    assert list(result.per_class.index) == ["nv", "mel", "bcc"]
    assert result.per_class["support"].sum() == sum(map(sum, result.result["final"]["confusion"]))
    assert result.settings.protection == "smpc" and result.settings.rounds == 2


def test_the_model_takes_images_in_every_form(result, tmp_path):
    image = toy_dataset()[1].image
    Image.fromarray(image[:, :, 0]).save(str(tmp_path / "lesion.png"))
    grey, colour = image[:, :, 0], np.repeat(image, 3, axis=2)
    opinions = [
        result.model.predict(picture)
        for picture in (
            tmp_path / "lesion.png",
            str(tmp_path / "lesion.png"),
            Image.fromarray(grey),
            grey,
            colour,
        )
    ]
    assert list(opinions[0]) == ["nv", "mel", "bcc"]
    assert sum(opinions[0].values()) == pytest.approx(1)
    for opinion in opinions[1:]:
        assert opinion == pytest.approx(opinions[0], abs=1e-6)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    assert isinstance(result.model, torch.nn.Module) and not result.model.training
    np.testing.assert_allclose(
        result.model(pixels).detach().numpy(), result.model(pixels.float() / 255).detach().numpy(), atol=1e-6
    )


@pytest.mark.parametrize(
    "picture",
    [
        *(np.zeros((40, 40)), np.zeros((2, 2, 2, 2), np.uint8), np.zeros((40, 40, 2), np.uint8)),
        *(np.zeros((0, 0), np.uint8), np.zeros((1, 9, 3), np.uint8), Image.new("RGB", (1, 1))),
        *("nowhere.jpg", "", ".", b"lesion.jpg", None, 3),
    ],
)
def test_what_is_no_picture_is_refused(result, picture):
    with pytest.raises(skinfl.SkinflError):
        result.model.predict(picture)


def test_sixteen_bits_are_scaled_however_the_picture_comes(result, tmp_path):
    levels = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(levels).save(str(tmp_path / "grey16.png"))
    eight = result.model.predict(np.rint(levels / 257).astype(np.uint8))
    assert result.model.predict(Image.fromarray(levels)) == eight
    assert result.model.predict(tmp_path / "grey16.png") == eight


def test_a_notebook_shows_tables_and_figures(result):
    shown = result._repr_html_()
    assert "<table" in shown and "data:image/png;base64," in shown and "balanced_accuracy" in shown
    assert result.figures and all(path.suffix == ".png" for path in result.figures.values())
    assert "smpc" in repr(result)


def test_a_notebook_is_told_what_the_report_says_of_the_data(tmp_path):
    dataset = toy_dataset()
    dataset.synthetic = True
    untrained = skinfl.train(data=dataset, dropout=0.95, out=tmp_path / "r", **{**SMALL, "rounds": 1})
    assert "untrained network" in untrained._repr_html_() and "drawn" in untrained._repr_html_()


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"final": 1}', "\0"])
def test_a_damaged_result_is_named(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(skinfl.SkinflError, match=r"result.json is damaged"):
        skinfl.load_result(tmp_path)


def test_a_result_is_read_again_from_its_folder(result):
    again = skinfl.load_result(str(result.folder))
    assert again.metrics == result.metrics
    pd.testing.assert_frame_equal(again.history, result.history)


def test_a_finished_run_goes_on(result):
    more = skinfl.train(
        data=toy_dataset(), protection="smpc", out=result.folder, resume=True, **{**SMALL, "rounds": 3}
    )
    assert list(more.history.index) == [1, 2, 3]
    pd.testing.assert_frame_equal(more.history.iloc[:2], result.history)


def test_a_run_goes_on_with_its_own_settings_and_data(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = skinfl.train(data="toy", out="r", strategy="scaffold", **{**SMALL, "rounds": 1})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    more = skinfl.train(out="../r", resume=True, rounds=2, progress=False)
    assert more.settings == first.settings.replace(rounds=2)
    with pytest.raises(skinfl.SkinflError, match="holds a run already"):
        skinfl.train(data="toy", out="../r", **SMALL)  # a cell that is run twice
    with pytest.raises(skinfl.SkinflError, match="holds no run"):
        skinfl.train(out="..", resume=True, progress=False)


def test_a_loaded_data_set_says_its_size(tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "image_size"}
    result = skinfl.train(data=toy_dataset(), out=tmp_path / "r", **options)
    assert result.settings.image_size == 12


def test_a_loaded_data_set_says_how_it_was_prepared(tmp_path):
    toy = toy_dataset()
    captions = {**toy.captions(), "preparation": Preparation(12, "crop", "shades-of-grey")}
    data = LesionDataset(images=toy.images, labels=toy.labels, **captions)
    options = {name: value for name, value in SMALL.items() if name != "image_size"}
    for asked in ({"fit": "pad"}, {"settings": skinfl.Settings(fit="squash")}):
        with pytest.raises(SettingsError, match="of the data set were made with 'crop': load it with fit="):
            skinfl.train(data=data, out=tmp_path / "r", **{**options, **asked})
    result = skinfl.train(data=data, out=tmp_path / "r", **{**options, "rounds": 1})
    assert (result.settings.fit, result.settings.colour_constancy) == ("crop", "shades-of-grey")
    assert result.model.preparation == data.preparation


def test_protections_are_compared(tmp_path):
    comparison = skinfl.compare(data=toy_dataset(), protections=["smpc"], out=tmp_path / "c", **SMALL)
    assert list(comparison.runs) == list(comparison.metrics) == ["plaintext", "smpc"]
    assert comparison.differences["plaintext"] == 0 and comparison.differences["smpc"] < 2e-6
    assert list(comparison.table.columns) == ["plaintext", "smpc"]
    assert comparison.history.loc["smpc"].index.tolist() == [1, 2]
    assert comparison.per_class.loc["plaintext"].index.tolist() == ["nv", "mel", "bcc"]
    assert "<table" in comparison._repr_html_() and comparison.model is comparison.runs["plaintext"].model
    assert isinstance(skinfl.load_result(tmp_path / "c"), skinfl.ComparisonResult)


def test_settings_are_taken_and_changed(toy, tmp_path):
    settings = skinfl.Settings(data="toy", hospitals=3, partition="iid", image_size=12, rounds=1)
    result = skinfl.train(settings, strategy="fedprox", local_epochs=1, out=tmp_path / "r", progress=False)
    assert result.settings.strategy == "fedprox" and result.settings.rounds == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protektion": "smpc"}, "did you mean 'protection'"),
        ({"protection": "smpc", "parties": 1}, "one party alone sees everything"),
        ({"resume": True}, "needs out"),
        ({"model": "resnet"}, "resnet18"),
        ({"image_size": 32}, "have 12 pixels a side"),
        ({"settings": {"rounds": 3}}, "expected skinfl.Settings"),
        ({"settings": "data"}, "expected skinfl.Settings"),
        ({"listeners": print}, "give a list"),
        ({"listeners": None}, "give a list"),
        ({"out": 3}, "3 is no path"),
        ({"out": ["a"]}, "is no path"),
        ({"out": ""}, "a path is empty"),
        ({"rounds": 1.5}, "expected int"),
        ({"rounds": True}, "expected int"),
        ({"lr": "0.1"}, "expected float"),
    ],
)
def test_a_wrong_call_leaves_nothing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(skinfl.SkinflError, match=message):
        skinfl.train(data=toy_dataset(), **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data", [3, b"data", ["data"], {}, np.zeros((3, 3)), "nowhere", "", "~nobody-here/x"]
)
def test_what_is_no_data_leaves_nothing(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(skinfl.SkinflError) as error:
        skinfl.train(data=data, progress=False)
    assert len(str(error.value).splitlines()) == 1 or isinstance(data, np.ndarray)
    with pytest.raises(skinfl.SkinflError):
        skinfl.load_data(data, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["28", 28.0, 0, -1, 10**9, None])
def test_an_impossible_size_is_named(size):
    with pytest.raises(skinfl.SkinflError, match=r"image size .* is impossible"):
        skinfl.load_data("synthetic", image_size=size, progress=False)


def test_protections_in_one_text_are_explained(tmp_path):
    with pytest.raises(skinfl.SkinflError, match="give a list of names"):
        skinfl.compare(data=toy_dataset(), protections="smpc", out=tmp_path / "c", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_numpys_numbers_are_numbers():
    settings = skinfl.Settings(rounds=np.int64(3), alpha=np.float32(0.5), partition="dirichlet")
    assert type(settings.rounds) is int and type(settings.alpha) is float
    assert settings == skinfl.Settings(rounds=3, alpha=0.5, partition="dirichlet")


def test_a_folder_without_a_finished_run_is_named(tmp_path):
    with pytest.raises(skinfl.SkinflError, match="name the folder of a finished run"):
        skinfl.load_result(tmp_path)


def test_importing_loads_nothing_and_every_name_is_there():
    code = "import skinfl, sys; print('torch' in sys.modules, 'numpy' in sys.modules, dir(skinfl))"
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout
    assert said.startswith("False False") and "load_data" in said
    for name in skinfl.__all__:
        assert getattr(skinfl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        skinfl.nothing  # noqa: B018


def test_data_are_loaded_with_a_str(tmp_path):
    assert len(skinfl.load_data("synthetic", progress=False, image_size=16)) == 2000
