"""Promises that are broken today: what every test of this folder has in common.

Each test marked with :func:`broken` carries out one attack on the real code and fails because the attack
works. It is a strict expected failure, so the suite says at once when the attack is refused: **when such
a test passes, the promise holds; remove its mark** (and only that), so that it stays kept.

Only :class:`AttackSucceeded` is an expected failure. A typo, a missing fixture, an attack that cannot be
carried out because a name has moved: all of these are other errors and fail the test for real. What an
attack presupposes is asserted with plain ``assert``, or in fixtures that carry out the honest protocol
with the attacker's own tools.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

import skinfl
from skinfl.errors import SkinflError

_PACKAGE = Path(skinfl.__file__).resolve().parent
_TESTS = Path(__file__).resolve().parent.parent

#: reasons of a refusal that say no more than that the attacker's messages are of another release
_OUTDATED = (
    "lacks fields or has strange ones",
    "lacks parts or has strange ones",
    "is not a map of exactly the fields",
    "is unknown here",
    "it speaks version",
    "has not joined run",
    "has not been given the other hospitals' keys",
    "it is not a message of skinfl",
)


class AttackSucceeded(AssertionError):
    """The attacker got what it must not get, or broke what it must not break."""


def broken(promise: str):
    """Mark a test as an expected failure: ``promise`` is what the package does not keep today."""
    return pytest.mark.xfail(strict=True, raises=AttackSucceeded, reason=promise)


def succeeded_if(success: bool, loot: str) -> None:
    """Raise :class:`AttackSucceeded` where the attack worked; ``loot`` says what was won."""
    if success:
        raise AttackSucceeded(loot)


@contextmanager
def may_be_refused() -> Iterator[None]:
    """Let an error of the package's own kind end the attack: that is what should happen.

    A refusal that only shows that the attack speaks an outdated protocol is no defence: it fails the test.
    """
    try:
        yield
    except SkinflError as error:
        if any(reason in str(error) for reason in _OUTDATED):
            raise RuntimeError(f"the attack was not carried out, adapt it: {error}") from error


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """See that the attack is refused, for this reason (a regular expression) and no other."""
    with pytest.raises(SkinflError) as found:
        yield
    if any(outdated in str(found.value) for outdated in _OUTDATED):
        raise RuntimeError(f"the attack was not carried out, adapt it: {found.value}")
    assert found.match(reason)


@contextmanager
def must_not_end(what: str) -> Iterator[None]:
    """Make an error of the package, or below it, the attack's success; a test's own mistakes stay errors."""
    try:
        yield
    except Exception as error:
        frames = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
        places = [folder for file in frames for folder in (_PACKAGE, _TESTS) if folder in file.parents]
        if places[-1] != _PACKAGE:
            raise
        raise AttackSucceeded(f"{what} ended: {type(error).__name__}: {error}") from error


def reveals(found: np.ndarray, secret: np.ndarray) -> bool:
    """Return whether ``found`` is ``secret`` to within a hundredth of its largest value."""
    assert found.shape == secret.shape
    largest = np.abs(secret).max()
    assert largest > 1e-5, "nothing worth stealing: choose another secret"
    return bool(np.abs(found - secret).max() <= 0.01 * largest)
