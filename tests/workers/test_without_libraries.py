"""What a user reads who asks for a library that is not installed."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version

import pytest

import skinfl.openmined  # noqa: F401 - registers what needs the libraries
from skinfl.errors import SettingsError
from skinfl.workers import build_network


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@pytest.mark.skipif(installed("syft") == "0.2.9", reason="PySyft 0.2.9 is installed")
def test_without_pysyft_the_error_names_its_environment_and_auto_does_without():
    with pytest.raises(SettingsError, match=r"environment\.yml.*workers 'virtual'"):
        build_network("pysyft")
    assert build_network("auto").description == "virtual"


@pytest.mark.skipif(importlib.util.find_spec("sympc") is not None, reason="SyMPC is installed")
def test_without_sympc_the_error_names_its_environment():
    with pytest.raises(SettingsError, match=r"environment-sympc\.yml.*docs/environments\.md"):
        importlib.import_module("skinfl.openmined.sympc_sharing")
