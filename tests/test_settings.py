from __future__ import annotations

import copy
import importlib.util
import json
import os
import pickle
import re
import sys
from pathlib import Path

import pytest

from skinfl import assembly, flags
from skinfl.catalogue import MODELS, PARTITIONS, PROTECTIONS, REGISTRIES, STRATEGIES
from skinfl.errors import SettingsError, SkinflError
from skinfl.protection.build import protection_of
from skinfl.registry import Option, Registry
from skinfl.settings import Settings, from_mapping, options, read_toml, to_toml

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = [(registry, entry) for registry in REGISTRIES for entry in registry]
SHAMIR = {"protection": "smpc", "smpc_scheme": "shamir"}
ENTRY_IDS = [f"{registry.kind}-{entry.name}" for registry, entry in ENTRIES]


def test_defaults_are_derived():
    settings = Settings()
    assert (settings.partition, settings.lr, settings.momentum) == ("paper", 0.03, 0.9)
    scaffold = Settings(strategy="scaffold")
    assert (scaffold.lr, scaffold.momentum) == (0.1, 0.0)
    assert Settings(hospitals=3).partition == "iid"
    assert (Settings(optimiser="adam").lr, Settings(optimiser="adam").momentum) == (0.002, 0.0)
    assert (Settings(momentum=0.0).lr, Settings(momentum=0.5).lr) == (0.1, 0.03)
    he, bfv = Settings(protection="he"), Settings(protection="he", he_scheme="bfv")
    assert (he.clip, he.rounding, he.bits) == (64.0, "nearest", None)
    assert (bfv.clip, bfv.rounding, bfv.bits) == (None, "stochastic", 16)
    assert (Settings(protection="sympc").precision, Settings(protection="smpc").precision) == (16, None)


def test_what_follows_from_a_changed_setting_changes_with_it():
    assert Settings(optimiser="sgd").replace(optimiser="adam").lr == 0.002
    assert Settings().replace(strategy="scaffold").momentum == 0.0
    assert Settings(hospitals=5).replace(hospitals=4).partition == "iid"
    assert Settings(lr=0.5).replace(optimiser="adam").lr == 0.5
    assert Settings(lr=0.5).replace(lr=None).lr == 0.03
    assert Settings(rounds=9).replace(rounds=None) == Settings()
    with pytest.raises(SettingsError, match="plain SGD"):
        Settings(momentum=0.9).replace(strategy="scaffold")
    with pytest.raises(SettingsError, match="did you mean 'rounds'"):
        Settings().replace(round=3)


def test_only_what_was_given_is_kept():
    settings = Settings(rounds=3, lr=1)
    assert settings.given == {"rounds": 3, "lr": 1.0} and isinstance(settings.lr, float)
    assert repr(settings) == "Settings(rounds=3, lr=1.0)"
    assert Settings(alpha=None, clip=None).given == {}
    everything = settings.asdict()
    assert set(everything) == set(options()) and everything["momentum"] == 0.9
    assert json.loads(json.dumps(everything)) == everything
    assert from_mapping(everything) == settings


def test_settings_are_values():
    assert Settings() == Settings(rounds=6, lr=0.03) != Settings(rounds=7)
    assert hash(Settings()) == hash(Settings(lr=0.03))
    assert Settings() != "settings"
    for again in (copy.deepcopy(Settings(rounds=2)), pickle.loads(pickle.dumps(Settings(rounds=2)))):
        assert again == Settings(rounds=2) and again.given == {"rounds": 2}
    with pytest.raises(AttributeError, match="immutable"):
        Settings().rounds = 3
    with pytest.raises(TypeError):
        Settings().given["rounds"] = 3
    with pytest.raises(AttributeError, match="did you mean 'rounds'"):
        _ = Settings().round
    assert not hasattr(Settings(), "__len__") and "rounds" in dir(Settings())


