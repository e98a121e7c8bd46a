"""What a provisioned folder says: read and checked by whoever starts from it.

``hospital.toml`` is the hospital's own word on what it takes part in. Nothing that the coordinator
sends can widen it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Sequence, Tuple

from skinfl.devices import AMP
from skinfl.devices import parse as parse_device
from skinfl.errors import ProtectionError, SettingsError, nearest
from skinfl.federation.schedule import LR_SCHEDULES
from skinfl.flower.provisioning.defaults import DEFAULT_LIMITS, Limits
from skinfl.protection.keys import read_key_file

if TYPE_CHECKING:
    from skinfl.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOSPITAL_FILE = "hospital.toml"
COORDINATOR_FILE = "coordinator.toml"
#: names that the coordinator's connection goes by in ``$FLWR_HOME/config.toml``
CONNECTION = "skinfl"


@dataclass(frozen=True)
class HospitalFolder:
    """One hospital's side of a federation.

    ``sealing_keys``: every hospital's public X25519 key by name, 32 bytes each, this one's included.
    ``minimum_others``: how many other hospitals must be in a sum before this one contributes to it.
    ``maximum_parameters``: the largest model, counted in trained values, that this hospital accepts.
    ``protections``: the protections under which it lets an update out. ``test_data``: where its test
    images are; None to hold some of ``data`` out. ``own_figures``: whether its own loss, metrics, clipped
    share and times may leave it in the clear. ``reproducible``: whether its training draws on the run's
    seed, which the coordinator knows, instead of on randomness of its own. ``limits``: in which ranges it
    lets the coordinator choose. ``pretrained``: its own file of pretrained weights, or ``imagenet``, for runs
    that start from such; empty where it has the packaged ones or none. ``device``, ``amp``,
    ``deterministic``, ``oom_smaller``, ``threads``: as the settings of those names; what the coordinator
    computes on does not count here.
    """

    path: Path
    name: str
    coordinator: str
    port: int
    data: Path
    test_data: Optional[Path]
    minimum_others: int
    maximum_parameters: int
    protections: Tuple[str, ...]
    sealing_keys: Dict[str, bytes]
    own_figures: bool = False
    reproducible: bool = False
    limits: Limits = DEFAULT_LIMITS
    pretrained: str = ""
    device: str = "auto"
    amp: str = "auto"
    deterministic: bool = True
    oom_smaller: bool = False
    threads: Optional[int] = None

    @property
    def authority(self) -> Path:
        """The certificate by which the coordinator is recognised."""
        return self.path / "ca.pem"

    @property
    def node_key(self) -> Path:
        """The private key by which the coordinator recognises this hospital."""
        return self.path / "node.key"

    @property
    def approved_code(self) -> Path:
        """The digests of the code that this hospital is willing to run, one a line."""
        return self.path / "approved-code.txt"

    @property
    def state(self) -> Path:
        """Where the hospital keeps what must outlive one message; made on first use, mode 700."""
        return self.path / "state"

    @property
    def flower_home(self) -> Path:
        """``$FLWR_HOME``."""
        return self.path / "flower"

    def with_own_weights(self, settings: Settings) -> Settings:
        """Return a run's settings with this hospital's own pretrained weights in the coordinator's place.

        A path at the coordinator is none here, and nothing is downloaded because another asks for it; only
        the packaged weights go by one name everywhere. That they are the same weights, digests say. Raises
        :class:`~skinfl.errors.ProtectionError` where this hospital has none.
        """
        asked = settings.pretrained
        if asked == "none" or (asked == "package" and not self.pretrained):
            return settings
        if not self.pretrained:
            raise ProtectionError(
                f"this run starts from pretrained weights ({asked}) that {self.name} has not: name its own "
                f"copy as pretrained in its {HOSPITAL_FILE}"
            )
        own = self.pretrained if self.pretrained == "imagenet" else str(self.path / self.pretrained)
        return settings.replace(pretrained=own)

    def check_settings(self, settings: Settings, parties: int) -> None:
        """Refuse settings of a run beyond this hospital's limits; ``parties`` add up its shares.

        Raises :class:`~skinfl.errors.ProtectionError`.
        """
        for name in ("batch_size", "local_epochs", "lr", "server_lr", "image_size", "validation_fraction"):
            low, high = getattr(self.limits, name)
            value = getattr(settings, name)
            if name == "validation_fraction" and not value:
                continue
            if not low <= value <= high:
                raise ProtectionError(
                    f"{self.name} takes part with {name} from {low} to {high}, this run has {value}: "
                    f"choose another, or widen [limits] in the hospital's {HOSPITAL_FILE}"
                )
        if settings.fine_tune_epochs > self.limits.local_epochs[1]:
            raise ProtectionError(
                f"{self.name} takes part with fine_tune_epochs of at most {self.limits.local_epochs[1]}, "
                f"this run has {settings.fine_tune_epochs}: choose fewer"
            )
        rate = LR_SCHEDULES.build(settings.lr_schedule, settings.asdict())
        for round in (1, settings.rounds):
            highest = settings.lr * max(rate.share(round - 1), rate.share(round))
            if highest < self.limits.lr[0]:
                raise ProtectionError(
                    f"{self.name} takes part with lr from {self.limits.lr[0]}, this run's reaches "
                    f"{highest:g} in round {round}: raise lr or lr_min_share, or lower warmup_rounds"
                )
        shamir = settings.protection == "smpc" and settings.smpc_scheme == "shamir"
        if shamir and settings.threshold is not None and 2 * settings.threshold <= parties:
            raise ProtectionError(
                f"{self.name} takes part with threshold above half of the {parties} parties, this run has "
                f"{settings.threshold}: two halves could open two sums of one round; raise threshold"
            )

    def check_class_weights(self, weights: Sequence[float]) -> None:
        """Refuse weights of classes in the loss beyond this hospital's limits.

        0 is allowed, which a class has that no hospital holds, but not for all. Raises
        :class:`~skinfl.errors.ProtectionError`.
        """
        low, high = self.limits.class_weights
        for weight in weights:
            if weight != 0 and not low <= weight <= high:
                raise ProtectionError(
                    f"{self.name} takes part with class_weights from {low} to {high}, or 0, this run has "
                    f"{weight:g}: choose others, or widen [limits] in the hospital's {HOSPITAL_FILE}"
                )
        if not any(weights):
            raise ProtectionError(f"{self.name} is told class_weights of 0 for every class")

    def sealing_key(self) -> bytes:
        """Return the private X25519 key, 32 bytes."""
        text = read_key_file(self.path / "sealing.key").decode("ascii", "replace")
        return _hex(text.strip(), self.name, self.path)

    def approved(self) -> Tuple[str, ...]:
        """Return the approved digests (SHA-256, lower case); what follows a ``#`` is a remark."""
        try:
            lines = self.approved_code.read_text("utf-8").splitlines()
        except OSError as error:
            raise SettingsError(f"cannot read {self.approved_code}: {error.strerror}") from None
        found = [line.split("#")[0].strip().lower() for line in lines]
        return tuple(digest for digest in found if digest)


