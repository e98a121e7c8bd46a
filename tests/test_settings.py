from __future__ import annotations

import pytest

from skinfl.assembly import protection_of
from skinfl.errors import SettingsError
from skinfl.settings import Settings, from_mapping, read_toml, to_toml


def test_defaults_are_derived():
    settings = Settings()
    assert (settings.partition, settings.lr, settings.momentum) == ("paper", 0.03, 0.9)
    scaffold = Settings(strategy="scaffold")
    assert (scaffold.lr, scaffold.momentum) == (0.1, 0.0)
    assert Settings(hospitals=3).partition == "iid"
    assert Settings(optimiser="adam").lr == 0.002


def test_toml_goes_round(tmp_path):
    settings = Settings(data='C:\\data "x"', rounds=3, lr=0.25, doconv=False, clip=2.5)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings))
    assert from_mapping(read_toml(path)) == settings


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rounds": 0}, "at least 1"),
        ({"strategy": "fedavgg"}, "did you mean 'fedavg'"),
        ({"hospitalz": 3}, "did you mean 'hospitals'"),
        ({"lr": float("nan")}, "finite"),
        ({"test_fraction": 0.9}, "at most 0.5"),
        ({"rounds": "3"}, "expected int"),
        ({"rounds": True}, "expected int"),
        ({"doconv": 1}, "expected bool"),
        ({"data": None}, "needs a value"),
        ({"ring": 48}, "valid: 32, 64"),
        ({"parties": "some"}, "give a number"),
        ({"strategy": "scaffold", "momentum": 0.9}, "plain SGD"),
    ],
)
def test_impossible_settings_are_refused_with_a_hint(values, message):
    with pytest.raises(SettingsError, match=message):
        from_mapping(values)


@pytest.mark.parametrize(
    "text, message", [("rounds = ", "not valid TOML"), ("round = 3", "did you mean 'rounds'")]
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        read_toml(path)
    assert "mine.toml" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")


def test_only_options_of_the_chosen_protection_are_passed_on():
    settings = Settings(ring=64, bits=12, he_scheme="bfv", parties="4", clip=3.0)
    assert protection_of(settings).describe() == protection_of(Settings()).describe()
    smpc = protection_of(settings.replace(protection="smpc")).describe()
    assert (smpc["ring"], smpc["parties"], smpc["clip"]) == (64, 4, 3.0)
    he = protection_of(settings.replace(protection="he")).describe()
    assert (he["he_scheme"], he["bits"], he["clip"]) == ("bfv", 12, 3.0)
    hospitals = protection_of(Settings(protection="smpc", parties="hospitals"))
    assert hospitals.describe()["parties"] == "hospitals"
