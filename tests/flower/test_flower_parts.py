"""Messages, run configuration, hospitals' folders of data, and the small parts around them."""

import dataclasses
import runpy
import sys
import time

import msgpack
import numpy as np
import pytest
from flower_helpers import ROOT, federation_of, settings_of, small_dataset, small_federated
from PIL import Image

from skinfl.assembly import preparation_of
from skinfl.data import load
from skinfl.errors import CheckpointError, DataError, MessageError, ProtectionError, SettingsError
from skinfl.flower import keys, protocol
from skinfl.flower.coordinator.options import Options, read_run_config
from skinfl.flower.environment import flower_environment, simulated_federation, wait_for_federation
from skinfl.flower.hospital.store import Answer, RunStore
from skinfl.flower.local.data_folders import hand_out, write_dataset
from skinfl.flower.local.memory import MemoryWatch
from skinfl.flower.local.simulation import load_to_hand_out, prepare_simulation
from skinfl.protection import build_protection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize(("channels", "synthetic"), [(1, False), (3, False), (3, True)])
def test_a_written_part_is_read_back_without_loss(tmp_path, channels, synthetic):
    dataset = small_dataset(channels=channels, synthetic=synthetic)
    write_dataset(dataset, tmp_path / "data")
    found = load(tmp_path / "data", image_size=8, cache_dir=tmp_path / "cache")
    assert found.synthetic == synthetic
    for column in ("images", "labels", "lesion_ids", "image_ids", "sites", "sexes", "ages"):
        np.testing.assert_array_equal(getattr(found, column), getattr(dataset, column))


def test_hospitals_that_correct_colours_get_the_pixels_of_virtual_workers(tmp_path):
    rng = np.random.RandomState(0)
    table = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"]
    (tmp_path / "ham" / "HAM10000_images_part_1").mkdir(parents=True)
    for i in range(16):
        picture = Image.fromarray(rng.randint(0, 256, (12, 20, 3)).astype(np.uint8))
        picture.save(str(tmp_path / "ham" / "HAM10000_images_part_1" / f"{i}.png"))
        table.append(f"l{i},{i},{('nv', 'mel')[i % 2]},,,,,")
    (tmp_path / "ham" / "HAM10000_metadata.csv").write_text("\n".join(table))
    data = {"data": tmp_path / "ham", "image_size": 8, "fit": "pad", "colour_constancy": "shades-of-grey"}
    settings = settings_of(**data)
    handed_out = load_to_hand_out(settings.replace(hospitals=2, partition="iid"))
    write_dataset(handed_out.dataset, tmp_path / "data")
    prepared = preparation_of(settings)._asdict()
    found = load(tmp_path / "data", **prepared, cache_dir=tmp_path / "cache")
    virtual = load(tmp_path / "ham", **prepared, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found.images, virtual.images)
    with pytest.raises(DataError, match="hand out data that were loaded without"):
        hand_out(handed_out._replace(dataset=virtual), tmp_path)


