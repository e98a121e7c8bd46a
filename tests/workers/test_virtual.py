from __future__ import annotations

import logging

import numpy as np
import pytest

from skinfl.data.dataset import LesionDataset
from skinfl.errors import DataAccessError, SettingsError
from skinfl.workers import build_network
from skinfl.workers.virtual import VirtualNetwork


@pytest.fixture
def held():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    return LesionDataset("toy", images, [0, 1, 1], ("a", "b"), ["x", "y", "z"], ["1", "2", "3"])


@pytest.fixture
def network(held):
    network = VirtualNetwork()
    for name in ("one", "two"):
        worker = network.worker(name)
        worker.load(held, tags=("#toy", "#train"), description=f"at {name}")
        worker.install({"count": lambda dataset, extra=0: len(dataset) + extra})
    network.worker("two").load(held.subset([0]), tags=("#toy", "#test"), description="held out")
    return network


def test_search_finds_by_all_tags(network):
    assert set(network.search("#toy")) == {"one", "two"}
    assert len(network.search("#toy")["two"]) == 2
    assert set(network.search("#toy", "#test")) == {"two"}
    assert network.search("#other") == {}
    (pointer,) = network.search("#toy", "#test")["two"]
    assert (pointer.location, pointer.tags, pointer.description) == ("two", ("#toy", "#test"), "held out")


def test_operations_run_where_the_data_is(network):
    (pointer,) = network.search("#train")["one"]
    assert pointer.ask("count") == 3
    assert pointer.ask("count", 4) == 7


def test_fetching_raises_and_is_logged(network, caplog):
    (pointer,) = network.search("#train")["one"]
    with caplog.at_level(logging.WARNING), pytest.raises(DataAccessError, match="one refused fetch"):
        pointer.get()
    assert "data does not leave its hospital" in network.worker("one").refusals[0]
    assert "refused fetch" in caplog.text
    assert network.worker("two").refusals == ()


def test_an_operation_that_was_not_installed_is_refused(network):
    (pointer,) = network.search("#train")["one"]
    with pytest.raises(DataAccessError, match="did you mean 'count'"):
        pointer.ask("counts")
    assert len(network.worker("one").refusals) == 1


def test_a_pointer_holds_no_data(network, held):
    (pointer,) = network.search("#train")["one"]
    assert not any(isinstance(value, LesionDataset) for value in vars(pointer).values())
    assert "#train" in repr(pointer)
    assert "one" in repr(network.worker("one"))


def test_workers_are_chosen_by_name():
    assert build_network("virtual").description == "virtual"
    with pytest.raises(SettingsError, match="did you mean 'virtual'"):
        build_network("virtal")
