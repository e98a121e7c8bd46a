"""What settings are made of: options, and registries of things that are chosen by name.

A strategy, protection, network, optimiser or partition is an :class:`Entry` of its registry: it names what
builds it, and declares beside its own code which options it has, what it changes in others' defaults,
and which combinations it refuses. Settings, flags, help, tables and Flower's configuration are made from
these declarations. Nothing is imported to declare: ``build`` may be named as text, ``"module:attribute"``.
"""

from __future__ import annotations

import importlib
import math
import numbers
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type, Union

from skinfl.errors import SettingsError, check_name, nearest

#: what a callable default of an entry returns where it leaves the default as it is
AS_IT_IS = object()
#: a callable, or where to find it: ``"package.module:attribute"``
Lazy = Union[str, Callable[..., Any]]


@dataclass(frozen=True)
class Option:
    """One setting.

    Parameters
    ----------
    name: as in TOML and Python; its flag has hyphens.
    type: ``int``, ``float``, ``str``, ``bool``, ``Path`` (kept as text, with ``~`` expanded) or ``tuple``
        (of texts).
    default: a value, or a callable that derives it from the other settings. None: what is built decides.
    help: one line, without the default and the limits.
    choices: the only values there are.
    low, high: inclusive limits.
    group: the heading it stands under in help; an entry's options take their registry's.
    derived: says in words where a default of None, or a callable one, comes from.
    parse: returns the value to keep for one that was given, or raises SettingsError; for mixed types.
    flag: whether commands have a flag for it.
    """

    name: str
    type: Type[Any]
    default: Any
    help: str
    choices: Tuple[Any, ...] = ()
    low: Optional[float] = None
    high: Optional[float] = None
    group: str = ""
    derived: str = ""
    parse: Optional[Callable[[Any], Any]] = None
    flag: bool = True

    @property
    def optional(self) -> bool:
        """Whether None may stand for the default."""
        return self.default is None or callable(self.default)

    @property
    def dashed(self) -> str:
        """The name as flags and Flower's configuration write it."""
        return self.name.replace("_", "-")

    @property
    def limits(self) -> str:
        """The limits in words; empty where there are none."""
        found = [(self.low, "at least"), (self.high, "at most")]
        return " and ".join(f"{word} {limit:g}" for limit, word in found if limit is not None)

    @property
    def default_text(self) -> str:
        """The default in words."""
        if self.derived or self.optional:
            return self.derived or "depends on the other settings"
        return str(self.default).lower() if self.type is bool else str(self.default)

    def grouped(self, group: str) -> Option:
        """Return the option under a heading."""
        return replace(self, group=group)

    def check(self, value: Any) -> Any:
        """Return ``value`` as it is kept, or raise :class:`~skinfl.errors.SettingsError`."""
        value = self.parse(value) if self.parse is not None else self._typed(value)
        if self.choices and value not in self.choices:
            valid = ", ".join(map(str, self.choices))
            hint = nearest(value, self.choices) if isinstance(value, str) else f"must be one of {valid}"
            raise SettingsError(f"{self.name} = {value!r}: {hint}")
        too_low = self.low is not None and value < self.low
        if too_low or (self.high is not None and value > self.high):
            raise SettingsError(f"{self.name} = {value!r}: must be {self.limits} ({self.help})")
        return value

    def _typed(self, value: Any) -> Any:
        kind = self.type
        if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)  # numpy's, too, which counters in notebooks often are
        if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
            raise SettingsError(f"{self.name} = {value!r}: must be a finite number ({self.help})")
        if kind is Path and isinstance(value, (str, os.PathLike)):
            return os.path.expanduser(check_name(str(value)))
        if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            return tuple(value)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        names: Dict[Any, str] = {Path: "str", tuple: "list of str"}
        expected = names.get(kind, kind.__name__)
        raise SettingsError(f"{self.name} = {value!r}: expected {expected} ({self.help})")


@dataclass(frozen=True)
class Entry:
    """What can be chosen by name; see :meth:`Registry.register` for the parts."""

    name: str
    summary: str
    build: Lazy
    options: Tuple[Option, ...] = ()
    uses: Tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rules: Tuple[Callable[[Any], None], ...] = ()
    check: Optional[Lazy] = None

    @property
    def builder(self) -> Callable[..., Any]:
        """What :attr:`build` names, imported now."""
        return resolve(self.build)

    @property
    def keywords(self) -> Tuple[str, ...]:
        """The names that the builder takes."""
        return (*(option.name for option in self.options), *self.uses)


