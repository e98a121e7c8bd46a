"""Hospitals to attack, and what they really contributed."""

from __future__ import annotations

import pytest


@pytest.fixture
def contributions(monkeypatch):
    from hostile_coordinator import Contributions

    return Contributions(monkeypatch)


@pytest.fixture
def hospitals(tmp_path):
    """Three that contribute to sums of two, so that a deeper defence is tried than that minimum."""
    from hostile_coordinator import hospitals_in

    return hospitals_in(tmp_path, minimum_others=1)


@pytest.fixture
def four_hospitals(tmp_path):
    """Four that are set up as they come."""
    from hostile_coordinator import FOUR, hospitals_in

    return hospitals_in(tmp_path, FOUR)
