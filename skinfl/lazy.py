"""What a package exports without importing it: each name is loaded when it is first asked for (PEP 562)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Callable, List, Mapping, Tuple

#: what :func:`exports` returns
Hooks = Tuple[Callable[[str], Any], Callable[[], List[str]]]


def exports(package: str, modules: Mapping[str, str]) -> Hooks:
    """Return a package's ``__getattr__`` and ``__dir__``.

    ``modules`` names, by exported name, the module that has it. Type checkers don't see through this: the
    package imports the same names under ``TYPE_CHECKING``.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> List[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return load, names