@dataclass(frozen=True)
class CoordinatorFolder:
    """The coordinator's side of a federation: no secret of any hospital is in it."""

    path: Path
    listen: str
    port: int
    hospitals: Tuple[str, ...]

    @property
    def authority(self) -> Path:
        """The certificate that the coordinator's own processes check the server by."""
        return self.path / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.path / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.path / "server.key"

    @property
    def database(self) -> Path:
        """Where the SuperLink keeps nodes, runs and messages in transit."""
        return self.path / "superlink.sqlite"

    @property
    def flower_home(self) -> Path:
        """``$FLWR_HOME``."""
        return self.path / "flower"

    def public_key(self, hospital: str) -> Path:
        """Return where the public node key of a hospital lies."""
        return self.path / "hospitals" / f"{hospital}.pub"


def _check_machine(values: Mapping[str, Any], path: Path) -> None:
    """Refuse names of no device or precision, and no thread at all; whether it is there is seen in use."""
    try:
        parse_device(values.get("device", "auto"))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    if values.get("amp", "auto") not in AMP:
        raise SettingsError(f"{path}: amp = {values['amp']!r}: {nearest(values['amp'], AMP)}")
    if values.get("threads", 1) < 1:
        raise SettingsError(f"{path}: threads = {values['threads']}: must be at least 1")


