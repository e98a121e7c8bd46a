"""All settings of a run: one frozen, validated dataclass, read from TOML and overridden by flags.

Every field carries its own help text and its limits, so that the command line, the TOML file and the
documentation cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from skinfl.errors import SettingsError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _setting(
    group: str, default: Any, help: str, *, choices: Tuple[str, ...] = (), low: Any = None, high: Any = None
) -> Any:
    """Declare a field: ``group`` is its heading in ``--help``, ``low`` and ``high`` are inclusive."""
    return field(
        default=default,
        metadata={"group": group, "help": help, "choices": choices, "low": low, "high": high},
    )


@dataclass(frozen=True)
class Settings:
    """What a run is made of. ``None`` means that a default is derived from the other settings."""

    data: str = _setting("Data", "synthetic", "'synthetic', or a folder or file as its publisher ships it")
    image_size: int = _setting("Data", 28, "pixels per side the images are resized to", low=8, high=512)
    protocol: str = _setting(
        "Data",
        "grouped",
        "how the test set is drawn: by lesion, or as the published code does (leaks)",
        choices=("grouped", "published"),
    )
    test_fraction: float = _setting("Data", 0.2, "share of the images kept for testing", low=0.05, high=0.5)
    augment: bool = _setting("Data", True, "flip, turn and recolour training images anew in each epoch")

    hospitals: int = _setting("Hospitals", 5, "number of hospitals", low=2, high=10_000)
    partition: Optional[str] = _setting(
        "Hospitals",
        None,
        "who holds what; the default is the paper's proportions for 5 hospitals, else iid",
        choices=("paper", "iid", "dirichlet", "site"),
    )
    alpha: float = _setting(
        "Hospitals", 0.3, "concentration of the Dirichlet partition; small is skewed", low=0.01
    )
    workers: str = _setting(
        "Hospitals", "auto", "what the hospitals run on", choices=("auto", "virtual", "pysyft")
    )

    model: str = _setting("Network", "skinnet", "network: 'skinnet' (the paper's) or a torchvision backbone")
    doconv: bool = _setting("Network", True, "over-parameterise the network's convolutions (DO-Conv)")
    batchnorm: str = _setting(
        "Network",
        "average",
        "BatchNorm statistics: averaged, or kept at each hospital",
        choices=("average", "local"),
    )

    strategy: str = _setting(
        "Training",
        "fedavg",
        "federated strategy",
        choices=("fedavg", "fedprox", "fednova", "scaffold", "fedavgm", "fedadam", "fedyogi"),
    )
    rounds: int = _setting("Training", 6, "number of rounds", low=1)
    local_epochs: int = _setting("Training", 2, "passes over a hospital's data per round", low=1)
    batch_size: int = _setting("Training", 16, "images per step", low=2)
    optimiser: str = _setting("Training", "sgd", "optimiser at the hospital", choices=("sgd", "adam"))
    lr: Optional[float] = _setting(
        "Training",
        None,
        "learning rate; the default is 0.03 with momentum, 0.1 without, 0.002 for adam",
        low=1e-8,
    )
    momentum: Optional[float] = _setting(
        "Training", None, "momentum of sgd; the default is 0.9, for scaffold 0", low=0.0, high=0.999
    )
    weight_decay: float = _setting("Training", 1e-4, "L2 penalty", low=0.0)
    max_grad_norm: float = _setting(
        "Training", 1.0, "gradients of a step are scaled down to this norm; 0 leaves them", low=0.0
    )
    class_weights: str = _setting(
        "Training",
        "sqrt",
        "weigh the loss by class: not, or by the inverse (root) of its share of the images",
        choices=("none", "sqrt", "inverse"),
    )
    server_lr: Optional[float] = _setting(
        "Training",
        None,
        "step size of the server on the averaged update; the default is 1, for fedadam and fedyogi 0.03",
        low=1e-8,
    )
    mu: float = _setting("Training", 0.01, "weight of FedProx's proximal term", low=0.0)
    scaffold_option: int = _setting(
        "Training", 2, "SCAFFOLD's control update: 1 (extra pass) or 2", low=1, high=2
    )
    sample: float = _setting(
        "Training", 1.0, "share of the hospitals asked in each round", low=0.0001, high=1.0
    )
    dropout: float = _setting(
        "Training", 0.0, "chance that an asked hospital vanishes before it sends", low=0.0, high=0.95
    )

    transforms: str = _setting(
        "Transforms", "", "what updates go through before they are protected, by commas, e.g. 'clipping'"
    )
    clip_norm: float = _setting(
        "Transforms", 1.0, "largest L2 norm of a hospital's change of the model (clipping)", low=1e-8
    )

    protection: str = _setting(
        "Protection",
        "plaintext",
        "how updates are protected",
        choices=("plaintext", "smpc", "he", "sympc", "pysyft"),
    )
    smpc_scheme: Optional[str] = _setting(
        "Protection", None, "secret sharing scheme", choices=("additive", "shamir")
    )
    parties: Optional[str] = _setting("Protection", None, "number of aggregating parties, or 'hospitals'")
    threshold: Optional[int] = _setting("Protection", None, "parties that suffice to open (Shamir)", low=1)
    ring: Optional[int] = _setting("Protection", None, "bits of the sharing ring", low=32, high=64)
    he_scheme: Optional[str] = _setting(
        "Protection", None, "packing of homomorphic encryption", choices=("ckks-layers", "ckks-vector", "bfv")
    )
    bits: Optional[int] = _setting("Protection", None, "bits per quantised value (bfv)", low=8, high=16)
    degree: Optional[int] = _setting(
        "Protection",
        None,
        "degree of the ciphertexts' polynomials; the default is the lightest that is secure",
    )
    error_feedback: Optional[bool] = _setting(
        "Protection", None, "keep what quantisation cut off for the next round (bfv)"
    )
    precision: Optional[int] = _setting(
        "Protection", None, "fractional bits of the fixed-point encoding", low=4, high=48
    )
    clip: Optional[float] = _setting(
        "Protection", None, "largest absolute value that is sent unchanged", low=1e-6
    )
    rounding: Optional[str] = _setting(
        "Protection",
        None,
        "fixed-point rounding (SyMPC truncates), or stochastic (bfv)",
        choices=("truncate", "nearest", "stochastic"),
    )

    seed: int = _setting("Run", 0, "decides every random choice that affects the result", low=0)
    threads: int = _setting(
        "Run", 1, "processor threads of torch; more helps large networks only", low=1, high=1024
    )
    evaluate_every: int = _setting("Run", 1, "rounds between evaluations", low=1)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(f, getattr(self, f.name))
        if self.partition is None:
            object.__setattr__(self, "partition", "paper" if self.hospitals == 5 else "iid")
        if self.momentum is None:
            plain = self.strategy == "scaffold" or self.optimiser == "adam"
            object.__setattr__(self, "momentum", 0.0 if plain else 0.9)
        if self.lr is None:
            lr = 0.002 if self.optimiser == "adam" else 0.03 if self.momentum else 0.1
            object.__setattr__(self, "lr", lr)
        if self.server_lr is None:
            adaptive = self.strategy in ("fedadam", "fedyogi")
            object.__setattr__(self, "server_lr", 0.03 if adaptive else 1.0)
        if self.strategy == "scaffold" and (self.optimiser == "adam" or self.momentum):
            raise SettingsError(
                "SCAFFOLD's control variates assume plain SGD steps: use --optimiser sgd and --momentum 0, "
                "or another strategy"
            )
        if self.strategy == "fednova" and self.optimiser == "adam":
            raise SettingsError(
                "FedNova normalises by the length of SGD's path, which Adam does not have: "
                "use --optimiser sgd, or another strategy"
            )
        if self.transforms:
            from skinfl.federation.transforms import build_pipeline

            build_pipeline(self.transforms, vars(self))  # refuses unknown names and impossible parameters
        if self.ring not in (None, 32, 64):
            raise SettingsError(f"ring = {self.ring}: the ring has 32 or 64 bits")
        if self.parties not in (None, "hospitals") and not str(self.parties).isdigit():
            raise SettingsError(f"parties = {self.parties!r}: give a number, or 'hospitals'")

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with some fields changed, validated anew."""
        return from_mapping({**dataclasses.asdict(self), **changes})