def test_a_part_of_other_classes_is_refused(tmp_path):
    dataset = small_dataset()
    dataset.classes = ("a", "b", "c", "d", "e", "f", "g")
    with pytest.raises(DataError, match="other classes than HAM10000"):
        write_dataset(dataset, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_each_hospital_gets_its_own_images_and_no_other(tmp_path):
    folder, federated = federation_of(tmp_path)
    with pytest.raises(FileExistsError):
        hand_out(federated, folder)
    for name in federated.partition:
        found = load(folder / name / "data", image_size=8, cache_dir=tmp_path / "cache")
        assert list(found.image_ids) == list(federated.train_of(name).image_ids)
    assert list((folder / "hospital-3" / "test").iterdir()) == []


def test_every_key_of_the_apps_configuration_is_known_and_means_the_default():
    with open(ROOT / "pyproject.toml", "rb") as f:
        config = tomllib.load(f)["tool"]["flwr"]["app"]["config"]
    settings, options = read_run_config(config)
    assert options == Options()
    assert settings == type(settings)(protection="smpc", parties="hospitals")
    assert {f.name.replace("_", "-") for f in dataclasses.fields(Options)} <= set(config)


def test_run_config_takes_settings_and_a_file_that_wins(tmp_path):
    (tmp_path / "s.toml").write_text('strategy = "fedprox"\nmu = 0.5\n')
    config = {
        "rounds": 7,
        "strategy": "fedavg",
        "config": str(tmp_path / "s.toml"),
        "party-hospitals": "a, b",
    }
    settings, options = read_run_config({**config, "round-timeout": 5, "lr": ""})
    assert (settings.rounds, settings.strategy, settings.mu) == (7, "fedprox", 0.5)
    assert options.party_hospitals == ("a", "b")
    assert options.round_timeout == 5.0


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"round": 3}, "did you mean 'rounds'"),
        ({"rounds": 0}, "rounds = 0"),
        ({"dropout": 0.5}, "dropout is for virtual workers"),
        ({"protocol": "published"}, "protocol is for virtual workers"),
        ({"fine-tune-epochs": 1}, "give select = last with fine_tune_epochs"),
        ({"unit": 0}, "unit = 0"),
        ({"minimum-hospitals": 1}, "must be at least 2"),
        ({"sum-timeout": 0}, "more than 0 seconds"),
        ({"config": "nowhere.toml"}, "cannot read"),
    ],
)
def test_bad_run_config_is_refused(config, reason):
    with pytest.raises(SettingsError, match=reason):
        read_run_config(config)


def test_what_is_no_message_of_this_release_is_refused():
    request = protocol.encode_request("statistics", {"run": "ab" * 8, "sealed": {}})
    with pytest.raises(ProtectionError, match="no"):
        protocol.decode_answer("statistics", "h", protocol.encode_refusal(ProtectionError("no")))
    bad = [
        (request[:-1], "cut short"),
        (b"", "cut short"),
        ("text", "no bytes"),
        (b"\x01", "no message of this package"),
        (msgpack.packb({"version": protocol.VERSION + 1}), f"version {protocol.VERSION + 1}"),
        (msgpack.packb({"version": protocol.VERSION, "kind": "get"}), "kind 'get' is unknown"),
        (msgpack.packb({"version": protocol.VERSION, "kind": "train"}), "lacks parts"),
        (protocol.encode_request("statistics", {"run": "ab" * 8}), "exactly the fields run, sealed"),
    ]
    for data, reason in bad:
        with pytest.raises(MessageError, match=reason):
            protocol.decode_request(data)


def test_a_cut_or_changed_request_never_gets_past_the_site(tmp_path):
    from flower_helpers import LocalMessaging

    folder, _ = federation_of(tmp_path)
    site = LocalMessaging(folder).sites["hospital-1"]
    request = protocol.encode_request("statistics", {"run": "ab" * 8, "sealed": {}})
    rng = np.random.RandomState(0)
    for _ in range(200):
        data = bytearray(request)
        data[rng.randint(len(data))] ^= 1 << rng.randint(8)
        with pytest.raises(ProtectionError):  # a refusal, never a crash
            protocol.decode_answer(
                "statistics", "x", site.answer(bytes(data[: rng.randint(1, len(data) + 1)]))
            )


def test_parties_are_played_by_different_hospitals_of_the_run():
    names = ("a", "b", "c", "d")
    everyone = build_protection("smpc", parties="hospitals")
    two = build_protection("smpc", parties=2)
    assert keys.assign_parties(everyone, names, ()) == {n: n for n in names}
    assert keys.assign_parties(two, names, ()) == {"party-1": "a", "party-2": "b"}
    assert keys.assign_parties(two, names, ("d", "c")) == {"party-1": "d", "party-2": "c"}
    assert keys.assign_parties(build_protection("plaintext"), names, ()) == {}
    for hosts in (("a",), ("a", "a"), ("a", "z")):
        with pytest.raises(SettingsError, match="2 different hospitals"):
            keys.assign_parties(two, names, hosts)


