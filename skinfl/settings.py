"""All settings of a run, made from what is declared: here what every run has, in registries what is chosen.

Settings keep what was given and derive the rest from it whenever they are asked, so that a changed
setting changes all that follows from it, and a saved file freezes no default.
"""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, Iterator, List, Mapping, Tuple, Union

from skinfl.catalogue import (
    LOSSES,
    LR_SCHEDULES,
    MODELS,
    OPTIMISERS,
    PARTITIONS,
    PERSONAL,
    PROTECTIONS,
    REGISTRIES,
    STRATEGIES,
    TRANSFORMS,
    WORKERS,
)
from skinfl.data.preparation import COLOUR_CONSTANCIES, FITS
from skinfl.devices import AMP
from skinfl.devices import parse as parse_device
from skinfl.errors import SettingsError, nearest
from skinfl.federation.selection import CRITERIA
from skinfl.models.registry import trainable
from skinfl.registry import AS_IT_IS, Entry, Option, Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _criterion(settings: Any) -> str:
    return "auc" if settings.validation_fraction and settings.personal == "none" else "last"


#: in the order of help and documentation; a registry stands for its selector and its entries' options
_DECLARED: Dict[str, Tuple[Union[Option, Registry], ...]] = {
    "Data": (
        Option("data", Path, "synthetic", "'synthetic', or a folder or file as its publisher ships it"),
        Option(
            "metadata",
            Path,
            None,
            "the data's metadata table, where it lies elsewhere",
            derived="looked for beside it",
        ),
        Option("image_size", int, 28, "pixels per side the images are resized to", low=8, high=512),
        Option(
            "fit",
            str,
            "squash",
            "how a photograph's frame becomes a square: squashed, its middle cropped, or padded",
            choices=FITS,
        ),
        Option(
            "colour_constancy",
            str,
            "none",
            "correct the colour of the light in each photograph",
            choices=COLOUR_CONSTANCIES,
        ),
        Option(
            "protocol",
            str,
            "grouped",
            "how the test set is drawn: by lesion, or as the published code does (leaks)",
            choices=("grouped", "published"),
        ),
        Option("test_fraction", float, 0.2, "share of the images kept for testing", low=0.05, high=0.5),
        Option(
            "validation_fraction",
            float,
            lambda settings: 0.0 if settings.protocol == "published" else 0.1,
            "share of each hospital's training images that choose between models and are not trained on",
            low=0.0,
            high=0.5,
            derived="0.1, with the published protocol 0",
        ),
        Option("augment", bool, True, "flip, turn and recolour training images anew in each epoch"),
        Option(
            "augment_strength",
            float,
            1.0,
            "scales how far images are turned, shifted and recoloured; 0 only flips them",
            low=0.0,
            high=3.0,
        ),
        Option(
            "cutout",
            float,
            0.0,
            "side of a square hidden in every second training image, as a share of the image's",
            low=0.0,
            high=0.9,
        ),
    ),
    "Hospitals": (
        Option("hospitals", int, 5, "number of hospitals", low=2, high=10_000),
        PARTITIONS,
        WORKERS,
    ),
    "Network": (
        MODELS,
        Option(
            "pretrained",
            Path,
            "none",
            "weights to start from: none, a file (torchvision's, timm's or .safetensors), imagenet "
            "(torchvision downloads them) or package (of efficientnet_lite0)",
        ),
        Option(
            "trainable",
            str,
            "all",
            "what is trained: all, head (of a frozen trunk's pooled features) or last:N (stages)",
            parse=trainable,
        ),
        Option(
            "features",
            str,
            "stages",
            "what a head is trained on: mean and deviation of the maps of all stages, or of the last",
            choices=("stages", "last"),
        ),
        Option("head", str, "mlp", "a head's layers", choices=("linear", "mlp")),
        Option("head_hidden", int, 128, "hidden units of the head mlp", low=1, high=65536),
        Option(
            "head_dropout", float, 0.0, "share of a head's inputs left out in each step", low=0.0, high=0.95
        ),
        Option(
            "views",
            int,
            1,
            "flipped and turned views of each photograph that a frozen trunk looks at; training draws one "
            "each time, answers are averaged over all",
            low=1,
            high=8,
        ),
        Option(
            "batchnorm",
            str,
            "average",
            "BatchNorm statistics: averaged, or kept at each hospital",
            choices=("average", "local"),
        ),
    ),
    "Training": (
        STRATEGIES,
        Option("rounds", int, 6, "number of rounds", low=1),
        Option("local_epochs", int, 2, "passes over a hospital's data per round", low=1),
        Option("batch_size", int, 16, "images per step", low=2),
        OPTIMISERS,
        Option(
            "lr",
            float,
            None,
            "learning rate",
            low=1e-8,
            derived="0.03 with momentum, 0.1 without, 0.002 for adam and adamw; "
            "pretrained 0.01, a head 0.001, for these 0.0003",
        ),
        Option(
            "momentum",
            float,
            None,
            "momentum of sgd",
            low=0.0,
            high=0.999,
            derived="0.9, for scaffold, adam and adamw 0",
        ),
        LR_SCHEDULES,
        Option("weight_decay", float, 1e-4, "L2 penalty, for adamw decay of the weights", low=0.0),
        Option(
            "max_grad_norm",
            float,
            1.0,
            "gradients of a step are scaled down to this norm; 0 leaves them",
            low=0.0,
        ),
        LOSSES,
        Option(
            "class_weights",
            str,
            "sqrt",
            "weigh the loss by class: not, by the inverse (root) of its share of the images, or of its "
            "effective number",
            choices=("none", "sqrt", "inverse", "effective"),
        ),
        Option(
            "effective_beta",
            float,
            0.999,
            "beta of the effective number; 0 is no weights, near 1 the inverse share",
            low=0.0,
            high=0.9999999,
        ),
        Option(
            "label_smoothing",
            float,
            0.0,
            "share of a label that is spread evenly over all classes",
            low=0.0,
            high=0.9,
        ),
        Option(
            "mixup",
            float,
            0.0,
            "mix images of a batch, by shares from Beta(alpha, alpha) of this alpha; 0 does not",
            low=0.0,
            high=32.0,
        ),
        Option("sample", float, 1.0, "share of the hospitals asked in each round", low=0.0001, high=1.0),
        Option(
            "dropout",
            float,
            0.0,
            "chance that an asked hospital vanishes before it sends",
            low=0.0,
            high=0.95,
        ),
    ),
    "Personal models": (
        PERSONAL,
        Option(
            "fine_tune_epochs",
            int,
            0,
            "passes over a hospital's own data after the last round, for a model of its own",
            low=0,
        ),
        Option(
            "fine_tune_lr",
            float,
            lambda settings: settings.lr / 10,
            "learning rate of these passes",
            low=1e-10,
            derived="a tenth of lr",
        ),
    ),
    "Selection": (
        Option(
            "select",
            str,
            _criterion,
            "what chooses the round whose model is kept, on the validation images",
            choices=CRITERIA,
            derived="auc; without validation images, and with personal models, last",
        ),
        Option("patience", int, 0, "rounds without a better one after which it stops; 0 never", low=0),
        Option(
            "ema",
            float,
            0.0,
            "decay of a moving average of the model over rounds, which is kept instead; 0 is none",
            low=0.0,
            high=0.9999,
        ),
        Option(
            "target_sensitivity",
            float,
            0.95,
            "share of the malignant validation lesions that the threshold for them finds",
            low=0.01,
            high=1.0,
        ),
    ),
    "Transforms": (TRANSFORMS,),
    "Protection": (PROTECTIONS,),
    "Run": (
        Option("seed", int, 0, "decides every random choice that affects the result", low=0),
        Option(
            "threads", int, 1, "processor threads of torch; more helps large networks only", low=1, high=1024
        ),
        Option(
            "device",
            str,
            "auto",
            "where networks compute: cpu, cuda, cuda:1, mps; auto is cuda where there is one, else cpu",
            parse=parse_device,
        ),
        Option(
            "amp",
            str,
            "auto",
            "mixed precision: auto is bf16 on GPUs that have it, from 64 pixels",
            choices=AMP,
        ),
        Option(
            "deterministic", bool, True, "have a GPU give the same model for the same seed, at some speed"
        ),
        Option(
            "oom_smaller",
            bool,
            False,
            "where memory is too small for a batch, go on in parts of it whose gradients are added up",
        ),
        Option("evaluate_every", int, 1, "rounds between evaluations", low=1),
        Option(
            "plugins",
            tuple,
            (),
            "Python files or modules that register more to choose from, see --plugin",
            flag=False,
        ),
    ),
}

