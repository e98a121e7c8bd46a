"""Nobody waits for what they do not use: modules that must not be loaded, whatever the machine's speed."""

from __future__ import annotations

import sys

import pytest
from loaded_modules import HEAVY, READERS, run_python, run_skinfl

INFERENCE = "skinfl.inference."
#: needed by the side that evaluates, not by the clinic
EVALUATION = {INFERENCE + name for name in ("circuit", "server", "evaluation", "local")}


def unwanted(modules, *kinds):
    return sorted(modules & set().union(*kinds))


@pytest.mark.parametrize(
    "command",
    [
        (),
        *(
            tuple(c.split())
            for c in ("train", "diagnose", "serve", "data check", "predict", "evaluate", "export")
        ),
    ],
)
def test_help_loads_nothing_that_computes(command):
    ended = run_skinfl(*command, "--help")
    assert ended.status == 0 and "Usage" in ended.output
    # numpy is loaded: strategies and partitions declare their options beside their code
    assert unwanted(ended.modules, HEAVY, READERS, EVALUATION, {"tenseal", "PIL"}) == []


def test_a_diagnosis_by_a_server_loads_what_a_clinic_needs():
    pytest.importorskip("httpx")
    ended = run_skinfl("diagnose", "x.png", "--server", "http://127.0.0.1:1")
    assert ended.status == 2 and "cannot be reached" in ended.errors
    assert unwanted(ended.modules, HEAVY, READERS, EVALUATION) == []


@pytest.mark.parametrize("module", ["client", "preprocess", "remote"])
def test_a_clinics_modules_are_light(module):
    ended = run_python(f"import {INFERENCE}clinic.{module}")
    assert unwanted(ended.modules, HEAVY, READERS, EVALUATION) == []


@pytest.mark.parametrize("module", ["server.worker", "circuit.latency", "circuit.batch"])
def test_a_process_that_evaluates_is_light(module):
    assert unwanted(run_python(f"import {INFERENCE}{module}").modules, HEAVY, READERS) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Flower needs Python 3.11")
@pytest.mark.parametrize("module", ["membership", "adding", "site"])
def test_adding_up_shares_is_light(module):
    assert unwanted(run_python(f"import skinfl.flower.hospital.{module}").modules, HEAVY, READERS) == []


def test_a_seed_for_numpy_is_light():
    ended = run_python("from skinfl.seeds import numpy_rng; print(numpy_rng(1, 'x').random() < 1)")
    assert ended.output == "True\n"
    assert unwanted(ended.modules, HEAVY) == []


def test_protections_are_light():
    ended = run_python(
        "from skinfl.protection import build_protection; build_protection('he'); build_protection('smpc')"
    )
    assert unwanted(ended.modules, HEAVY, READERS) == []