def _check(f: dataclasses.Field, value: Any) -> None:
    """Refuse a value of the wrong type or outside the field's limits."""
    kind = str(f.type)
    if value is None:
        if not kind.startswith("Optional"):
            raise SettingsError(f"{f.name} needs a value: {f.metadata['help']}")
        return
    expected = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[
        kind.replace("Optional[", "").rstrip("]")
    ]
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        raise SettingsError(f"{f.name} = {value!r}: expected {expected[-1].__name__} ({f.metadata['help']})")
    choices, low, high = f.metadata["choices"], f.metadata["low"], f.metadata["high"]
    if choices and value not in choices:
        raise SettingsError(f"{f.name} = {value!r}: {nearest(value, choices)}")
    too_low = low is not None and not value >= low
    if too_low or (high is not None and value > high):
        limits = " and ".join(
            part
            for part in (low is not None and f"at least {low}", high is not None and f"at most {high}")
            if part
        )
        raise SettingsError(f"{f.name} = {value!r}: must be {limits} ({f.metadata['help']})")


def from_mapping(values: Mapping[str, Any]) -> Settings:
    """Build settings from a mapping, refusing unknown keys with the nearest valid name."""
    names = [f.name for f in dataclasses.fields(Settings)]
    for key in values:
        if key not in names:
            raise SettingsError(f"unknown setting {key!r}: {nearest(key, names)}")
    return Settings(**dict(values))


def read_toml(path: Path) -> Dict[str, Any]:
    """Return the settings of a TOML file as a mapping, unknown keys refused."""
    try:
        with open(path, "rb") as f:
            values = tomllib.load(f)
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    try:
        from_mapping(values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return values


def to_toml(settings: Settings) -> str:
    """Return the settings as TOML; what is ``None`` is left out."""
    lines = []
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if value is None:
            continue
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, str):
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        else:
            text = repr(value)
        lines.append(f"{f.name} = {text}")
    return "\n".join(lines) + "\n"
