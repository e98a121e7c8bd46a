"""A trained network from Python: predictions, evaluation, export."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from samples import toy_dataset

import skinfl


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    small = {"hospitals": 3, "partition": "iid", "image_size": 12, "rounds": 2, "local_epochs": 1}
    return skinfl.train(
        data=toy_dataset(), out=str(tmp_path_factory.mktemp("python") / "run"), progress=False, **small
    )


def test_predictions_are_those_of_the_test_set_with_their_hospitals(result):
    table = result.predictions()
    final = result.result["final"]
    assert len(table) == result.result["data"]["test_images"]
    assert (table["diagnosis"] == table["predicted"]).mean() == pytest.approx(final["accuracy"])
    assert set(table["hospital"]) <= set(result.result["partition"])
    held = table.groupby("hospital").size()
    for name, part in result.result["partition"].items():
        assert held.get(name, 0) == sum(part["test"].values())
    data = toy_dataset()
    for _, row in table.head(3).iterrows():
        i = list(data.image_ids).index(row["image_id"])
        assert row["lesion_id"] == data.lesion_ids[i] and row["site"] == data.sites[i]
        assert row["diagnosis"] == data.classes[data.labels[i]]
        opinion = result.model.predict(data.images[i][:, :, 0])
        np.testing.assert_allclose(
            row[["p_nv", "p_mel", "p_bcc"]].astype(float), list(opinion.values()), atol=1e-5
        )


def test_what_was_learnt_from_and_what_is_tested_share_no_lesion(result):
    learnt = pd.read_csv(str(result.folder / "trained_on.csv"), dtype=str)
    data = result.result["data"]
    assert len(learnt) == data["train_images"] + data["validation_images"] == 96  # the latter chose the round
    assert not set(learnt["lesion_id"]) & set(result.predictions()["lesion_id"])


def test_photographs_become_a_table(result, tmp_path):
    image = toy_dataset()[1].image[:, :, 0]
    for name in ("b.png", "a.png"):
        Image.fromarray(image).save(str(tmp_path / name))
    table = skinfl.predict([str(tmp_path), image], result.folder)
    assert list(table.index) == [str(tmp_path / "a.png"), str(tmp_path / "b.png"), 1]
    assert list(table.columns) == ["nv", "mel", "bcc"]
    np.testing.assert_allclose(table.sum(axis=1), 1)
    np.testing.assert_allclose(table.values, result.predict(image).values.repeat(3, axis=0), atol=1e-6)
    assert len(skinfl.predict([], result.model)) == 0
    with pytest.raises(skinfl.SkinflError, match="absent"):
        skinfl.predict(tmp_path / "absent.png", result.model)


def test_evaluation_and_export_from_python(result, tmp_path):
    found = skinfl.evaluate(result.folder, toy_dataset(), progress=False)
    assert found["accuracy"] == pytest.approx(result.metrics["accuracy"])
    assert found["images"] == result.result["data"]["test_images"]
    whole = skinfl.evaluate(result.model, toy_dataset(), progress=False)
    assert whole["images"] == 120 and whole["trained_on_told_by"] == ""
    with pytest.raises(skinfl.SkinflError, match="image_size=12"):
        skinfl.evaluate(result.model, toy_dataset(size=14), progress=False)
    assert skinfl.export(result.folder, tmp_path / "m.pt") == tmp_path / "m.pt"
    assert (tmp_path / "m.pt").stat().st_size > 1000


def test_a_run_of_before_that_has_no_predictions_says_so(result, tmp_path):
    shutil.copytree(str(result.folder), str(tmp_path / "old"))
    (tmp_path / "old" / "predictions.csv").unlink()
    with pytest.raises(skinfl.SkinflError, match=r"predictions\.csv"):
        skinfl.load_result(tmp_path / "old").predictions()
