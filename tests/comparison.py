"""What is compared with what: everything that is registered, in each of its variants.

Nothing here names a protection, strategy or network. ``SKINFL_PLUGINS=mine.py python -m pytest`` compares
what a file of one's own registers, too.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np
import pytest

from skinfl.errors import SkinflError
from skinfl.federation.strategies import STRATEGIES
from skinfl.protection import PROTECTIONS
from skinfl.protection.base import Protection
from skinfl.protection.build import protection_of
from skinfl.protection.fixedpoint import DEFAULT_PRECISION
from skinfl.registry import Entry, Lazy, resolve
from skinfl.settings import Settings

Options = Dict[str, Any]

#: How much further than one opened sum a model may be off after two rounds: largest where FedAdam divides by
#: small second moments, 9.1e-7 measured, 9.7e-7 with clipping, where a sum of three is off by 3.6e-7 at most;
#: with PySyft's 16 bits, cut towards zero, 1.4e-4 where it is 4.6e-5. The other strategies measured 2.3e-7
#: (FedNova) to 5.9e-7 (FedAvgM).
TWO_ROUNDS = 3.0


def gentle(strategy: str) -> Options:
    """Return options with which models after two rounds may be held to :data:`TWO_ROUNDS`.

    An adaptive strategy without momentum takes a first step ``server_lr / tau`` times a tiny mean change, and
    as many times what a sum is off by; its second round starts from models that are that far apart. Here it
    steps as far as such a change.
    """
    settings = Settings(strategy=strategy)
    adaptive = "tau" in {option.name for option in STRATEGIES[strategy].options}
    return {"tau": settings.server_lr} if adaptive and settings.beta1 == 0 else {}


def missing(entry: Entry) -> Optional[str]:
    """Return why something that is registered cannot be used here, or None."""
    return _unloadable(entry.build)


@lru_cache(maxsize=None)  # a failing import is tried anew each time, and takes long
def _unloadable(build: Lazy) -> Optional[str]:
    try:
        resolve(build)
    except (SkinflError, ImportError) as error:
        return str(error)
    return None


def variants(entry: Entry) -> List[Options]:
    """Return options to compare a protection with: as few as show all that it can be.

    Every choice of every option that the protection accepts is in one of them at least. A choice that needs
    another beside it, such as a number of bits that one scheme alone has, gets that one; no more is given.
    """
    options = [option for option in entry.options if option.choices]
    if not options or missing(entry):
        return [{}]
    single = [{option.name: choice} for option in options for choice in option.choices]
    pairs = [{**a, **b} for a, b in itertools.combinations(single, 2) if not set(a) & set(b)]
    found: List[Options] = []
    seen: Set[Tuple[str, Any]] = set()
    for given in [{}, *single, *pairs]:
        if given and set(given.items()) <= seen:
            continue
        try:
            settings = Settings(protection=entry.name, **given)
            protection_of(settings).check(3)
        except SkinflError:
            continue
        seen |= {(option.name, getattr(settings, option.name)) for option in options}
        found.append(given)
    return found


def protections(*, all_variants: bool = True, but: Sequence[str] = ()) -> List[Any]:
    """Return a parameter ``(name, options)`` for each protection, in all variants or with defaults only."""
    return [
        pytest.param((entry.name, options), id="-".join([entry.name, *map(str, options.values())]))
        for entry in PROTECTIONS
        if entry.name not in but
        for options in (variants(entry) if all_variants else [{}])
    ]


def settings_of(choice: Tuple[str, Options], **changes: Any) -> Settings:
    """Return settings with a protection, or skip where its library is not there."""
    name, options = choice
    reason = missing(PROTECTIONS[name])
    if reason:
        pytest.skip(reason)
    return Settings(**{**changes, "protection": name, **options})


def built(choice: Tuple[str, Options], **changes: Any) -> Protection:
    """Return a protection, or skip where its library is not there."""
    return protection_of(settings_of(choice, **changes), simulation_seed=0)


def usable() -> Iterator[Protection]:
    """Yield all protections whose libraries are there, with their defaults."""
    return (built((entry.name, {})) for entry in PROTECTIONS if not missing(entry))


def grid_of(protection: Any, hospitals: int) -> Optional[Tuple[Any, ...]]:
    """Return precision, clip and rounding where values are put on a fixed-point grid, else None."""
    described = protection.describe()
    try:
        precision = protection.precision_for(hospitals)
    except (AttributeError, SkinflError):
        precision = described.get("precision")
    return None if precision is None else (precision, described["clip"], described["rounding"])


def on_grid(hospitals: int, **options: Any) -> Iterator[Protection]:
    """Yield what puts so many hospitals' values on the grid that ``options`` ask for, in all its variants.

    All of them must open the same sum, bit for bit.
    """
    wanted = (options.get("precision", DEFAULT_PRECISION), options.get("rounding", "nearest"))
    for parameter in protections():
        name, variant = parameter.values[0]
        if missing(PROTECTIONS[name]) or set(variant) & set(options):
            continue
        try:
            protection = built((name, {**variant, **options}))
            protection.check(hospitals)
        except SkinflError:  # it has no such precision or rounding, or no room
            continue
        grid = grid_of(protection, hospitals)
        if grid is not None and (grid[0], grid[2]) == wanted:
            yield protection


def assert_close(
    protection: Protection,
    found: np.ndarray,
    plain: np.ndarray,
    vectors: Sequence[np.ndarray],
    times: float = 1.0,
) -> None:
    """Hold what came of a protection's sum of ``vectors`` to its bound, ``times`` as far off at most."""
    largest = max(float(np.abs(vector).max()) for vector in vectors)
    bound = times * protection.error_bound(len(vectors), largest)
    off = float(np.abs(found - plain).max())
    assert off <= bound, f"{protection.name} is off by {off:.3g}, {bound:.3g} at most"