class Registry:
    """Things of one kind, chosen by name; the kind is the setting's name as well.

    With ``several`` any number of them is chosen, in an order: the setting lists their names by commas.
    """

    def __init__(
        self, kind: str, *, group: str, help: str, default: Any, derived: str = "", several: bool = False
    ):
        self.kind = kind
        self.group = group
        self.several = several
        self._selector = Option(kind, str, default, help, group=group, derived=derived)
        self._entries: Dict[str, Entry] = {}

    def register(
        self,
        name: str,
        summary: str,
        build: Optional[Lazy] = None,
        *,
        options: Sequence[Option] = (),
        uses: Sequence[str] = (),
        defaults: Optional[Mapping[str, Any]] = None,
        rules: Sequence[Callable[[Any], None]] = (),
        check: Optional[Lazy] = None,
    ) -> Any:
        """Add an entry; without ``build`` this returns a decorator for it.

        Parameters
        ----------
        summary: one line for help and documentation.
        build: called with the entry's ``options`` and what it ``uses``, by keyword.
        options: what only matters where this entry is chosen. Entries may share an option.
        uses: other settings that ``build`` takes, and facts that whoever builds may know, such as a
            strategy's ``unit``; an unknown fact is left out.
        defaults: of other or shared options, where this entry is chosen: a value, or a callable that
            gets the settings and may return :data:`AS_IT_IS`.
        rules: called with the settings as soon as they are made; they raise SettingsError.
        check: called with the settings before any data is read, where more has to be imported or tried.

        Raises :class:`~skinfl.errors.SettingsError` for a name that is taken.
        """
        if build is None:

            def decorate(builder: Any) -> Any:
                self.register(
                    name,
                    summary,
                    builder,
                    options=options,
                    uses=uses,
                    defaults=defaults,
                    rules=rules,
                    check=check,
                )
                return builder

            return decorate
        if name in self._entries:
            raise SettingsError(f"there is a {self.kind} {name!r} already: register yours by another name")
        self._entries[name] = Entry(
            name, summary, build, tuple(options), tuple(uses), dict(defaults or {}), tuple(rules), check
        )
        return build

    def unregister(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[self[name].name]

    @property
    def names(self) -> Tuple[str, ...]:
        """The registered names, in the order of registration."""
        return tuple(self._entries)

    @property
    def selector(self) -> Option:
        """The setting that chooses: its choices are the registered names."""
        if self.several:
            known = f"{self._selector.help}; by commas, of {', '.join(self._entries)}"
            return replace(self._selector, help=known, parse=self._listed)
        return replace(self._selector, choices=tuple(self._entries))

    def chosen(self, value: str) -> Tuple[Entry, ...]:
        """Return the entries that a value of the setting chooses, in its order."""
        return tuple(map(self.__getitem__, names_in(value))) if self.several else (self[value],)

    def _listed(self, value: Any) -> str:
        if not isinstance(value, str):
            raise SettingsError(f"{self.kind} = {value!r}: expected str, names between commas")
        names = [entry.name for entry in self.chosen(value)]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise SettingsError(f"{self.kind} names {repeated!r} twice: name each once")
        return ",".join(names)

    def options(self) -> Iterator[Option]:
        """Yield the selector, then the entries' options, shared ones as often as they are declared."""
        yield self.selector
        for entry in self:
            for option in entry.options:
                yield option if option.group else option.grouped(self.group)

    def build(self, name: str, values: Mapping[str, Any], **facts: Any) -> Any:
        """Return the thing ``name``, built from its options and what it uses in ``values`` and ``facts``."""
        entry = self[name]
        known = {**values, **facts}
        return entry.builder(**{key: known[key] for key in entry.keywords if key in known})

    def __getitem__(self, name: str) -> Entry:
        """Return an entry; an unknown name is answered with the nearest."""
        if name not in self._entries:
            raise SettingsError(f"unknown {self.kind} {name!r}: {nearest(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


def names_in(text: str) -> Tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def resolve(lazy: Lazy) -> Callable[..., Any]:
    """Return a callable, importing it where it is named as text."""
    if not isinstance(lazy, str):
        return lazy
    module, _, attribute = lazy.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
