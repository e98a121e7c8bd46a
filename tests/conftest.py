"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with the real HAM10000 and ISIC2019 tables, or skip."""
    folder = Path(os.environ.get("SKINFL_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip(f"no real data in {folder}: set SKINFL_DATA to the folder that holds it")
    return folder
