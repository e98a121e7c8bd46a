"""``skinfl predict``: photographs in files."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner
from use_helpers import CLASSES, make_model, make_pictures

from skinfl import use_commands
from skinfl.classifier import LesionClassifier
from skinfl.errors import DataError, ModelError, SettingsError, SkinflError, WriteError
from skinfl.predictions import LesionClass, read_predictions
from skinfl.use.predicting import image_files, predict_files


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "model.npz")


@pytest.fixture
def run():
    app = typer.Typer()
    use_commands.register(app)

    def invoke(*arguments):
        return CliRunner().invoke(app, ["predict", *map(str, arguments)])

    return invoke


def test_folders_are_searched_to_the_bottom_without_litter_and_each_file_counts_once(tmp_path):
    make_pictures(tmp_path / "a" / "b", ["1.JPG", "2.png", "3.tif"])
    make_pictures(tmp_path / "a", ["0.jpeg"])
    for litter in ("._1.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / "a" / litter).write_bytes(b"x")
    make_pictures(tmp_path / "a" / "__MACOSX", ["9.png"])
    make_pictures(tmp_path / "a" / ".hidden", ["9.png"])
    found = image_files([tmp_path / "a", tmp_path / "a" / "b" / "2.png"])
    assert [file.name for file in found] == ["0.jpeg", "1.JPG", "2.png", "3.tif"]
    os.symlink(str(tmp_path / "a"), str(tmp_path / "a" / "b" / "round"))
    assert image_files(tmp_path / "a") == found


def test_a_table_is_printed_and_written(model, run, tmp_path):
    make_pictures(tmp_path / "p", ["one.png", "two.png"])
    ended = run(tmp_path / "p", "--model", model, "--csv", tmp_path / "new" / "a.csv")
    assert ended.exit_code == 0, ended.output
    lines = ended.output.splitlines()
    assert lines[0].split() == ["file", "any", "malignant", "probability", "diagnosis"]
    assert lines[1].startswith(str(tmp_path / "p" / "one.png")) and "%" in lines[1]
    assert (
        any(line.rstrip().endswith(each[1]) for line in lines for each in CLASSES)
        or "(malignant)" in ended.output
    )
    assert use_commands.NO_DEVICE in lines
    table = read_predictions(tmp_path / "new" / "a.csv", [LesionClass(*each) for each in CLASSES])
    assert list(table.image_ids) == [str(tmp_path / "p" / name) for name in ("one.png", "two.png")]
    classifier = LesionClassifier.load(model)
    for file, row in zip(table.image_ids, table.probabilities):
        np.testing.assert_allclose(row, list(classifier.predict(file).values()), atol=1e-5)


def test_bad_images_are_said_one_by_one_and_the_others_are_not_lost(model, run, tmp_path):
    make_pictures(tmp_path / "p", ["a.png", "z.png"])
    (tmp_path / "p" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "p" / "empty.png").write_bytes(b"")
    Image.new("RGB", (2, 2)).save(str(tmp_path / "p" / "tiny.png"))
    (tmp_path / "p" / "folder.png").mkdir()
    os.mkfifo(str(tmp_path / "p" / "pipe.png"))
    ended = run(tmp_path / "p", tmp_path / "absent.png", "--model", model, "--csv", tmp_path / "a.csv")
    assert ended.exit_code == 2
    said = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    for name in ("cut.jpg", "empty.png", "tiny.png", "pipe.png", "absent.png"):
        assert sum(name in line for line in said) == 1, said
    assert len(said) == 6
    table = read_predictions(tmp_path / "a.csv", [LesionClass(*each) for each in CLASSES])
    assert [os.path.basename(name) for name in table.image_ids] == ["a.png", "z.png"]


def test_where_none_can_be_read_nothing_is_written(model, run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    ended = run(tmp_path / "a.png", "--model", model, "--csv", tmp_path / "a.csv")
    assert ended.exit_code == 2 and not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    "arguments,word",
    [
        (("{p}/nothing",), "holds no images"),
        (("{p}/p", "--model", "{p}/absent"), "no model"),
        (("{p}/p", "--model", "{p}/p/a.png"), "not a model file"),
        (("{p}/p", "--csv", "{p}/p/a.png"), "exists"),
        (("{p}/p", "--csv", "{p}/p"), "is a folder"),
        (("{p}/p", "--csv", "{p}/p/a.png/x.csv"), "cannot write"),
        ((" ",), "a path is empty"),
    ],
)
def test_bad_arguments_are_one_line_before_any_work(model, run, tmp_path, arguments, word):
    make_pictures(tmp_path / "p", ["a.png"])
    (tmp_path / "nothing").mkdir()
    before = sorted(os.listdir(str(tmp_path / "p")))
    given = [text.format(p=tmp_path) for text in arguments]
    ended = run(*given, *([] if "--model" in given else ["--model", model]))
    assert isinstance(ended.exception, SkinflError) and word in str(ended.exception)
    assert "\n" not in str(ended.exception) and sorted(os.listdir(str(tmp_path / "p"))) == before


def test_what_is_done_is_kept_when_it_is_interrupted(model, run, tmp_path, monkeypatch):
    make_pictures(tmp_path / "p", [f"{i}.png" for i in range(5)])
    monkeypatch.setattr("skinfl.use.predicting.BATCH", 2)
    asked = LesionClassifier.probabilities
    calls = []

    def interrupted(self, pixels, **options):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return asked(self, pixels, **options)

    monkeypatch.setattr(LesionClassifier, "probabilities", interrupted)
    ended = run(tmp_path / "p", "--model", model, "--csv", tmp_path / "a.csv")
    assert ended.exit_code != 0 and calls == [2, 2, 1]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5
    assert "table of the 4 that are done" in ended.output


def test_a_table_is_replaced_only_when_asked(model, run, tmp_path):
    make_pictures(tmp_path / "p", ["a.png"])
    (tmp_path / "a.csv").write_text("mine")
    assert isinstance(
        run(tmp_path / "p", "--model", model, "--csv", tmp_path / "a.csv").exception, SettingsError
    )
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert run(tmp_path / "p", "--model", model, "--csv", tmp_path / "a.csv", "--force").exit_code == 0
    assert (tmp_path / "a.csv").read_text().startswith("image_id")


def test_a_full_disk_is_one_line(model, run, tmp_path, monkeypatch):
    make_pictures(tmp_path / "p", ["a.png"])

    def full(*_):
        raise WriteError("a.csv", "No space left on device")

    monkeypatch.setattr("skinfl.predictions.write_predictions", full)
    ended = run(tmp_path / "p", "--model", model, "--csv", tmp_path / "a.csv")
    assert isinstance(ended.exception, WriteError) and "a.png" in ended.output


def test_views_are_all_eight_symmetries_and_their_mean_does_not_depend_on_how_it_lies(model):
    classifier = LesionClassifier.load(model)
    pixels = np.random.RandomState(0).randint(0, 256, (3, 12, 12, 3)).astype(np.uint8)
    whole = classifier.probabilities(pixels, tta=8)
    turned = classifier.probabilities(np.rot90(pixels, axes=(1, 2)).copy(), tta=8)
    np.testing.assert_allclose(whole, turned, atol=1e-6)
    assert np.abs(whole - classifier.probabilities(pixels)).max() > 1e-4
    views = [np.rot90(p, k, axes=(1, 2)) for p in (pixels, pixels[:, :, ::-1]) for k in range(4)]
    # the mean is of logits, which probabilities tell but for a constant
    mean = np.mean([np.log(classifier.probabilities(view.copy())) for view in views], axis=0)
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=1), 1)


@pytest.mark.parametrize("tta", [0, 9, -1, True, 1.5, "2"])
def test_an_impossible_number_of_views_is_refused(model, tta):
    with pytest.raises(SettingsError, match="from 1 to 8"):
        LesionClassifier.load(model).probabilities(np.zeros((1, 12, 12, 3), np.uint8), tta=tta)


def test_temperature_divides_logits(tmp_path):
    warm = LesionClassifier.load(make_model(tmp_path / "warm.npz", temperature=2.5))
    pixels = np.random.RandomState(1).randint(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    with torch.no_grad():
        logits = warm(torch.from_numpy(pixels).permute(0, 3, 1, 2)).double()
    np.testing.assert_allclose(
        warm.probabilities(pixels), torch.softmax(logits / 2.5, dim=1).numpy(), rtol=1e-6
    )
    plain = LesionClassifier.load(make_model(tmp_path / "plain.npz"))
    assert (
        plain.temperature == 1
        and (plain.probabilities(pixels).max(1) > warm.probabilities(pixels).max(1)).all()
    )


@pytest.mark.parametrize(
    "device,word",
    [("gpu", "must be one of auto, cpu, cuda, mps"), ("cuda:99", "is not there"), ("mps", "mps")],
)
def test_a_device_that_is_not_there_is_one_line(model, run, tmp_path, device, word):
    make_pictures(tmp_path / "p", ["a.png"])
    ended = run(tmp_path / "p", "--model", model, "--device", device)
    assert isinstance(ended.exception, SettingsError) and word in str(ended.exception)
    assert "\n" not in str(ended.exception)
    assert run(tmp_path / "p", "--model", model, "--device", "cpu").exit_code == 0


def test_where_memory_is_too_small_fewer_are_computed_at_once(model, monkeypatch):
    classifier = LesionClassifier.load(model)
    pixels = np.random.RandomState(1).randint(0, 256, (70, 12, 12, 3)).astype(np.uint8)
    expected = classifier.probabilities(pixels)
    forward, sizes = classifier.network.forward, []

    def small(batch):
        sizes.append(len(batch))
        if len(batch) > 20:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(batch)

    monkeypatch.setattr(classifier.network, "forward", small)
    np.testing.assert_allclose(classifier.probabilities(pixels), expected, atol=1e-6)
    assert sizes == [64, 32, 16, 16, 16, 16, 6]


def test_colours_become_what_the_network_takes(tmp_path):
    pixels = np.random.RandomState(2).randint(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    grey = LesionClassifier.load(make_model(tmp_path / "grey.npz", in_channels=1))
    as_pillow = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in pixels])[..., None]
    np.testing.assert_array_equal(grey.probabilities(pixels), grey.probabilities(as_pillow))
    colour = LesionClassifier.load(make_model(tmp_path / "colour.npz"))
    repeated = np.repeat(as_pillow, 3, axis=3)
    np.testing.assert_array_equal(colour.probabilities(as_pillow), colour.probabilities(repeated))


def test_answers_that_are_no_numbers_are_refused(model):
    classifier = LesionClassifier.load(model)
    classifier.mean.fill_(float("nan"))
    with pytest.raises(ModelError, match="diverged"):
        classifier.probabilities(np.zeros((1, 12, 12, 3), np.uint8))


def test_a_batch_is_in_memory_at_a_time(model, tmp_path, monkeypatch):
    make_pictures(tmp_path / "p", [f"{i}.png" for i in range(7)])
    monkeypatch.setattr("skinfl.use.predicting.BATCH", 3)
    found = predict_files(
        LesionClassifier.load(model), image_files(tmp_path / "p"), complain=lambda file, error: None
    )
    assert [len(batch) for batch in found] == [3, 3, 1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_nobody_may_read_is_named(tmp_path):
    make_pictures(tmp_path / "p" / "closed", ["a.png"])
    os.chmod(str(tmp_path / "p" / "closed"), 0)
    try:
        with pytest.raises(DataError, match="closed cannot be read"):
            image_files(tmp_path / "p")
    finally:
        os.chmod(str(tmp_path / "p" / "closed"), 0o700)
