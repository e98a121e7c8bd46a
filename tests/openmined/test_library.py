"""What needs no library of OpenMined's."""

from __future__ import annotations

import pytest

from skinfl.errors import ProtectionError, SettingsError
from skinfl.openmined.library import LibraryProtection


class NoLibrary(LibraryProtection):
    name = "none"
    library = "none"

    def set_up(self, parties):
        raise AssertionError("a check starts nothing")


def test_a_precision_that_could_overflow_is_refused_before_the_library_starts():
    NoLibrary(precision=16).check(5)
    with pytest.raises(ProtectionError, match="could overflow"):
        NoLibrary(precision=52, clip=1e6).check(5)


@pytest.mark.parametrize("parties", [1, 0, True, 1001, "north"])
def test_an_impossible_number_of_parties_is_refused(parties):
    with pytest.raises(SettingsError, match="give 2 to 1000, or 'hospitals'"):
        NoLibrary(parties=parties)