#: what one machine computes on: nobody else need choose the same, and a run may go on with another
OF_THE_MACHINE = ("device", "amp", "deterministic", "oom_smaller", "threads")


def options() -> Dict[str, Option]:
    """Return all options by name, in the order of help; what a plugin registered is among them.

    Raises :class:`~skinfl.errors.SettingsError` where a name is declared twice and differently.
    """
    found: Dict[str, Option] = {}
    for group, declared in _DECLARED.items():
        for part in declared:
            for option in part.options() if isinstance(part, Registry) else (part.grouped(group),):
                if found.setdefault(option.name, option) != option:
                    raise SettingsError(
                        f"the option {option.name!r} is declared twice and differently: give one another name"
                    )
    return found


def default_text(option: Option) -> str:
    """Return an option's default in words, with what entries make of it."""
    others: Dict[str, List[str]] = {}
    for registry in REGISTRIES:
        for entry in registry:
            if option.name in entry.defaults and not option.derived:
                others.setdefault(str(entry.defaults[option.name]), []).append(entry.name)
    return option.default_text + "".join(f", for {', '.join(names)} {text}" for text, names in others.items())


class Settings:
    """What a run is made of: ``Settings(rounds=3, protection="smpc")``.

    Immutable. An attribute is the value that was given, or the default that follows from the others. For a
    derived default and for options of what is chosen, None is as good as not given. Two are equal if all
    their values are.

    Raises :class:`~skinfl.errors.SettingsError` for an unknown name, a value of the wrong type or out of
    its limits, and combinations that what is chosen refuses.
    """

    given: Mapping[str, Any]

    def __init__(self, **given: Any):
        known = options()
        of_choices = {
            option.name for registry in REGISTRIES for entry in registry for option in entry.options
        }
        kept: Dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise SettingsError(f"unknown setting {name!r}: {_nearest_setting(name, known)}")
            if value is not None:
                kept[name] = known[name].check(value)
            elif not (known[name].optional or name in of_choices):
                raise SettingsError(f"{name} needs a value: {known[name].help}")
        self.__dict__["_options"] = known
        self.__dict__["given"] = MappingProxyType(kept)
        self.__dict__["_values"] = {}
        self.__dict__["_choosing"] = []
        self.asdict()
        for _, entry in chosen(self):
            for rule in entry.rules:
                rule(self)
        _check_selection(self)

    def __getattr__(self, name: str) -> Any:
        """Return the value of a setting, given or derived."""
        if name.startswith("_") or name not in self._options:
            hint = "" if name.startswith("_") else f": {_nearest_setting(name, self._options)}"
            raise AttributeError(f"there is no setting {name!r}{hint}")
        if name in self._values:
            return self._values[name]
        value = self._effective(name)
        if not self._choosing:
            self._values[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are immutable: use settings.replace({name}=...)")

    def _effective(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        default = self._options[name].default
        if any(registry.kind == name for registry in REGISTRIES):
            # what a choice follows from cannot follow from that choice in turn
            self._choosing.append(name)
            try:
                return default(self) if callable(default) else default
            finally:
                self._choosing.pop()
        for registry in reversed(REGISTRIES):
            if registry.kind not in self._choosing:
                for entry in registry.chosen(getattr(self, registry.kind)):
                    default = self._of_entry(entry, name, default)
        return default(self) if callable(default) else default

    def _of_entry(self, entry: Entry, name: str, default: Any) -> Any:
        """Return what is the default where ``entry`` is chosen."""
        if name not in entry.defaults:
            return default
        own = entry.defaults[name]
        found = own(self) if callable(own) else own
        return default if found is AS_IT_IS else found

    def asdict(self) -> Dict[str, Any]:
        """Return the values of all settings by name, given and derived; tuples as lists, as JSON has them."""
        values = {name: getattr(self, name) for name in self._options}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def replace(self, **changes: Any) -> Settings:
        """Return settings with some values changed or, by None, not given; what follows is derived anew."""
        merged = {**self.given, **changes}
        return Settings(**{n: v for n, v in merged.items() if v is not None or n not in self._options})

    def __eq__(self, other: object) -> bool:
        return self.asdict() == other.asdict() if isinstance(other, Settings) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._options))

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    def __dir__(self) -> List[str]:
        return [*super().__dir__(), *self._options]

    def __reduce__(self) -> Tuple[Any, ...]:
        return from_mapping, (dict(self.given),)


