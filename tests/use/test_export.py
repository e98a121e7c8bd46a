"""``skinfl export``: one file for other programs, which says what torch says."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner
from use_helpers import CLASSES, make_model, make_pictures

from skinfl import use_commands
from skinfl.classifier import LesionClassifier
from skinfl.errors import DataError, MissingExtra, ModelError, SettingsError, SkinflError
from skinfl.models import build_model, model_names, save_model
from skinfl.use import exporting
from skinfl.use.exporting import EXTRA, FORMATS, INPUT, OUTPUT, TOLERANCE, export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "model.npz", temperature=1.6)


@pytest.fixture
def run():
    app = typer.Typer()
    use_commands.register(app)
    return lambda *arguments: CliRunner().invoke(app, ["export", *map(str, arguments)])


def needed(format):
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")


def answers(format, file, pixels):
    if format == "torchscript":
        with torch.no_grad():
            return torch.jit.load(str(file))(torch.from_numpy(pixels)).numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: pixels})[0]


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("name", model_names())
def test_every_network_gives_the_same_probabilities(name, format, tmp_path):
    needed(format)
    torch.manual_seed(0)
    # on fewer pixels EfficientNet-Lite0, as it is drawn, is sure of one class whatever it sees
    size = {"skinnet": 12, "efficientnet_lite0": 64}.get(name, 32)
    shape = {"in_channels": 3, "image_size": size, "classes": 3, "doconv": True}
    network = build_model(name, **shape)
    network.train()
    for module in network.modules():  # its first statistics make deep networks say the same of all images
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, size, size))
    means = {"normalisation_mean": [0.6, 0.5, 0.4], "normalisation_std": [0.2, 0.3, 0.1]}
    save_model(tmp_path / "m.npz", network.eval(), name=name, class_names="abc", **shape, **means)
    classifier = LesionClassifier.load(tmp_path / "m.npz")
    found = export(classifier, tmp_path / "out", format)
    assert found.difference is not None and found.difference <= TOLERANCE
    pixels = np.random.RandomState(1).randint(0, 256, (5, size, size, 3)).astype(np.uint8)
    given = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    expected = classifier.probabilities(pixels)
    assert expected.std(axis=0).max() > 1e-4  # else equal answers would prove nothing
    for part in (slice(0, 1), slice(0, 5)):
        np.testing.assert_allclose(
            answers(format, tmp_path / "out", given[part]), expected[part], atol=TOLERANCE
        )


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_command_checks_on_photographs_and_the_file_describes_itself(model, run, tmp_path, format):
    needed(format)
    make_pictures(tmp_path / "p", ["a.png", "b.png"])
    ended = run(
        "--model", model, "--format", format, "--out", tmp_path / "o", "--photographs", tmp_path / "p"
    )
    assert ended.exit_code == 0, ended.output
    assert "6 random and drawn pictures and 2 photographs" in ended.output
    assert "float32 0..1, (n, 3, 12, 12)" in ended.output and "melanoma (malignant)" in ended.output
    if format == "onnx":
        import onnx

        told = {each.key: each.value for each in onnx.load(str(tmp_path / "o")).metadata_props}[EXTRA]
    elif hasattr(torch._C, "ExtraFilesMap"):
        extra = torch._C.ExtraFilesMap()
        extra[EXTRA] = ""
        torch.jit.load(str(tmp_path / "o"), _extra_files=extra)
        told = extra[EXTRA]
    else:
        files = {EXTRA: ""}
        torch.jit.load(str(tmp_path / "o"), _extra_files=files)
        told = files[EXTRA]
    assert [each["full_name"] for each in json.loads(told)["classes"]] == [each[1] for each in CLASSES]


def test_what_differs_is_not_written(model, tmp_path, monkeypatch):
    real = FORMATS["torchscript"]

    def wrong(*arguments):
        content, answer, note = real(*arguments)
        return content, lambda images: answer(images)[:, ::-1], note

    monkeypatch.setitem(FORMATS, "torchscript", wrong)
    with pytest.raises(ModelError, match="differ from torch's"):
        export(LesionClassifier.load(model), tmp_path / "o", "torchscript")
    assert not (tmp_path / "o").exists()


def test_a_network_that_cannot_be_traced_is_one_line(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("\nno\nway")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    with pytest.raises(ModelError, match=r"cannot be traced \(no\)"):
        export(LesionClassifier.load(model), tmp_path / "o", "torchscript")


def test_a_torch_that_cannot_write_onnx_is_one_line(model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")

    def refuse(*_, **__):
        print("a graph of many lines")
        raise RuntimeError("no such operator\nthere")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ModelError, match=r"\(no such operator\): use --format torchscript"):
        export(LesionClassifier.load(model), tmp_path / "o", "onnx")
    assert capsys.readouterr().out == "" and not (tmp_path / "o").exists()


def test_without_its_packages_onnx_is_one_line_or_unchecked(model, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    ended = run("--model", model, "--format", "onnx", "--out", tmp_path / "o")
    assert isinstance(ended.exception, MissingExtra) and "skinfl[export]" in str(ended.exception)
    monkeypatch.undo()
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = run("--model", model, "--format", "onnx", "--out", tmp_path / "o")
    assert ended.exit_code == 0 and "not compared with torch" in ended.output and (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "arguments,error,word",
    [
        (("--format", "onx"), SettingsError, "did you mean 'onnx'"),
        (("--out", "{p}/there"), SettingsError, "exists"),
        (("--out", "{p}"), SettingsError, "folder"),
        (("--photographs", "{p}/none"), DataError, "holds no images"),
        (("--photographs", "{p}/there"), DataError, "no image"),
        (("--model", "{p}/there"), ModelError, "not a model file"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(model, run, tmp_path, arguments, error, word):
    (tmp_path / "none").mkdir()
    (tmp_path / "there").write_text("mine")
    given = {"--model": str(model), "--out": str(tmp_path / "o"), "--format": "torchscript"}
    given.update({arguments[0]: arguments[1].format(p=tmp_path)})
    ended = run(*(text for pair in given.items() for text in pair))
    assert isinstance(ended.exception, error) and isinstance(ended.exception, SkinflError)
    assert word in str(ended.exception) and "\n" not in str(ended.exception)
    assert not (tmp_path / "o").exists() and (tmp_path / "there").read_text() == "mine"


def test_the_wrapper_does_not_touch_the_network(model):
    classifier = LesionClassifier.load(model)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    exporting.Diagnosis(classifier)
    assert list(classifier.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
