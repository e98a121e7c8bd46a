"""A small federation, with messages in this process or on processes of its own."""

import shutil
import time
from pathlib import Path

import numpy as np

from skinfl.assembly import FederatedData, assemble
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import CLASS_INFO
from skinfl.data.splits import train_test_split
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.flower.approve import approve, bundle_digest
from skinfl.flower.coordinator.coordinator import Coordinator
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer
from skinfl.flower.coordinator.options import Options
from skinfl.flower.hospital.site import Site
from skinfl.flower.local.processes import free_ports
from skinfl.flower.local.simulation import largest_part, make_federation
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.protection.smpc.protection import Smpc
from skinfl.run import CHECKPOINT
from skinfl.settings import Settings, to_toml

ROOT = Path(__file__).resolve().parents[2]
HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")


def small_dataset(images=105, size=8, channels=1, seed=0, synthetic=False):
    """Squares whose brightness tells the class, with everything that a table can hold."""
    rng = np.random.RandomState(seed)
    labels = np.arange(images) % 7
    pixels = rng.randint(0, 40, (images, size, size, channels))
    pixels[:, 2:6, 2:6] += (30 * labels)[:, None, None, None]
    ages = np.where(np.arange(images) % 5 == 0, np.nan, 5.0 * (np.arange(images) % 18))
    return LesionDataset(
        "small",
        pixels,
        labels,
        CLASS_INFO,
        [f"HAM_{i // 2 * 7 + i % 7:07d}" for i in range(images)],
        [f"ISIC_{i:07d}" for i in range(images)],
        ["rosendahl" if i % 2 else "" for i in range(images)],
        ["female" if i % 3 else "" for i in range(images)],
        ages,
        synthetic=synthetic,
    )


def small_federated(dataset=None):
    """Three hospitals, the third without test images."""
    dataset = small_dataset() if dataset is None else dataset
    split = train_test_split(dataset, seed=1)
    owner = np.arange(len(dataset)) % 2
    owner[split.train[::3]] = 2
    return FederatedData(dataset, split, {h: np.flatnonzero(owner == i) for i, h in enumerate(HOSPITALS)})


def settings_of(**changes):
    """Settings that train in a second; BatchNorm, controls and augmentation on, to have all there is."""
    values = {"data": "small", "hospitals": 3, "rounds": 2, "image_size": 8, "batch_size": 16}
    values.update({"local_epochs": 1, "strategy": "scaffold", "momentum": 0.0, "batchnorm": "local"})
    return Settings(**{**values, "parties": "hospitals", **changes})


def virtual_federation(settings, federated):
    """Run on virtual workers to the end; without a report, which would take longer."""
    federation = assemble(settings, federated).federation
    for _ in federation.run():
        pass
    return federation


def virtual_progress(settings, federated):
    """Run on virtual workers and return the progress."""
    return virtual_federation(settings, federated).state


class LocalMessaging(Messaging):
    """Hands requests to sites in this process; ``log`` keeps (kind, round, hospital, request, answer)."""

    def __init__(self, federation):
        self.sites = {name: Site(read_hospital(federation / name)) for name in HOSPITALS}
        self.log = []
        self.away = set()
        #: called as (kind, round, hospital, request, answer) and returns what arrives
        self.tamper = lambda kind, round, name, request, answer: answer

    def connected(self, wanted, patience):
        return tuple(name for name in wanted if name not in self.away)

    def ask(self, kind, round, requests, timeout, *, insist=False):
        for name, request in requests.items():
            if name in self.away:
                yield name, NoAnswer(f"{name} is not connected")
                continue
            answer = self.sites[name].answer(request.body, request.server)
            self.log.append((kind, round, name, request, answer))
            answer = self.tamper(kind, round, name, request, answer)
            yield name, answer if answer is not None else NoAnswer(f"{name} did not answer within 1 s")


def federation_of(tmp_path, federated=None):
    """Provision ``tmp_path/federation`` and hand out the data; return its folder and the federated data."""
    federated = federated or small_federated()
    make_federation(federated, tmp_path / "federation")
    return tmp_path / "federation", federated


def coordinator_of(federation, federated, settings, post, out, say=lambda line: None, **options):
    """Return a coordinator that tests on the common test set."""
    options = {
        "unit": largest_part(federated),
        "test_data": str(federation / "coordinator" / "test"),
        **options,
    }
    return Coordinator(settings, Options(**options), out, post, say=say, describe="in this process")


def snapshot(folder):
    """Copy the app's code, so that a test runs what was there when it began; return its checkout."""
    app = folder / "app"
    shutil.copytree(ROOT / "skinfl", app / "skinfl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", app)
    return app


def approved_federation(folder, app, federated):
    """Provision a federation on a free port whose hospitals approve ``app``."""
    make_federation(federated, folder, f"127.0.0.1:{free_ports(1)[0]}")
    digest = bundle_digest(app)
    for name in federated.partition:
        approve(read_hospital(folder / name), digest, "the tests' snapshot")
    return folder


def run_config(federation, federated, settings, out, **options):
    """Return what ``flwr run`` is given, with short patience."""
    path = federation / f"{out}.toml"
    path.write_text(to_toml(settings))
    values = {
        "config": str(path),
        "out": out,
        "unit": largest_part(federated),
        "test-data": str(federation / "coordinator" / "test"),
        "connect-timeout": 60,
        "round-timeout": 120,
        "sum-timeout": 60,
    }
    return {**values, **{key.replace("_", "-"): value for key, value in options.items()}}


def await_text(path, text, seconds=120.0, count=1):
    """Wait until a file holds ``text`` so many times."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text("utf-8", "replace").count(text) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not appear in {path}")


def final_model(out):
    """Return the state vector in a run's checkpoint."""
    return load_checkpoint(out / CHECKPOINT).state.server.model


def patterns_of(floats, hospitals):
    """Return byte strings that give an update away: pieces of it as floats and as fixed-point words."""
    floats = np.asarray(floats, np.float64)
    precision = Smpc().precision_for(hospitals)
    found = []
    for start in range(0, len(floats) - 4, 40):
        window = floats[start : start + 4]
        if np.abs(window).min() < 1e-6:
            continue  # what is almost nothing is found everywhere
        words = window * 2.0**precision
        for encoded in (np.rint(words), np.trunc(words)):
            found += [encoded.astype("<i4").tobytes(), encoded.astype("<i8").tobytes()]
        found += [window.astype("<f4").tobytes(), window.astype("<f8").tobytes()]
    assert len(found) > 100
    return found
