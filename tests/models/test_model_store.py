from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from skinfl.data.preparation import Preparation
from skinfl.errors import ModelError
from skinfl.models import build_model, load_model, model_names, save_model
from skinfl.predictions import LesionClass

CLASSES = ("akiec", "bcc", "bkl")


def save(path, model=None, **changes):
    description = {
        "name": "skinnet",
        "in_channels": 1,
        "image_size": 12,
        "classes": 3,
        "class_names": CLASSES,
        "doconv": True,
        "normalisation_mean": [0.6],
        "normalisation_std": [0.2],
    }
    description.update(changes)
    keys = ("in_channels", "image_size", "classes", "doconv")
    if model is None:
        model = build_model(description["name"], **{k: description[k] for k in keys})
    save_model(path, model, **description)
    return model


@pytest.mark.parametrize("name", model_names())
def test_what_was_saved_comes_back(tmp_path, name):
    size = 12 if name == "skinnet" else 32
    model = save(tmp_path / "m.npz", name=name, image_size=size).eval()
    stored = load_model(tmp_path / "m.npz")
    images = torch.randn(2, 1, size, size)
    with torch.no_grad():
        assert torch.equal(stored.model(images), model(images))
    assert not stored.model.training
    bare = tuple(LesionClass(each, each) for each in CLASSES)
    assert stored[1:] == (name, CLASSES, (0.6,), (0.2,), size, 1, Preparation(size), 1.0, bare, 1)
    assert os.listdir(str(tmp_path)) == ["m.npz"]


def test_a_temperature_comes_back_and_must_be_a_positive_number(tmp_path):
    save(tmp_path / "m.npz", temperature=1.75)
    assert load_model(tmp_path / "m.npz").temperature == 1.75
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ModelError, match="temperature needs a positive number"):
            save(tmp_path / "n.npz", temperature=wrong)
    assert not (tmp_path / "n.npz").exists()


def test_a_file_cut_anywhere_is_refused(tmp_path):
    save(tmp_path / "m.npz")
    whole = (tmp_path / "m.npz").read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="cut"):
            load_model(tmp_path / "cut")


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    np.savez(str(tmp_path / "other.npz"), a=np.zeros(3))
    np.savez(str(tmp_path / "json.npz"), header=np.array(json.dumps({"format": "other"})))
    np.savez(str(tmp_path / "pickle.npz"), header=np.array({"format": "skinfl-model"}, dtype=object))
    np.save(str(tmp_path / "plain.npy"), np.zeros(3))
    for name in ("text", "other.npz", "json.npz", "pickle.npz", "plain.npy"):
        with pytest.raises(ModelError, match=name + " is not a model file"):
            load_model(tmp_path / name)
    with pytest.raises(ModelError, match="no model at"):
        load_model(tmp_path / "nothing")


def rewrite(path, change):
    with np.load(str(path), allow_pickle=False) as archive:
        arrays = {k: archive[k] for k in archive.files}
    header = json.loads(str(arrays["header"][()]))
    change(header, arrays)
    arrays["header"] = np.array(json.dumps(header))
    np.savez(str(path), **arrays)


@pytest.mark.parametrize(
    "change,word",
    [
        (lambda h, a: h.update(version=2), "format 2"),
        (lambda h, a: h.update(classes=4), "3 class names for 4"),
        (lambda h, a: h.update(image_size="12"), "image_size"),
        (lambda h, a: h.update(fit="stretch"), "unknown fit 'stretch'"),
        (lambda h, a: h.update(colour_constancy=3), "unknown colour constancy 3"),
        (lambda h, a: h.update(std=[0.0]), "positive"),
        (lambda h, a: h.update(mean=[float("nan")]), "finite"),
        (lambda h, a: h.update(mean=[0.1, 0.2]), "mean needs one number"),
        (lambda h, a: h.update(mean=["0.1"]), "mean needs one number"),
        (lambda h, a: h.update(name="skinet"), "skinnet"),
        (lambda h, a: h.update(image_size=64), "do not fit"),
        (lambda h, a: a.pop("state/conv1.W"), "do not fit"),
        (lambda h, a: a["state/output.bias"].fill(np.inf), "diverged"),
    ],
)
def test_contradictions_are_refused(tmp_path, change, word):
    save(tmp_path / "m.npz")
    rewrite(tmp_path / "m.npz", change)
    with pytest.raises(ModelError, match=word):
        load_model(tmp_path / "m.npz")