def test_toml_goes_round(tmp_path):
    odd = 'C:\\data "x"\t\'\x7fé'
    settings = Settings(data=odd, rounds=3, lr=0.25, doconv=False, clip=2.5, parties=4, plugins=["a", "b c"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings), "utf-8")
    again = from_mapping(read_toml(path))
    assert again == settings and again.given == settings.given


def test_a_saved_file_freezes_no_default(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(Settings(rounds=3)))
    assert "# lr = 0.03" in path.read_text()
    assert read_toml(path) == {"rounds": 3}
    assert from_mapping({**read_toml(path), "optimiser": "adam"}).lr == 0.002


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rounds": 0}, "at least 1"),
        ({"strategy": "fedavgg"}, "did you mean 'fedavg'"),
        ({"model": "resnet"}, "did you mean 'resnet18'"),
        ({"hospitalz": 3}, "did you mean 'hospitals'"),
        ({"protektion": "he"}, "did you mean 'protection'"),
        ({"batch-size": 3}, "did you mean 'batch_size'"),
        ({"Rounds": 3}, "did you mean 'rounds'"),
        ({"out": "x"}, "command line only"),
        ({"xyzzy": 3}, "--help lists all"),
        ({"lr": float("nan")}, "finite"),
        ({"lr": float("inf")}, "finite"),
        ({"test_fraction": 0.9}, "at most 0.5"),
        ({"rounds": "3"}, "expected int"),
        ({"rounds": 3.0}, "expected int"),
        ({"rounds": True}, "expected int"),
        ({"lr": True}, "expected float"),
        ({"lr": "0.1"}, "expected float"),
        ({"doconv": 1}, "expected bool"),
        ({"doconv": "false"}, "expected bool"),
        ({"data": None}, "needs a value"),
        ({"data": 3}, "expected str"),
        ({"strategy": None}, "needs a value"),
        ({"plugins": "mine.py"}, "expected list of str"),
        ({"ring": 48}, "must be one of 32, 64"),
        ({"bits": 40}, "must be one of 8, 12, 16"),
        ({"scaffold_option": 3}, "must be one of 1, 2"),
        ({"parties": "some"}, "give 2 to 1000, or 'hospitals'"),
        ({"parties": 1}, "one party alone"),
        ({"parties": True}, "give 2 to 1000, or 'hospitals'"),
        ({"strategy": "scaffold", "momentum": 0.9}, "plain SGD"),
        ({"strategy": "scaffold", "optimiser": "adam"}, "plain SGD"),
        ({"strategy": "fednova", "optimiser": "adam"}, "SGD's path"),
    ],
)
def test_impossible_settings_are_refused_with_a_hint(values, message):
    with pytest.raises(SettingsError, match=message) as error:
        Settings(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"rounds = ", "not valid TOML"),
        (b"round = 3", "did you mean 'rounds'"),
        (b"local-epochs = 1", "did you mean 'local_epochs'"),
        (b"lr = nan", "finite"),
        (b'augment = "false"', "expected bool"),
        (b"[train]\nrounds = 1", r"leave out \[train\]"),
        ("data = “data”".encode(), "straight quotes"),
        (b'data = "C:\\Users\\me"', "double each backslash"),
        (b"rounds: 3", "rounds: 3|each setting on a line"),
        (b'rounds = 3\ndata = "\xe9"', "line 2 is not UTF-8"),
        ("rounds = 3\n".encode("utf-16"), "saved as UTF-16: save it as UTF-8"),
        ("rounds = 3\n".encode("utf-16-le"), "saved as UTF-16"),
    ],
)
def test_bad_files_are_named_with_the_remedy_in_one_line(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as error:
        read_toml(path)
    assert "mine.toml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("content", [b"rounds = 3\n", b"rounds = 3\r\n"])
def test_a_file_saved_on_windows_is_read(tmp_path, mark, content):
    (tmp_path / "mine.toml").write_bytes(mark + content)
    assert read_toml(tmp_path / "mine.toml") == {"rounds": 3}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")


def test_the_home_directory_is_found_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine.toml").write_text('data = "~/ham"\nmetadata = "~/table.csv"\n')
    settings = Settings(**read_toml(tmp_path / "mine.toml"))
    assert settings.data == os.path.join(str(tmp_path), "ham")
    assert settings.metadata == os.path.join(str(tmp_path), "table.csv")
    assert Settings(data=Path("~/ham")).data == settings.data
    assert Settings().data == "synthetic"


def test_only_options_of_the_chosen_protection_are_passed_on():
    settings = Settings(ring=64, bits=12, he_scheme="bfv", parties="4", clip=3.0)
    assert protection_of(settings).describe() == protection_of(Settings()).describe()
    smpc = protection_of(settings.replace(protection="smpc")).describe()
    assert (smpc["ring"], smpc["parties"], smpc["clip"]) == (64, 4, 3.0)
    hospitals = protection_of(Settings(protection="smpc", parties="hospitals"))
    assert hospitals.describe()["parties"] == "hospitals"
    pytest.importorskip("tenseal")
    he = protection_of(settings.replace(protection="he")).describe()
    assert (he["he_scheme"], he["bits"], he["clip"]) == ("bfv", 12, 3.0)


def test_only_a_simulation_repeats_its_stochastic_rounding():
    pytest.importorskip("tenseal")
    bfv, ckks = Settings(protection="he", he_scheme="bfv"), Settings(protection="he")
    assert protection_of(bfv, simulation_seed=0).describe()["rounding_seeded"]
    assert not protection_of(bfv).describe()["rounding_seeded"]
    assert not protection_of(ckks, simulation_seed=0).describe()["rounding_seeded"]
    protection_of(Settings(protection="smpc"), simulation_seed=0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({**SHAMIR, "threshold": 9}, "threshold = 9"),
        (
            {**SHAMIR, "parties": "hospitals", "threshold": 6},
            "threshold = 6",
        ),
        ({"protection": "smpc", "threshold": 2}, "leave threshold out"),
        ({"protection": "smpc", "precision": 31}, "lower precision"),
        ({"protection": "smpc", "precision": 23, "hospitals": 200}, "lower precision"),
        ({"protection": "smpc", "rounding": "stochastic"}, "rounding"),
        ({"protection": "he", "bits": 8}, "he_scheme bfv"),
        ({"protection": "he", "degree": 1024}, "degree"),
        ({"protection": "he", "he_scheme": "bfv", "precision": 20}, "precision belongs to ckks"),
        ({"partition": "paper", "hospitals": 4}, "--hospitals 5"),
    ],
)
def test_what_is_bound_to_fail_is_refused_before_data_is_read(monkeypatch, values, message):
    if values.get("protection") == "he":
        pytest.importorskip("tenseal")
    monkeypatch.setattr(assembly, "load", lambda *a, **k: pytest.fail("data was read"))
    with pytest.raises(SkinflError, match=message):
        assembly.load_federated_data(Settings(data="toy", **values))


