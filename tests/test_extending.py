"""docs/extending.md is run: each example is one file of its own, short, and touches no other file."""

from __future__ import annotations

import re

import numpy as np
import pytest
from comparison import built, protections, settings_of
from protection_helpers import hold_to_bound, vectors
from samples import ROOT

from skinfl import plugins
from skinfl.assembly import assemble, load_federated_data
from skinfl.catalogue import REGISTRIES
from skinfl.data import all_readers, load, readers

TOY = {"data": "toy", "hospitals": 3, "partition": "iid", "image_size": 12, "rounds": 2, "local_epochs": 1}
#: by heading: the kind of thing, its name in the example, and what else to set for a run
SECTIONS = {
    "A new strategy": ("strategy", "onevote", {}),
    "A new protection": ("protection", "fewerbits", {}),
    "A new network": ("model", "perceptron", {"hidden": 8}),
    "A new update transform": ("transforms", "random-mask", {"share": 0.5}),
}


def example(heading: str) -> str:
    """Return the first Python block below a heading."""
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


@pytest.fixture
def forgotten(monkeypatch):
    """Take out of the registries what a test put into them."""
    before = {registry: registry.names for registry in REGISTRIES}
    monkeypatch.setattr(plugins, "_loaded", {})
    yield
    for registry, names in before.items():
        for name in set(registry.names) - set(names):
            registry.unregister(name)


@pytest.mark.parametrize("heading", [*SECTIONS, "A new data set"])
def test_an_example_is_short_and_starts_with_a_docstring(heading):
    lines = example(heading).splitlines()
    assert len(lines) < 40 and lines[0].startswith('"""')


@pytest.mark.parametrize("heading", SECTIONS)
@pytest.mark.parametrize("choice", protections(all_variants=False))
def test_an_example_trains(toy, tmp_path, forgotten, heading, choice):
    file = tmp_path / "example.py"
    file.write_text(example(heading), "utf-8")
    plugins.load(str(file))
    kind, name, options = SECTIONS[heading]
    if kind == "protection":
        choice = (name, {})
    settings = settings_of(choice, **{**TOY, kind: name, **options})
    assembly = assemble(settings, load_federated_data(settings))
    start = assembly.federation.state.server.model.copy()
    for _ in assembly.federation.run():
        pass
    state = assembly.federation.state
    assert [len(record.trained) for record in state.records] == [3, 3]
    assert not np.array_equal(state.server.model, start) and np.isfinite(state.server.model).all()


def test_the_example_of_a_reader_reads(tmp_path, monkeypatch):
    from PIL import Image

    file = tmp_path / "clinic_reader.py"
    file.write_text(example("A new data set"), "utf-8")
    all_readers()
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))
    plugins.load(str(file))
    folder = tmp_path / "export"
    folder.mkdir()
    for i in range(8):
        name = f"p{i // 4}_l{i // 2}_{i}_{'malignant' if i % 2 else 'benign'}.png"
        Image.fromarray(np.full((20, 20, 3), 20 * i, np.uint8)).save(str(folder / name))
    dataset = load(folder, image_size=16, cache_dir=tmp_path / "cache")
    assert dataset.name == "clinic" and len(dataset) == 8
    assert [c.malignant for c in dataset.class_info] == [False, True]
    assert len(set(dataset.patient_ids)) == 2


def test_the_example_of_a_protection_keeps_to_the_bound_it_declares(tmp_path, forgotten):
    file = tmp_path / "example.py"
    file.write_text(example("A new protection"), "utf-8")
    plugins.load(str(file))
    hold_to_bound(built(("fewerbits", {})), vectors(3))