def test_a_file_says_how_photographs_were_prepared(tmp_path):
    save(tmp_path / "m.npz", fit="pad", colour_constancy="shades-of-grey")
    assert load_model(tmp_path / "m.npz").preparation == Preparation(12, "pad", "shades-of-grey")
    # one that was written before there was a choice
    rewrite(tmp_path / "m.npz", lambda h, a: (h.pop("fit"), h.pop("colour_constancy")))
    assert load_model(tmp_path / "m.npz").preparation == Preparation(12, "squash", "none")


def test_a_contradiction_is_refused_before_writing(tmp_path):
    with pytest.raises(ModelError, match="class names"):
        save(tmp_path / "m.npz", class_names=("a", "b"))
    assert os.listdir(str(tmp_path)) == []


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path / "m.npz")
    before = (tmp_path / "m.npz").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ModelError, match="No space left"):
        save(tmp_path / "m.npz")
    assert (tmp_path / "m.npz").read_bytes() == before
    assert os.listdir(str(tmp_path)) == ["m.npz"]
    with pytest.raises(ModelError, match="cannot write"):
        save(tmp_path / "m.npz" / "m.npz")


def test_names_in_full_and_temperature_come_back_and_old_files_do_without(tmp_path):
    described = [(name, f"the disease {name}", k == 1 or None) for k, name in enumerate(CLASSES)]
    save(tmp_path / "m.npz", class_info=described, temperature=1.5)
    stored = load_model(tmp_path / "m.npz")
    assert stored.temperature == 1.5 and list(map(tuple, stored.class_info)) == described

    def older(header, arrays):
        del header["temperature"], header["class_info"]

    rewrite(tmp_path / "m.npz", older)
    stored = load_model(tmp_path / "m.npz")
    assert stored.temperature == 1 and stored.class_info == tuple(LesionClass(c, c) for c in CLASSES)


@pytest.mark.parametrize("views", [0, 9, -1, True, "4", 2.5, None])
def test_impossible_views_in_a_file_are_refused(tmp_path, views):
    save(tmp_path / "m.npz", views=4)
    assert load_model(tmp_path / "m.npz").views == 4
    rewrite(tmp_path / "m.npz", lambda header, arrays: header.update(views=views))
    with pytest.raises(ModelError, match="views need to be a whole number from 1 to 8"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf"), "1", None])
def test_an_impossible_temperature_is_refused(tmp_path, temperature):
    save(tmp_path / "m.npz")
    rewrite(tmp_path / "m.npz", lambda header, arrays: header.update(temperature=temperature))
    with pytest.raises(ModelError, match="temperature needs a positive number"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "described",
    [
        *([], {}, "x", [1, 2, 3], [{}] * 3),
        [{"name": c, "full_name": c, "malignant": None} for c in CLASSES[::-1]],
        [{"name": c, "full_name": 3, "malignant": None} for c in CLASSES],
        [{"name": c, "full_name": c, "malignant": "no"} for c in CLASSES],
        [{"name": c, "full_name": c, "malignant": None, "more": 1} for c in CLASSES],
    ],
)
def test_an_unsound_description_of_classes_is_refused(tmp_path, described):
    save(tmp_path / "m.npz")
    rewrite(tmp_path / "m.npz", lambda header, arrays: header.update(class_info=described))
    with pytest.raises(ModelError, match="no proper 'class_info'"):
        load_model(tmp_path / "m.npz")
