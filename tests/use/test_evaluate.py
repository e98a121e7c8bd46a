"""``skinfl evaluate``: another data set, whose classes are matched by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from samples import toy_dataset
from typer.testing import CliRunner
from use_helpers import CLASSES, make_model

import skinfl
from skinfl import use_commands
from skinfl.classifier import LesionClassifier
from skinfl.data import ham10000, isic2019
from skinfl.data.dataset import LesionDataset
from skinfl.errors import DataError, ModelError, SkinflError
from skinfl.intervals import METRICS
from skinfl.metrics import evaluate_predictions
from skinfl.predictions import LesionClass, read_predictions
from skinfl.use.evaluating import evaluate_on

SMALL = {
    "hospitals": 3,
    "partition": "iid",
    "image_size": 12,
    "rounds": 1,
    "local_epochs": 1,
    "progress": False,
}


def dataset(classes, images=60, seed=0, **more):
    rng = np.random.RandomState(seed)
    lesions = [f"{seed}-lesion-{i // 2}" for i in range(images)]
    names = [f"{seed}-image-{i}" for i in range(images)]
    labels = np.arange(images) // 2 % len(classes)
    pixels = rng.randint(0, 256, (images, 12, 12, 3))
    return LesionDataset("other", pixels, labels, classes, lesions, names, **more)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "model.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate") / "run"
    skinfl.train(data=toy_dataset(), out=str(out), **SMALL)
    return out


@pytest.fixture
def run(monkeypatch):
    app = typer.Typer()
    app.callback()(lambda: None)
    use_commands.register(app)

    def invoke(data, *arguments):
        source = data
        if isinstance(data, LesionDataset):
            source = "other"
            monkeypatch.setattr("skinfl.use.models.load", lambda source, **options: data)
        return CliRunner().invoke(app, ["evaluate", "--data", str(source), *map(str, arguments)])

    return invoke


def test_the_figures_are_those_of_the_photographs_with_intervals(model, run, tmp_path):
    data = dataset([each[0] for each in CLASSES])
    files = ("--json", tmp_path / "a" / "figures.json", "--csv", tmp_path / "answers.csv")
    ended = run(data, "--model", model, *files)
    assert ended.exit_code == 0, ended.output
    result = json.loads((tmp_path / "a" / "figures.json").read_text())
    expected = evaluate_predictions(
        LesionClassifier.load(model).probabilities(data.images), data.labels, data.classes
    )
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece", "confusion"):
        assert result[name] == expected[name]
    assert result["images"] == 60 and result["lesions"] == 30 and set(result["intervals"]) == set(METRICS)
    for name in ("accuracy", "auc"):
        low, high = result["intervals"][name]
        assert low <= result[name] <= high
    assert result["classes"][1] == {"name": "mel", "full_name": "melanoma", "malignant": True}
    assert "melanoma (malignant)" in ended.output and "[" in ended.output
    assert "cannot be told" in ended.output  # a model file alone does not say what it learnt from
    table = read_predictions(tmp_path / "answers.csv", [LesionClass(*each) for each in CLASSES])
    assert list(table.labels) == list(data.labels) and list(table.image_ids) == list(data.image_ids)


def test_classes_are_matched_and_what_cannot_be_is_said_and_left_out(model, run):
    data = dataset(["NEVUS", "Melanoma", "scar"])
    ended = run(data, "--model", model)
    assert ended.exit_code == 0
    for line in (
        "classes of the data that count as others: NEVUS as nv, Melanoma as mel",
        "classes that the network does not know, left out: scar (20 images)",
        "classes that the data do not have, still among the answers: basal cell carcinoma (malignant)",
        "other: evaluated on 40 images of 20 lesions",
    ):
        assert line in ended.output.splitlines()


def test_probabilities_of_parts_add_up_to_the_wider_class(tmp_path):
    classifier = LesionClassifier.load(make_model(tmp_path / "m.npz", isic2019.CLASS_INFO))
    data = dataset(ham10000.CLASS_INFO)
    found = evaluate_on(classifier, data)
    own = classifier.probabilities(data.images)
    names = found.predictions.names
    parts = [isic2019.CLASSES.index(name) for name in ("ak", "scc")]
    np.testing.assert_allclose(
        found.predictions.probabilities[:, names.index("akiec")], own[:, parts].sum(axis=1)
    )
    np.testing.assert_allclose(found.predictions.probabilities.sum(axis=1), 1)
    assert found.result["merged"] == {"ak": "akiec", "scc": "akiec"} and found.result["images"] == 60


@pytest.mark.parametrize("classes", [["scar", "wart"], ["1", "2"]])
def test_without_a_class_in_common_it_is_one_line(model, run, classes, tmp_path):
    ended = run(dataset(classes), "--model", model, "--json", tmp_path / "a.json")
    assert isinstance(ended.exception, DataError) and "no class in common" in str(ended.exception)
    assert "nv, mel, bcc" in str(ended.exception) and ", ".join(classes) in str(ended.exception)
    assert "\n" not in str(ended.exception) and not (tmp_path / "a.json").exists()


def test_photographs_only_of_unknown_classes_are_one_line(model):
    data = dataset(["scar", "nv"])
    with pytest.raises(DataError, match="no photograph of a class that the network knows"):
        evaluate_on(LesionClassifier.load(model), data.subset(np.flatnonzero(data.labels == 0)))


def test_of_the_runs_own_data_only_the_test_part_counts(trained, run, tmp_path):
    ended = run(toy_dataset(), "--model", trained, "--json", tmp_path / "a.json")
    result = json.loads((tmp_path / "a.json").read_text())
    final = json.loads((trained / "result.json").read_text())
    assert result["images"] == final["data"]["test_images"]
    for name in ("accuracy", "auc", "ece", "melanoma_sensitivity_at_90_specificity"):
        assert result[name] == pytest.approx(final["final"][name], abs=1e-6), name
    # validation images chose the round
    learnt = final["data"]["train_images"] + final["data"]["validation_images"]
    assert final["data"]["validation_images"] and result["left_out"]["trained_on"] == learnt
    assert "the data are the run's own" in ended.output
    ended = run(toy_dataset(), "--model", trained, "--all", "--json", tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["images"] == 120
    assert f"warning: the network learnt from {learnt}" in ended.output


def test_a_hospitals_own_model_is_named_and_not_tested_on_what_the_run_learnt_from(run, tmp_path):
    out = tmp_path / "run"
    outcome = skinfl.train(data=toy_dataset(), out=str(out), personal="head", **SMALL).result
    ended = run(toy_dataset(), "--model", out)
    assert isinstance(ended.exception, ModelError) and "personal/hospital-1.npz" in str(ended.exception)
    own = out / "personal" / "hospital-1.npz"
    ended = run(toy_dataset(), "--model", own, "--device", "cpu", "--json", tmp_path / "a.json")
    assert ended.exit_code == 0, ended.output
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["images"] == outcome["data"]["test_images"] < 120
    page = (out / "report.html").read_text("utf-8")
    assert "own models</h2>" in page and "there is no common one" in page


def renamed(data, **changes):
    return LesionDataset(images=data.images, labels=data.labels, **{**data.captions(), **changes})


def test_another_set_with_the_same_lesions_is_noticed(trained, run, tmp_path):
    data = toy_dataset(seed=1)  # other pixels, the same ids
    run(data, "--model", trained, "--json", tmp_path / "a.json")
    result = json.loads((tmp_path / "a.json").read_text())
    whole = json.loads((trained / "result.json").read_text())["data"]
    assert result["images"] == whole["test_images"] and "by the ids" in result["trained_on_told_by"]
    strangers = renamed(
        data, lesion_ids=[f"x{i}" for i in range(120)], image_ids=[f"y{i}" for i in range(120)]
    )
    run(strangers, "--model", trained, "--json", tmp_path / "b.json")
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["images"] == 120 and result["trained_on"] == 0 and result["trained_on_told_by"]


@pytest.mark.parametrize("change", [{"lesions_known": False}, {"synthetic": True}])
def test_ids_that_mean_nothing_are_not_compared(trained, change):
    data = renamed(toy_dataset(seed=1), **change)
    result = evaluate_on(LesionClassifier.load(trained / "model.npz"), data, run=trained).result
    assert result["images"] == 120 and result["trained_on_told_by"] == ""


def test_all_learnt_from_is_one_line(trained):
    lesions = {line.split(",")[1] for line in (trained / "trained_on.csv").read_text().splitlines()[1:]}
    data = toy_dataset(seed=1)
    part = data.subset([i for i, lesion in enumerate(data.lesion_ids) if lesion in lesions])
    with pytest.raises(DataError, match=r"learnt from all .*--all"):
        evaluate_on(LesionClassifier.load(trained / "model.npz"), part, run=trained)


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"image_id,lesion_id\nx\n", b"\xff\xfe"])
def test_a_damaged_list_of_what_was_learnt_is_one_line(trained, tmp_path, content):
    (tmp_path / "trained_on.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"trained_on\.csv"):
        evaluate_on(LesionClassifier.load(trained / "model.npz"), toy_dataset(), run=tmp_path)


@pytest.mark.parametrize(
    "arguments,word",
    [
        (("--json", "{p}"), "is a folder"),
        (("--json", "{p}/there"), "exists"),
        (("--json", "{p}/a", "--csv", "{p}/a"), "named for two things"),
        (("--metadata", "{p}/absent.csv"), "absent.csv"),
        ((), "does not exist"),
    ],
)
def test_bad_arguments_are_one_line(model, run, tmp_path, arguments, word):
    (tmp_path / "there").write_text("mine")
    ended = run(tmp_path / "nowhere", "--model", model, *(a.format(p=tmp_path) for a in arguments))
    assert isinstance(ended.exception, SkinflError) and word in str(ended.exception)
    assert (tmp_path / "there").read_text() == "mine"


def test_intervals_repeat_and_the_seed_decides_them(model):
    classifier, data = LesionClassifier.load(model), dataset([each[0] for each in CLASSES])
    first, again, other = (evaluate_on(classifier, data, seed=seed).result["intervals"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.real
def test_isic_2019_holds_ham10000s_photographs(real_data, tmp_path, monkeypatch):
    """A network that learnt from HAM10000's 8x8 table must not be tested on the same lesions of ISIC 2019."""
    out = tmp_path / "run"
    skinfl.train(data=real_data / "hmnist_8_8_L.csv", out=str(out), **{**SMALL, "image_size": 8})
    classifier = LesionClassifier.load(out / "model.npz")
    index = isic2019.index(real_data / "ISIC2019")
    rows = index.photographs[::20]
    data = LesionDataset(
        "isic2019",
        np.zeros((len(rows), 8, 8, 3)),
        [row.label for row in rows],
        index.classes,
        [row.lesion_id for row in rows],
        [row.image_id for row in rows],
    )
    result = evaluate_on(classifier, data, run=out).result
    assert result["left_out"]["trained_on"] > 0.6 * sum(row.site != "MSK" for row in rows)
    assert result["unmatched"] == {"data": {}, "model": []}
