"""Hospitals to attack, and what they really contributed."""

from __future__ import annotations

import pytest


@pytest.fixture
def contributions(monkeypatch):
    from hostile_coordinator import Contributions

    return Contributions(monkeypatch)


@pytest.fixture
def hospitals(tmp_path):
    from hostile_coordinator import hospitals_in

    return hospitals_in(tmp_path)


@pytest.fixture
def four_hospitals(tmp_path):
    from hostile_coordinator import FOUR, hospitals_in

    return hospitals_in(tmp_path, FOUR)