def read_hospital(path: Path) -> HospitalFolder:
    """Read a hospital's folder; raises :class:`~skinfl.errors.SettingsError` for what is amiss."""
    path = Path(path).resolve()
    values = _read(path / HOSPITAL_FILE)
    kinds = {"name": str, "coordinator": str, "port": int, "data": str, "test_data": str}
    kinds.update({"minimum_others": int, "maximum_parameters": int, "protections": list})
    kinds.update({"sealing_keys": dict})
    optional = {"own_figures": bool, "reproducible": bool, "limits": dict, "pretrained": str}
    optional.update({"device": str, "amp": str, "deterministic": bool, "oom_smaller": bool, "threads": int})
    _check(values, kinds, path / HOSPITAL_FILE, optional)
    _check_machine(values, path / HOSPITAL_FILE)
    values["limits"] = _limits(values.get("limits", {}), path / HOSPITAL_FILE)
    if values["minimum_others"] < 1:
        raise SettingsError(
            f"{path / HOSPITAL_FILE}: minimum_others must be at least 1, or a sum could hold this "
            "hospital's update alone"
        )
    keys = {name: _hex(text, name, path / HOSPITAL_FILE) for name, text in values.pop("sealing_keys").items()}
    if values["name"] not in keys:
        raise SettingsError(f"{path / HOSPITAL_FILE}: [sealing_keys] lacks {values['name']!r} itself")
    values["data"] = path / values["data"]
    values["test_data"] = path / values["test_data"] if values["test_data"] else None
    if not all(isinstance(name, str) for name in values["protections"]):
        raise SettingsError(f"{path / HOSPITAL_FILE}: protections: expected a list of names")
    values["protections"] = tuple(values["protections"])
    return HospitalFolder(path=path, sealing_keys=keys, **values)


def read_coordinator(path: Path) -> CoordinatorFolder:
    """Read the coordinator's folder; raises :class:`~skinfl.errors.SettingsError` for what is amiss."""
    path = Path(path).resolve()
    values = _read(path / COORDINATOR_FILE)
    _check(values, {"listen": str, "port": int, "hospitals": list}, path / COORDINATOR_FILE)
    values["hospitals"] = tuple(values["hospitals"])
    return CoordinatorFolder(path=path, **values)


def _read(path: Path) -> Dict[str, Any]:
    try:
        with open(path, "rb") as f:
            return tomllib.load(f)
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}; 'skinfl provision' makes such a folder"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


def _check(
    values: Mapping[str, Any], kinds: Mapping[str, type], path: Path, optional: Mapping[str, type] = {}
) -> None:
    known = {**kinds, **optional}
    for key in values:
        if key not in known:
            raise SettingsError(f"{path}: unknown setting {key!r}: {nearest(key, known)}")
    for key, kind in known.items():
        if key not in values:
            if key in optional:
                continue
            raise SettingsError(f"{path}: the setting {key!r} is missing")
        if type(values[key]) is not kind:
            raise SettingsError(f"{path}: {key} = {values[key]!r}: expected {kind.__name__}")


def _limits(given: Mapping[str, Any], path: Path) -> Limits:
    """Return the limits of a hospital's file; what it leaves out takes its default."""
    kept = dataclasses.asdict(DEFAULT_LIMITS)
    for key, value in given.items():
        if key not in kept:
            raise SettingsError(f"{path}: [limits]: unknown setting {key!r}: {nearest(key, kept)}")
        default = kept[key]
        if isinstance(default, int):
            if type(value) is not int or value < 1:
                raise SettingsError(f"{path}: [limits] {key} = {value!r}: expected a number of at least 1")
            kept[key] = value
            continue
        kinds = (int,) if isinstance(default[0], int) else (int, float)
        what = "whole numbers" if kinds == (int,) else "numbers"
        pair = isinstance(value, list) and len(value) == 2 and all(type(each) in kinds for each in value)
        if not pair or not 0 < value[0] <= value[1] < math.inf:
            raise SettingsError(
                f"{path}: [limits] {key} = {value!r}: expected [low, high], two {what} above 0 in order"
            )
        kept[key] = tuple(value)
    return Limits(**kept)


def _hex(text: str, what: str, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text)
    except (ValueError, TypeError):
        key = b""
    if len(key) != 32:
        raise SettingsError(f"{path}: the sealing key of {what!r} must be 64 hexadecimal digits")
    return key