@pytest.mark.parametrize(
    ("kind", "name", "package"),
    [("workers", "pysyft", "syft"), ("protection", "pysyft", "syft"), ("protection", "sympc", "sympc")],
)
def test_a_missing_library_is_told_before_data_is_read(monkeypatch, kind, name, package):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    monkeypatch.setattr(assembly, "load", lambda *a, **k: pytest.fail("data was read"))
    with pytest.raises(SettingsError, match="environment"):
        assembly.load_federated_data(Settings(**{kind: name}))


def test_the_metadata_table_goes_to_the_reader(monkeypatch):
    seen = {}
    monkeypatch.setattr(assembly, "load", lambda source, **options: seen.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        assembly.load_federated_data(Settings(data="x", metadata="tables/m.csv"))
    assert seen["metadata"] == "tables/m.csv"


@pytest.mark.parametrize("option", list(options().values()), ids=list(options()))
def test_every_option_is_a_flag_with_help_and_in_the_documentation(option):
    assert option.help and option.group and "\n" not in option.help and not option.help.endswith(".")
    assert option.derived if option.optional else option.check(option.default) == option.default
    parameters = {p.name: p.default for p in flags._parameters(())}
    assert (option.name in parameters) == option.flag
    if option.flag:
        text = parameters[option.name].help
        assert option.help in text and "default: " in text
        assert all(str(choice) in text for choice in option.choices)
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{option.name}` .*$", page, re.MULTILINE)
    assert all(f"`{choice}`" in row for choice in option.choices)


@pytest.mark.parametrize(("registry", "entry"), ENTRIES, ids=ENTRY_IDS)
def test_every_entry_can_be_chosen_and_is_documented(registry, entry):
    settings = Settings(**{registry.kind: entry.name})
    assert getattr(settings, registry.kind) == entry.name
    assert f"- `{entry.name}`: {entry.summary}" in (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in entry.defaults:
        assert name in options()
    for rule in entry.rules:
        rule(settings)  # its own defaults never break its rules


def test_a_default_that_a_choice_changes_is_told():
    STRATEGIES.register("slow", "for a test", dict, defaults={"server_lr": 0.03})
    try:
        assert Settings(strategy="slow").server_lr == 0.03
        assert Settings(strategy="slow", server_lr=2).server_lr == 2.0
        (flag,) = [p.default for p in flags._parameters(()) if p.name == "server_lr"]
        assert "(default: 1.0, for fedadagrad 0.1, for fedadam, fedyogi, slow 0.03)" in flag.help
    finally:
        STRATEGIES.unregister("slow")


def test_names_are_shown_where_they_are_chosen():
    assert options()["model"].choices[:2] == ("skinnet", "resnet18")
    assert set(options()["partition"].choices) == {entry.name for entry in PARTITIONS}
    assert len(MODELS) >= 4 and "scaffold" in STRATEGIES and "smpc" in PROTECTIONS


def fruit():
    registry = Registry("fruit", group="Fruit", help="what to eat", default="apple")
    registry.register("apple", "red", dict, options=[Option("seeds", int, 5, "in it", low=0)], uses=["shelf"])
    return registry


def test_a_registry_builds_from_options_and_what_is_used():
    registry = fruit()
    assert registry.build("apple", {"seeds": 3, "other": 1}) == {"seeds": 3}
    assert registry.build("apple", {"seeds": 3}, shelf="top") == {"seeds": 3, "shelf": "top"}
    assert [(o.name, o.group) for o in registry.options()] == [("fruit", "Fruit"), ("seeds", "Fruit")]

    @registry.register("pear", "green")
    class Pear:
        pass

    assert isinstance(registry.build("pear", {}), Pear)
    assert registry.selector.choices == ("apple", "pear")
    registry.register("lazy", "named", "collections:OrderedDict")
    assert registry.build("lazy", {}) == {}
    registry.unregister("lazy")
    assert "lazy" not in registry
    with pytest.raises(SettingsError, match="did you mean 'pear'"):
        registry["peer"]
    with pytest.raises(SettingsError, match="already"):
        registry.register("pear", "again", dict)


def test_an_option_declared_twice_and_differently_is_refused():
    STRATEGIES.register("twice", "for a test", dict, options=[Option("clip", int, 3, "another clip")])
    try:
        with pytest.raises(SettingsError, match="'clip' is declared twice"):
            options()
    finally:
        STRATEGIES.unregister("twice")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Flower's configuration is of Python 3.11 and newer")
def test_what_is_made_from_the_settings_is_up_to_date():
    from skinfl import reference

    mend = "run python -m skinfl.reference"
    assert (ROOT / reference.PAGE).read_text("utf-8") == reference.settings_page(), mend
    project = (ROOT / reference.PROJECT).read_text("utf-8")
    assert reference.with_block(project) == project, mend
    with pytest.raises(SettingsError, match="put them back"):
        reference.with_block("[tool]\n")
