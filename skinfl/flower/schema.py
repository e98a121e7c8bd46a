"""What a message may hold, written down as values: ``Fields({"round": Whole(1, 10), "sum": Bytes(4096)})``.

Each kind of value reads one: it returns what was received, or raises :class:`Unfit` that names the place.
Nothing is converted but whole numbers to floats where a number is asked for, and text that is only shown.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Set

from skinfl.errors import printable

#: longest text of another's that is shown, in characters
REASON_LIMIT = 500


class Unfit(Exception):
    """A value that is not of its kind: where it stands, and what was expected there."""

    def __init__(self, where: str, expected: str):
        super().__init__(f"{where or 'what it holds'} is not {expected}")


class Kind(ABC):
    """A kind of value."""

    @abstractmethod
    def read(self, value: Any, where: str) -> Any:
        """Return the value; raises :class:`Unfit` for one of another kind."""


class Text(Kind):
    """Printable text of at most ``high`` characters, all of which ``pattern`` matches where it is given."""

    def __init__(self, high: int, pattern: str = "", expected: str = ""):
        self._high = high
        self._pattern = re.compile(pattern or ".*")
        self._expected = expected or f"printable text of at most {high} characters"

    def read(self, value: Any, where: str) -> str:
        """Return the text."""
        fits = isinstance(value, str) and len(value) <= self._high and value.isprintable()
        if not fits or not self._pattern.fullmatch(value):
            raise Unfit(where, self._expected)
        return value


class Reason(Kind):
    """Text that is shown to people and used for nothing else: made one printable line, and cut."""

    def read(self, value: Any, where: str) -> str:
        """Return the text as it may be shown."""
        if not isinstance(value, str):
            raise Unfit(where, "text")
        return printable(value, REASON_LIMIT)


class Choice(Kind):
    """One of a few texts."""

    def __init__(self, *texts: str):
        self._texts = texts

    def read(self, value: Any, where: str) -> str:
        """Return the text."""
        if not isinstance(value, str) or value not in self._texts:
            raise Unfit(where, "one of " + ", ".join(self._texts))
        return value


class Whole(Kind):
    """A whole number from ``low`` to ``high``; true and false are none."""

    def __init__(self, low: int, high: int):
        self._low, self._high = low, high

    def read(self, value: Any, where: str) -> int:
        """Return the number."""
        if type(value) is not int or not self._low <= value <= self._high:
            raise Unfit(where, f"a whole number from {self._low} to {self._high}")
        return value


class Number(Kind):
    """A finite number from ``low`` to ``high``, whole or not; true and false are none."""

    def __init__(self, low: float = -math.inf, high: float = math.inf):
        self._low, self._high = low, high

    def read(self, value: Any, where: str) -> float:
        """Return the number as a float."""
        if type(value) not in (int, float) or not math.isfinite(value):
            raise Unfit(where, "a finite number")
        if not self._low <= value <= self._high:
            raise Unfit(where, f"a number from {self._low:g} to {self._high:g}")
        return float(value)


class Bool(Kind):
    """True or false."""

    def read(self, value: Any, where: str) -> bool:
        """Return it."""
        if not isinstance(value, bool):
            raise Unfit(where, "true or false")
        return value


class Bytes(Kind):
    """At most ``high`` bytes; with ``lengths`` exactly so many, or one of so many."""

    def __init__(self, high: int, lengths: Sequence[int] = ()):
        self._high, self._lengths = high, tuple(lengths)

    def read(self, value: Any, where: str) -> bytes:
        """Return the bytes."""
        if not isinstance(value, bytes) or len(value) > self._high:
            raise Unfit(where, f"at most {self._high} bytes")
        if self._lengths and len(value) not in self._lengths:
            raise Unfit(where, " or ".join(map(str, self._lengths)) + " bytes")
        return value


class ListOf(Kind):
    """A list of ``low`` to ``high`` values of one kind; ``distinct``: none of them twice."""

    def __init__(self, inner: Kind, high: int, low: int = 0, *, distinct: bool = False):
        self._inner, self._low, self._high, self._distinct = inner, low, high, distinct

    def read(self, value: Any, where: str) -> list:
        """Return the list."""
        if not isinstance(value, list) or not self._low <= len(value) <= self._high:
            raise Unfit(where, f"a list of {self._low} to {self._high} values")
        found = [self._inner.read(each, f"{where}[{i}]") for i, each in enumerate(value)]
        if self._distinct and len(set(found)) != len(found):
            raise Unfit(where, "a list of different values")
        return found


class MapOf(Kind):
    """A map of at most ``high`` entries, whose names are of one kind and whose values of another."""

    def __init__(self, key: Kind, inner: Kind, high: int):
        self._key, self._inner, self._high = key, inner, high

    def read(self, value: Any, where: str) -> dict:
        """Return the map."""
        if not isinstance(value, dict) or len(value) > self._high:
            raise Unfit(where, f"a map of at most {self._high} entries")
        found = {}
        for name, each in value.items():
            key = self._key.read(name, f"a name in {where}")
            found[key] = self._inner.read(each, f"{where}.{key}")
        return found


class Fields(Kind):
    """A map of exactly these fields; those named in ``optional`` may be missing.

    ``rule`` says of the whole what else must hold: it returns what was expected where it does not.
    """

    def __init__(
        self,
        fields: Mapping[str, Kind],
        optional: Sequence[str] = (),
        rule: Callable[[Dict[str, Any]], Optional[str]] = lambda found: None,
    ):
        self._fields = dict(fields)
        self._needed: Set[str] = set(fields) - set(optional)
        self._rule = rule

    def read(self, value: Any, where: str) -> Dict[str, Any]:
        """Return the map."""
        if not isinstance(value, dict) or not self._needed <= set(value) <= set(self._fields):
            raise Unfit(where, "a map of exactly the fields " + ", ".join(self._fields))
        inside = f"{where}." if where else ""
        found = {name: self._fields[name].read(value[name], inside + name) for name in value}
        expected = self._rule(found)
        if expected:
            raise Unfit(where, expected)
        return found


class Maybe(Kind):
    """A value, or None."""

    def __init__(self, inner: Kind):
        self._inner = inner

    def read(self, value: Any, where: str) -> Any:
        """Return it."""
        return None if value is None else self._inner.read(value, where)


class OrEmpty(Kind):
    """A map, or an empty one."""

    def __init__(self, inner: Kind):
        self._inner = inner

    def read(self, value: Any, where: str) -> dict:
        """Return it."""
        return {} if isinstance(value, dict) and not value else self._inner.read(value, where)


class OneOf(Kind):
    """A value of the first kind that takes it; ``expected`` says what they are."""

    def __init__(self, expected: str, *kinds: Kind):
        self._expected, self._kinds = expected, kinds

    def read(self, value: Any, where: str) -> Any:
        """Return it."""
        for kind in self._kinds:
            try:
                return kind.read(value, where)
            except Unfit:
                continue
        raise Unfit(where, self._expected)
