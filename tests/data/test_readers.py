"""The registry of readers, and one of a clinic's own in a file of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from golden import write_image

from skinfl.data import LesionClass, Reader, Source, all_readers, inspect, load, register
from skinfl.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
#: the reader that docs/extending.md shows
CLINIC = re.search(
    r"## A new data set\n.*?```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.S
).group(1)


@pytest.fixture
def registry(monkeypatch):
    """Take back what a test registers."""
    all_readers()
    kept = dict(sys.modules["skinfl.data.readers"]._READERS)
    monkeypatch.setattr("skinfl.data.readers._READERS", kept)
    return kept


@pytest.fixture
def clinic(registry, tmp_path):
    """A folder of a clinic, and its reader imported from a file elsewhere."""
    file = tmp_path / "clinic_reader.py"
    file.write_text(CLINIC)
    spec = importlib.util.spec_from_file_location("clinic_reader", str(file))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for name in ("p1_a_0_benign", "p1_a_1_benign", "p1_b_0_malignant", "p2_a_0_benign"):
        write_image(tmp_path / "export" / f"{name}.png", (10, 20, 30))
    return tmp_path / "export"


def test_a_reader_in_one_file_of_its_own(clinic):
    assert len(CLINIC.strip().splitlines()) < 40
    dataset = load(clinic, image_size=8)
    assert dataset.name == "clinic" and dataset.labels.tolist() == [0, 0, 1, 0]
    assert dataset.lesion_ids.tolist() == ["p1_a", "p1_a", "p1_b", "p2_a"]
    assert dataset.patient_ids.tolist() == ["p1", "p1", "p1", "p2"]
    assert dataset.class_info[1] == LesionClass("malignant", "skin cancer", True)
    assert inspect.known_sources()[-1].name == "clinic"
    findings = inspect.check(clinic)
    assert findings.problems == [] and findings.classes == {"benign": 3, "malignant": 1}


def test_its_complaints_are_collected_and_refused(clinic):
    write_image(clinic / "p3_a_0_unsure.png", (1, 2, 3))
    write_image(clinic / "p4_a_0_other.png", (1, 2, 3))
    write_image(clinic / "._p1_a_0_benign.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"p3_a_0_unsure\.png is not named"):
        load(clinic)
    assert len(inspect.check(clinic).problems) == 2


def test_beside_another_data_set_the_choice_is_said(clinic, ham):
    write_image(ham / "p1_a_0_benign.png", (1, 2, 3))
    said = []
    assert load(ham, progress=lambda *event: said.append(event[2])).name == "ham10000"
    assert said[0].endswith("holds several data sets: ham10000 is read, not clinic")


def test_two_readers_of_one_name_are_refused(registry):
    class Other(Reader):
        source = Source("ham10000", "", "", "")

        def recognise(self, path, metadata=None):
            return ()

    with pytest.raises(
        DataError, match=r"two readers are called 'ham10000': give the source of Other another"
    ):
        register(Other())


def test_the_packages_own_come_in_a_fixed_order_and_describe_themselves():
    found = all_readers()
    assert [reader.source.name for reader in found[:7]] == [
        "isic2019", "ham10000", "isic2018", "pad_ufes_20", "synthetic", "hmnist", "dermamnist",
    ]  # fmt: skip
    assert all(reader.looks_for and reader.source.page and reader.source.what for reader in found[:7])


def test_the_registry_is_there_without_torch_or_pandas(tmp_path):
    program = (
        "import sys; from skinfl.data import all_readers; all_readers();"
        "import skinfl.data.ham10000, skinfl.data.pad_ufes, skinfl.data.images;"
        "assert not {'torch', 'pandas'} & set(sys.modules), 'heavy imports'"
    )
    assert subprocess.call([sys.executable, "-c", program]) == 0
