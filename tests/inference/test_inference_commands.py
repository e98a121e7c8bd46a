from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from loaded_modules import HEAVY, READERS, run_skinfl
from PIL import Image
from typer.testing import CliRunner

from skinfl.classifier import LesionClassifier
from skinfl.data.dataset import LesionDataset
from skinfl.data.images import decode
from skinfl.data.normalisation import normalise
from skinfl.data.preparation import FITS, Preparation
from skinfl.data.transforms import Normalisation, to_batch
from skinfl.errors import DataError, MissingExtra, ModelError, SettingsError, SkinflError
from skinfl.inference.circuit.prepare import prepare
from skinfl.inference.clinic.preprocess import probabilities, read_images
from skinfl.inference.commands import NO_DEVICE, register
from skinfl.inference.evaluation import compare_with_plain, deviation, images_to_test
from skinfl.inference.info import from_json, to_json
from skinfl.models import build_model, load_model, save_model

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES = ("akiec", "bcc", "mel")
SIZE = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model file and three images."""
    folder = tmp_path_factory.mktemp("diagnosis")
    torch.manual_seed(5)
    description = {"in_channels": 1, "image_size": SIZE, "classes": 3, "doconv": True}
    model = build_model("skinnet", **description)
    with torch.no_grad():
        model.output.weight.mul_(30)
    save_model(
        folder / "model.npz",
        model,
        name="skinnet",
        class_names=CLASSES,
        normalisation_mean=[0.5],
        normalisation_std=[0.25],
        **description,
    )
    rng = np.random.RandomState(0)
    for i in range(3):
        Image.fromarray(rng.randint(0, 256, (30, 20, 3)).astype(np.uint8)).save(str(folder / f"{i}.png"))
    return folder


@pytest.fixture
def run():
    app = typer.Typer()
    register(app)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def plain_lines(folder):
    """What the network itself says, one line an image."""
    stored = load_model(folder / "model.npz")
    lines = []
    for i in range(3):
        image = Image.open(str(folder / f"{i}.png")).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
        pixels = (np.asarray(image.convert("L")) / 255.0 - 0.5) / 0.25
        with torch.no_grad():
            shares = torch.softmax(stored.model(torch.tensor(pixels[None, None]).float()), 1)[0].numpy()
        best = int(shares.argmax())
        lines.append((folder / f"{i}.png", CLASSES[best], float(shares[best])))
    return lines


def check_output(output, folder):
    printed = output.strip().splitlines()
    assert printed[-1] == NO_DEVICE
    for line, (path, best, share) in zip(printed, plain_lines(folder)):
        name, rest = line.split(": ", 1)
        assert name == str(path)
        first, percent = rest.split(", ")[0].split(" ")
        assert first == best
        assert float(percent.rstrip("%")) / 100 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("flags", [(), ("--batch",)])
def test_local_diagnosis_is_the_networks(run, folder, flags):
    images = [folder / f"{i}.png" for i in range(3)]
    result = run("diagnose", *images, "--local", "--model", folder / "model.npz", *flags)
    check_output(result.output, folder)


@pytest.mark.parametrize(
    "arguments,word",
    [
        (("diagnose", "x.png"), "say who evaluates"),
        (("diagnose", "x.png", "--local"), "--local and --model belong together"),
        (("diagnose", "x.png", "--server", "http://x", "--local", "--model", "m"), "say who evaluates"),
        (("diagnose", "x.png", "--server", "http://x", "--model", "m"), "belong together"),
    ],
)
def test_contradictory_flags_are_refused(run, arguments, word):
    with pytest.raises(SettingsError, match=word):
        run(*arguments)


@pytest.mark.parametrize("flags", [(), ("--batch",)])
def test_bad_files_are_named_and_the_others_classified(run, folder, tmp_path, flags):
    (tmp_path / "text.png").write_text("no image")
    bad = (tmp_path / "nothing.png", tmp_path / "text.png")
    images = [folder / "0.png", bad[0], folder / "1.png", bad[1], folder / "2.png"]
    result = run("diagnose", *images, "--local", "--model", folder, *flags)
    assert result.exit_code == 2
    lines = result.output.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert [str(path) in line for path, line in zip(bad, errors)] == [True, True]
    assert len(errors) == 2 and "does not exist" in errors[0]
    check_output("\n".join(line for line in lines if line not in errors), folder)
    result = run("diagnose", *bad, "--local", "--model", folder, *flags)
    assert result.exit_code == 2 and NO_DEVICE not in result.output


def test_a_folder_means_its_images_and_a_run_its_model(run, folder, tmp_path):
    result = run("diagnose", folder, "--local", "--model", folder)
    check_output(result.output, folder)
    with pytest.raises(DataError, match="holds no images"):
        run("diagnose", tmp_path, "--local", "--model", folder)
    for where, word in ((folder / "nothing.npz", "no model at"), (tmp_path, "no model.npz in")):
        with pytest.raises(ModelError, match=word):
            run("diagnose", folder / "0.png", "--local", "--model", where)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.npz").write_bytes(b"")
    with pytest.raises(ModelError, match=r"several models: name one of .*/a, .*/b"):
        run("diagnose", folder / "0.png", "--local", "--model", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"rounds = 3\n"])
def test_what_is_no_model_is_refused(run, folder, tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ModelError, match="not a model file"):
        run("diagnose", folder / "0.png", "--local", "--model", tmp_path / "other")


def test_bad_settings_of_the_server_are_refused(run, folder):
    pytest.importorskip("fastapi")
    model = ("--model", folder / "model.npz")
    for flags, word in [
        (("--tls-certificate", "c.pem"), "belong together"),
        (("--tls-certificate", "c.pem", "--tls-key", "k.pem"), r"cannot read c\.pem"),
        (("--clients", "0"), "--clients 0 is impossible"),
        (("--timeout", "-1"), "--timeout -1"),
        (("--port", "0"), "--port 0"),
    ]:
        with pytest.raises(SettingsError, match=word):
            run("serve", *model, *flags)
    with pytest.raises(ModelError, match="no model at"):
        run("serve", "--model", folder / "nothing.npz")


def test_a_port_that_is_taken_is_one_line(run, folder):
    pytest.importorskip("fastapi")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}"):
            run("serve", "--model", folder, "--port", port)
    with pytest.raises(SettingsError, match="no address of this machine"):
        run("serve", "--model", folder, "--host", "no.such.host.invalid")


def test_certificates_that_cannot_be_used_are_one_line(run, folder, tmp_path):
    pytest.importorskip("fastapi")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    for i, (key, password) in enumerate(
        zip((*keys, keys[0]), (None, None, serialization.BestAvailableEncryption(b"x")))
    ):
        kind = password or serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)
        (tmp_path / f"{i}.key").write_bytes(pem)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder(name, name, keys[0].public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=30000))
        .sign(keys[0], hashes.SHA256())
    )
    pem = tmp_path / "c.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "text").write_text("no certificate")
    for cert, key, word in [
        (pem, "1.key", "is not the key of"),
        (pem, "2.key", "no certificate and unencrypted key"),
        (pem, "text", "no certificate and unencrypted key"),
        (tmp_path / "text", "0.key", "no certificate and unencrypted key"),
    ]:
        with pytest.raises(SettingsError, match=word):
            run("serve", "--model", folder, "--tls-certificate", cert, "--tls-key", tmp_path / key)


@pytest.mark.parametrize(
    "url, proxy",
    [
        ("http://127.0.0.1:8000", None),
        ("http://127.1.2.3", None),
        ("http://[::1]:8000", None),
        ("https://localhost:8000", None),
        ("http://inside.example.org", None),
        ("http://example.com:8000", "http://proxy:1"),
        ("https://example.com", "http://proxy:2"),
        ("http://[", None),
    ],
)
def test_the_environments_proxy_is_for_other_machines(monkeypatch, url, proxy):
    pytest.importorskip("tenseal")
    from skinfl.inference.clinic.remote import proxy_of

    for name, value in (
        ("http_proxy", "http://proxy:1"),
        ("https_proxy", "http://proxy:2"),
        ("no_proxy", "inside.example.org"),
    ):
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "nonsense", "gopher://127.0.0.1:9"])
def test_a_proxy_that_fails_is_named(run, folder, monkeypatch, proxy):
    pytest.importorskip("httpx")
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(SkinflError, match=f"proxy .*{proxy}"):
        run("diagnose", folder / "0.png", "--server", "http://server.example:8000")


@pytest.mark.parametrize("package", ["fastapi", "httpx"])
def test_a_missing_package_names_the_extra(run, folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "skinfl.inference.server.app", raising=False)
    with pytest.raises(MissingExtra, match=rf"{package}.*skinfl\[serve\]"):
        if package == "fastapi":
            run("serve", "--model", folder / "model.npz")
        else:
            run("diagnose", folder / "0.png", "--server", "http://127.0.0.1:1")


def test_serve_and_diagnose_across_processes(run, folder, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from skinfl.cli import main; main()", "serve", "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--model", str(folder / "model.npz"), "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.time() + 120
        while time.time() < deadline:
            try:
                if httpx.get(url + "/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        ended = run_skinfl("diagnose", *[folder / f"{i}.png" for i in range(3)], "--server", url)
        check_output(ended.output, folder)
        assert sorted(ended.modules & (HEAVY | READERS)) == []
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def test_images_are_normalised_as_training_normalises_them(tmp_path):
    rng = np.random.RandomState(1)
    pixels = rng.randint(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    pixels[0] = np.arange(256).reshape(16, 16, 1)  # all values there are
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, pixels):
        Image.fromarray(image).save(str(path))
    mean, std = tuple(rng.rand(3)), tuple(rng.rand(3) + 0.01)
    found = read_images(paths, channels=3, preparation=Preparation(16), mean=mean, std=std)
    expected = normalise(pixels, Normalisation(mean, std))
    assert expected.dtype == np.float32 and found.dtype == np.float64
    assert np.array_equal(found, expected.astype(np.float64))
    # on the device that trains it is computed in float32
    trained = to_batch(pixels, Normalisation(mean, std)).numpy()
    np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-5 / min(std))


def test_images_are_read_as_training_reads_them(folder):
    paths = [folder / "0.png", folder / "1.png"]
    colour = read_images(
        paths, channels=3, preparation=Preparation(10), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0)
    )
    image = Image.open(str(paths[1])).resize((10, 10), Image.BILINEAR)
    expected = (np.asarray(image) / 255.0 - [0.1, 0.2, 0.3]) / [1.0, 2.0, 4.0]
    assert colour.shape == (2, 3, 10, 10)
    assert np.abs(colour[1] - expected.transpose(2, 0, 1)).max() < 1e-6


@pytest.mark.parametrize("fit", FITS)
def test_clinic_data_set_and_classifier_prepare_alike(folder, tmp_path, fit):
    rng = np.random.RandomState(0)
    path = tmp_path / "lesion.png"
    Image.fromarray(rng.randint(0, 256, (9, 14, 3)).astype(np.uint8)).save(str(path))
    preparation = Preparation(10, fit, "shades-of-grey")
    (pixels,) = decode([path], preparation, tmp_path / "cache")
    model = build_model("skinnet", in_channels=3, image_size=10, classes=3, doconv=True)
    description = {"in_channels": 3, "image_size": 10, "classes": 3, "class_names": CLASSES, "doconv": True}
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    save_model(
        tmp_path / "m.npz",
        model,
        name="skinnet",
        **description,
        fit=fit,
        colour_constancy="shades-of-grey",
        normalisation_mean=normalisation.mean,
        normalisation_std=normalisation.std,
    )
    stored = load_model(tmp_path / "m.npz")
    assert stored.preparation == preparation
    assert np.array_equal(LesionClassifier(stored).pixels(path), pixels)
    info = from_json(to_json(prepare(stored, batches=False).info))
    (read,) = read_images(
        [path], channels=3, preparation=info.preparation, mean=normalisation.mean, std=normalisation.std
    )
    assert np.array_equal(read, normalise(pixels[None], normalisation)[0])


def test_test_images_prepared_otherwise_are_refused(folder, tmp_path):
    stored = load_model(folder / "model.npz")
    test = LesionDataset(
        "t",
        np.zeros((2, SIZE, SIZE, 1)),
        [0, 1],
        CLASSES,
        ["a", "b"],
        ["a", "b"],
        preparation=Preparation(SIZE, "pad"),
    )
    with pytest.raises(
        ModelError, match=r"on photographs of 8 pixels, squash, t was loaded with 8 pixels, pad"
    ):
        images_to_test(stored, test, 1)


def test_probabilities_of_large_logits():
    assert probabilities(np.array([[1000.0, 1000.0], [0.0, np.log(3)]])).tolist() == [
        [0.5, 0.5],
        pytest.approx([0.25, 0.75]),
    ]


def test_agreement_by_hand():
    expected = np.array([[1.0, 2.0], [3.0, 2.9], [0.0, -4.0]])
    found = np.array([[1.1, 2.0], [2.9, 3.0], [0.0, -4.2]])
    figures = deviation(found, expected)
    assert figures["logit_error_max"] == pytest.approx(0.2)
    assert figures["rel_logit_error_max"] == pytest.approx(0.05)
    assert figures["rel_logit_error_max_by_image"] == pytest.approx(0.05)
    assert figures["argmax_agreement"] == pytest.approx(2 / 3)
    assert figures["disagreement_margin_max"] == pytest.approx(0.1)
    assert deviation(expected, expected)["disagreement_margin_max"] is None


def dataset(n, channels=1):
    images = np.random.RandomState(1).randint(0, 256, (n, SIZE, SIZE, channels)).astype(np.uint8)
    return LesionDataset(
        "made", images, np.arange(n) % 3, CLASSES, list("abcdefgh")[:n], list("abcdefgh")[:n]
    )


@pytest.mark.parametrize("batch", [False, True])
def test_encrypted_and_plain_metrics_are_compared(folder, batch):
    stored = load_model(folder / "model.npz")
    result = compare_with_plain(stored, dataset(8), batch=batch)
    assert result["images"] == 8
    assert result["encrypted"]["accuracy"] == result["plain"]["accuracy"]
    assert result["rel_logit_error_max"] < 0.01
    assert result["mode"] == ("batch" if batch else "latency")


def test_test_images_are_evenly_spread_and_those_of_the_model(folder):
    stored = load_model(folder / "model.npz")
    assert images_to_test(stored, dataset(8), 4).image_ids.tolist() == ["a", "c", "e", "g"]
    assert len(images_to_test(stored, dataset(8), 0)) == len(images_to_test(stored, dataset(8), 99)) == 8
    with pytest.raises(ModelError, match="takes 1 channels of 8 pixels"):
        images_to_test(stored, dataset(8, channels=3), 0)