def test_a_protection_that_runs_in_one_process_is_refused():
    class Own:
        name = "sympc"

    with pytest.raises(SettingsError, match="one process only"):
        keys.keying(Own(), keys.Members(("a", "b"), {}))
    plain = keys.keying(build_protection("plaintext"), keys.Members(("a", "b"), {}))
    own = keys.OwnKeys(b"", {}, None)
    with pytest.raises(ProtectionError, match="no hospital aggregates"):
        plain.party("a", own, b"")
    with pytest.raises(ProtectionError, match="no hospital opens"):
        plain.opener(own, b"")


def test_the_store_keeps_answers_forgets_other_runs_and_reports_damage(tmp_path):
    store = RunStore(tmp_path / "state", "a" * 32)
    store.begin()
    store.keep_answer("train", Answer("digest", 3, b"bytes"))
    assert store.answered("train") == Answer("digest", 3, b"bytes")
    assert store.answered("open") is None
    store.write_arrays("after", {"x": np.arange(3)})
    store.write("keys", {"private": b"secret"})
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) == 3 and all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    store.remove("keys")
    np.testing.assert_array_equal(store.read_arrays("after")["x"], [0, 1, 2])
    (tmp_path / "state" / ("a" * 32) / "after.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged"):
        store.read_arrays("after")
    (tmp_path / "state" / ("a" * 32) / "answer-train.msgpack").write_bytes(b"\xc1")
    with pytest.raises(CheckpointError, match="damaged"):
        store.answered("train")
    RunStore(tmp_path / "state", "b" * 32).begin()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["b" * 32]


def test_flowers_processes_send_nothing_and_find_this_python_first():
    found = flower_environment(ROOT, {"PATH": "/bin", "FLWR_TELEMETRY_ENABLED": "1"})
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["PATH"].endswith(":/bin")


def test_a_simulations_federation_is_made_once_and_waited_for(tmp_path, monkeypatch):
    federated = small_federated()
    monkeypatch.setattr("skinfl.flower.local.simulation.load_federated_data", lambda settings: federated)
    federation = simulated_federation(tmp_path, 7)
    settings = settings_of().replace(hospitals=5, partition="paper")
    prepared = prepare_simulation(settings, federation, 3)
    assert (prepared.hospitals, prepared.partition) == (3, "iid")
    monkeypatch.setattr("skinfl.flower.local.simulation.load_federated_data", None)
    prepare_simulation(settings, federation, 3)
    assert wait_for_federation(federation) == federation
    monkeypatch.setattr("skinfl.flower.environment._WAIT_SECONDS", 0.0)
    with pytest.raises(SettingsError, match="was not made"):
        wait_for_federation(tmp_path / "other")


def test_memory_is_watched():
    import os

    with MemoryWatch(lambda: [os.getpid(), 999999999], seconds=0.01) as watch:
        time.sleep(0.2)
    assert watch.peak > 10 * 2**20


def test_the_scaling_table_is_markdown():
    row = {"hospitals": 10, "asked": 10, "setup_s": 2.4, "setup_bytes": 1_500_000, "round_s": 3.25}
    row.update({"up_bytes": 2e6, "coordinator_bytes": 3e6, "memory_bytes": 2**30})
    table = runpy.run_path(str(ROOT / "benchmarks" / "flower_scaling.py"))["table"]
    lines = table([row, {**row, "memory_bytes": None}]).splitlines()
    assert lines[2] == "| 10 | 10 | 2 | 1.50 | 3.2 | 2.00 | 3.00 | 1024 |"
    assert lines[3].endswith("| - |")
    assert all(line.count("|") == 9 for line in lines)