def _check_selection(settings: Settings) -> None:
    """Refuse a choice between rounds by images that there are none of, and patience without a choice."""
    if settings.select != "last" and settings.personal != "none":
        raise SettingsError(
            f"select = {settings.select} may keep an earlier round's model, and hospitals hold what is "
            f"personal as of the last round only: give select = last with personal = {settings.personal}"
        )
    if settings.select != "last" and not settings.validation_fraction:
        raise SettingsError(
            f"select = {settings.select} chooses by validation images, of which there are none: give a "
            "validation_fraction above 0, or select = last"
        )
    if settings.patience and settings.select == "last":
        raise SettingsError(
            "patience waits for a better round, and select = last compares none: give patience = 0, or a "
            "validation_fraction above 0 and another select, without personal models"
        )


def from_mapping(values: Mapping[str, Any]) -> Settings:
    """Build settings from a mapping, refusing unknown keys with the nearest valid name."""
    return Settings(**dict(values))


def read_toml(path: Path) -> Dict[str, Any]:
    """Return what a TOML file gives, checked.

    Raises :class:`~skinfl.errors.SettingsError` that names the file and what to do about it.
    """
    values = parse_toml(path)
    for name, value in values.items():
        if isinstance(value, dict):
            raise SettingsError(f"{path}: settings stand without a heading: leave out [{name}]")
    try:
        from_mapping(values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return values


def parse_toml(path: Path) -> Dict[str, Any]:
    """Return what stands in a TOML file, unchecked; a byte order mark, as Windows writes it, is skipped."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
            raise SettingsError(f"{path} is saved as UTF-16: save it as UTF-8")
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line} is not UTF-8: save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}; {_toml_hint(text)}") from None


def _toml_hint(text: str) -> str:
    if any(quote in text for quote in "“”„‘’"):
        return "put texts between straight quotes"
    if "\\" in text:
        return "double each backslash, or put the path between single quotes"
    return 'write each setting on a line of its own, as in: protection = "smpc"'


def to_toml(settings: Settings) -> str:
    """Return what was given as TOML, and as comments what followed from it."""
    lines = [f"{name} = {_toml(value)}" for name, value in settings.given.items()]
    derived = [
        f"# {name} = {_toml(getattr(settings, name))}"
        for name in settings.asdict()
        if name not in settings.given and getattr(settings, name) is not None
    ]
    return "\n".join([*lines, "", "# not given, and what it came to:", *derived]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for this one
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _nearest_setting(name: str, known: Mapping[str, Option]) -> str:
    if name in ("out", "resume", "config"):
        return f"--{name} stands on the command line only"
    hint = nearest(name.replace("-", "_").lower(), known)
    return hint if hint.startswith("did") else "skinfl train --help lists all"


def bound_to_rounds(settings: Settings) -> str:
    """Return what was chosen that goes by the number of rounds, e.g. a cosine; empty where nothing does."""
    found = (f"{registry.kind} = {e.name}" for registry, e in chosen(settings) if "rounds" in e.uses)
    return next(found, "")


def chosen(settings: Settings) -> Iterator[Tuple[Registry, Entry]]:
    """Yield each registry with the entries that the settings choose of it."""
    for registry in REGISTRIES:
        for entry in registry.chosen(getattr(settings, registry.kind)):
            yield registry, entry
