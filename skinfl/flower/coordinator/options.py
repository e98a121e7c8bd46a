"""What ``flwr run --run-config`` takes: the settings of training, and how the coordinator goes about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

from skinfl import plugins
from skinfl.errors import SettingsError, nearest
from skinfl.federation.selection import LAST
from skinfl.settings import Settings, from_mapping, options, read_toml

_SECONDS = ("connect_timeout", "round_timeout", "sum_timeout", "return_timeout")
#: settings of virtual workers, which hospitals with machines and data of their own have no use for
VIRTUAL_ONLY = ("workers", "dropout", "protocol", "plugins")
#: what a Flower run takes where 'skinfl train' has another default
FLOWER_DEFAULTS = {"data": "synthetic", "protection": "smpc", "parties": "hospitals"}


@dataclass(frozen=True)
class Options:
    """How the coordinator goes about a run. Times are in seconds.

    ``out``: the run's folder, relative to the coordinator's. ``resume``: go on from its checkpoint.
    ``unit``: the public number of images that has weight one, a power of two; no hospital may hold more.
    ``minimum_hospitals``: start with no fewer. ``connect_timeout`` is for hospitals before the first
    round, ``round_timeout`` for one that trains, ``sum_timeout`` for one that adds up shares or opens a
    sum, ``return_timeout`` for one that lost its connection, to come back within the round.
    ``party_hospitals``: who plays the parties of secret sharing, where not all do. ``test_data``: the
    coordinator's own test set, if it has one. ``track``: where figures of all hospitals together go as well,
    see :mod:`skinfl.tracking`.
    """

    out: str = ""
    resume: bool = False
    unit: int = 4096
    minimum_hospitals: int = 2
    connect_timeout: float = 120.0
    round_timeout: float = 600.0
    sum_timeout: float = 120.0
    return_timeout: float = 15.0
    party_hospitals: Tuple[str, ...] = ()
    test_data: str = ""
    track: str = ""

    def __post_init__(self) -> None:
        for name, low in (("unit", 1), ("minimum_hospitals", 2)):
            if getattr(self, name) < low:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be at least {low}")
        if self.unit & (self.unit - 1):
            raise SettingsError(
                f"unit = {self.unit}: must be a power of two, which tells little of a hospital"
            )
        for name in _SECONDS:
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be more than 0 seconds")


def read_run_config(run_config: Mapping[str, Any]) -> Tuple[Settings, Options]:
    """Return settings and options from Flower's run configuration.

    Keys are written with hyphens there. The settings in the TOML file that ``config`` names win over the
    others. Raises :class:`~skinfl.errors.SettingsError` for an unknown key or an impossible value.
    """
    values = {key.replace("-", "_"): value for key, value in run_config.items()}
    config = values.pop("config", "")
    names = [f.name for f in dataclasses.fields(Options)]
    own: Dict[str, Any] = {name: values.pop(name) for name in names if name in values}
    known = options().keys()
    for key in values:
        if key not in known:
            raise SettingsError(f"unknown run-config key {key!r}: {nearest(key, known | set(names))}")
    settings: Dict[str, Any] = {key: value for key, value in values.items() if value != ""}
    if config:
        settings.update(read_toml(Path(str(config))))
    if "party_hospitals" in own:
        listed = str(own["party_hospitals"]).split(",")
        own["party_hospitals"] = tuple(name.strip() for name in listed if name.strip())
    for name in _SECONDS:
        if name in own:
            own[name] = float(own[name])
    # what a coordinator runs is named where it was started, never by whoever submits a run
    missing = [plugin for plugin in settings.pop("plugins", []) if plugin not in plugins.loaded()]
    if missing:
        raise SettingsError(f"the plugin {missing[0]} is not loaded: start with it in {plugins.VARIABLE}")
    found = from_mapping(settings)
    for name in VIRTUAL_ONLY:
        if getattr(found, name) != getattr(Settings(), name):
            raise SettingsError(f"{name} is for virtual workers: leave it out of a Flower run")
    if found.fine_tune_epochs and found.select != LAST:
        raise SettingsError(
            f"select = {found.select} may keep an earlier round's model, and hospitals of a deployment hold "
            "the last round's only, to fine-tune: give select = last with fine_tune_epochs, or leave that out"
        )
    return found, Options(**own)
