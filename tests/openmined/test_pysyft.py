"""Hospitals on PySyft 0.2.9: they behave as the package's own workers do, and train the same bits."""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from skinfl.assembly import assemble, load_federated_data
from skinfl.data.dataset import LesionDataset
from skinfl.data.features import FeatureDataset
from skinfl.data.rows import ImageRows
from skinfl.errors import DataAccessError, SettingsError
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.smpc.protection import Smpc
from skinfl.settings import Settings
from skinfl.workers import build_network

try:
    from skinfl.openmined.hook import add_worker, forget_worker, torch_hook
    from skinfl.openmined.parties import PySyftAdditiveParty
except SettingsError as error:
    pytest.skip(str(error), allow_module_level=True)

from syft.messaging.message import ObjectMessage, ObjectRequestMessage, TensorCommandMessage


@pytest.fixture
def held():
    images = np.arange(3 * 2 * 2).reshape(3, 2, 2, 1)
    return LesionDataset(
        "toy",
        images,
        [0, 1, 1],
        ("a", "b"),
        ["x", "y", "z"],
        ["1", "2", "3"],
        ["n", "s", "n"],
        synthetic=True,
    )


@pytest.fixture
def network(held):
    network = build_network("auto")
    for name in ("one", "two"):
        worker = network.worker(name)
        worker.load(held, tags=("#toy", "#train"), description=f"at {name}")
        worker.install(
            {"count": lambda dataset, extra=0: len(dataset) + extra, "show": lambda dataset: dataset}
        )
    network.worker("two").load(held.subset([0]), tags=("#toy", "#test"), description="held out")
    return network


def test_search_finds_by_all_tags(network):
    assert network.description == "pysyft 0.2.9"
    assert set(network.search("#toy")) == {"one", "two"}
    assert [p.tags for p in network.search("#toy")["two"]] == [("#toy", "#train"), ("#toy", "#test")]
    assert set(network.search("#toy", "#test")) == {"two"}
    assert network.search("#other") == {}
    # PySyft itself would take this for a search of #train alone.
    assert network.search("#other", "#train") == {}
    (pointer,) = network.search("#toy", "#test")["two"]
    assert (pointer.location, pointer.tags, pointer.description) == ("two", ("#toy", "#test"), "held out")


def test_images_and_labels_lie_tagged_and_described_at_the_worker(network, held):
    (pointer,) = network.search("#train")["one"]
    worker = network.worker("one").syft_worker
    assert pointer.images.location is worker and pointer.labels.location is worker
    assert pointer.images.tags == {"#toy", "#train", "#images"}
    assert pointer.labels.tags == {"#toy", "#train", "#labels"}
    assert pointer.images.description == "at one"
    assert tuple(pointer.images.shape) == held.images.shape
    assert np.array_equal(worker.object_store.get_obj(pointer.images.id_at_location).numpy(), held.images)


def test_operations_get_the_data_set_as_it_was_loaded(network, held):
    (pointer,) = network.search("#train")["one"]
    assert pointer.ask("count") == 3
    assert pointer.ask("count", 4) == 7
    seen = pointer.ask("show")
    assert (seen.name, seen.classes, seen.synthetic) == (held.name, held.classes, True)
    assert seen.images.dtype == np.uint8 and np.array_equal(seen.images, held.images)
    for column in ("labels", "lesion_ids", "image_ids", "sites", "sexes"):
        assert list(getattr(seen, column)) == list(getattr(held, column))
    worker = network.worker("one").syft_worker
    address = worker.object_store.get_obj(pointer.images.id_at_location).data_ptr()
    assert seen.images.ctypes.data == address, "the operation worked on a copy, not where the data is"


def test_features_in_several_views_are_drawn_as_they_are_elsewhere():
    """As a frozen trunk gives them; rows of a larger array arrive as what they are."""
    views = [np.full((4, 1, 1, 5), view, np.float16) + np.arange(5, dtype=np.float16) for view in range(3)]
    some = LesionDataset(
        "toy", np.zeros((4, 2, 2, 1), np.uint8), [0, 1, 1, 0], ("a", "b"), list("wxyz"), list("1234")
    )
    features = FeatureDataset(some, views).subset([3, 0, 2])
    worker = build_network("pysyft").worker("one")
    worker.install({"show": lambda dataset: dataset})
    seen = worker.load(features, tags=("#toy",), description="").ask("show")
    rows = np.array([2, 0, 1, 1, 0, 2])
    drawn = [data.drawn(rows, np.random.default_rng(5)) for data in (features, seen)]
    assert drawn[1].dtype == np.float16 and np.array_equal(*drawn)
    assert len(np.unique(drawn[0][..., 0])) > 1, "one view only was drawn"
    assert np.array_equal(seen.images, views[0][[3, 0, 2]]) and list(seen.image_ids) == ["4", "1", "3"]
    assert len(worker.search("#toy")) == 1

    rows = some.subset([2, 0])
    seen = worker.load(rows, tags=("#rows",), description="").ask("show")
    assert isinstance(rows.images, ImageRows) and np.array_equal(seen.images, rows.images)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda pointer, other: pointer.get(),
        lambda pointer, other: pointer.images.get(),
        lambda pointer, other: pointer.labels.get(),
        lambda pointer, other: pointer.images.copy().get(),
        lambda pointer, other: (pointer.images + 1).get(),
        lambda pointer, other: pointer.images.sum(),
        lambda pointer, other: pointer.images.move(other),
    ],
)
def test_no_message_of_pysyft_fetches_data(network, caplog, attempt):
    (pointer,) = network.search("#train")["one"]
    with caplog.at_level(logging.WARNING), pytest.raises(DataAccessError, match=r"^one refused"):
        attempt(pointer, network.worker("two").syft_worker)
    assert "data does not leave its hospital" in network.worker("one").refusals[0]
    assert "refused" in caplog.text
    assert network.worker("two").refusals == ()


def test_an_operation_that_was_not_installed_is_refused(network):
    (pointer,) = network.search("#train")["one"]
    with pytest.raises(DataAccessError, match="did you mean 'count'"):
        pointer.ask("counts")
    assert len(network.worker("one").refusals) == 1
    assert "#train" in repr(pointer) and "one" in repr(network.worker("one"))


def test_a_second_network_shares_nothing_with_the_first_and_both_are_forgotten(network, held):
    other = build_network("pysyft")
    assert other.worker("one").search("#toy") == []
    ids = {w.worker(name).syft_worker.id for w in (network, other) for name in ("one", "two")}
    assert len(ids) == 4
    other.worker("one").load(held, tags=("#toy",), description="")
    del other
    gc.collect()
    known = set(torch_hook().local_worker._known_workers)
    assert known >= {network.worker("one").syft_worker.id} and len(known & ids) == 2


def trained(settings):
    assembly = assemble(settings, load_federated_data(settings))
    for _ in assembly.federation.run():
        pass
    return assembly.federation.state.server.model, assembly.workers


@pytest.mark.parametrize(
    ("strategy", "protection"), [("fedavg", "plaintext"), ("scaffold", "plaintext"), ("fedavg", "smpc")]
)
def test_training_on_pysyft_workers_equals_local_training_bit_for_bit(toy, monkeypatch, strategy, protection):
    sums = Counter()
    add = PySyftAdditiveParty.add
    monkeypatch.setattr(
        PySyftAdditiveParty, "add", lambda party, *rest: (sums.update([party.name]), add(party, *rest))[1]
    )
    small = {"data": "toy", "hospitals": 3, "partition": "iid", "rounds": 2, "batch_size": 16}
    settings = Settings(image_size=12, local_epochs=1, momentum=0.0, strategy=strategy, **small)
    settings = settings.replace(protection=protection)
    local, _ = trained(settings.replace(workers="virtual"))
    remote, workers = trained(settings.replace(workers="pysyft"))
    assert workers == "pysyft 0.2.9"
    assert np.array_equal(local, remote)
    # the statistics, two rounds and what the hospitals' validation images say of the last, each added up at
    # three parties' workers
    assert sorted(sums.values()) == ([4, 4, 4] if protection == "smpc" else [])


def test_pysyfts_own_remote_training_equals_local_training_bit_for_bit():
    """Each operation is a message to a plain worker that holds images, labels and network."""

    def network():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )

    def train(model, images, labels):
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()

    worker = add_worker("hospital")
    torch.manual_seed(4)
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 3
    local, remote = network(), network()
    train(local, images, labels)
    remote.send(worker)
    train(remote, images.send(worker), labels.send(worker))
    remote.get()
    forget_worker(worker)
    assert all(torch.equal(a, b) for a, b in zip(local.parameters(), remote.parameters()))
    assert torch.equal(local[1].running_var, remote[1].running_var)


def test_the_hook_leaves_plain_tensors_alone():
    torch_hook()
    square = torch.arange(16.0).reshape(4, 4)
    assert square[torch.tensor([1, 2])].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert square[0][torch.tensor([True, False, True, False])].tolist() == [0, 2]
    square[torch.tensor([0, 3])] = -1
    assert square[:, 0].tolist() == [-1, 4, 8, -1]

    random.seed(5)
    expected = random.random()
    random.seed(5)
    for _ in range(3):
        assert torch.ones(2).id != torch.ones(2).id
    assert random.random() == expected

    # 2**24 + 1 needs more than float32's 24 bits: 4096² + 1² summed in float64, as torch does.
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, gradient in zip(parameters, (4096.0, 1.0)):
        parameter.grad = torch.tensor([gradient])
    assert nn.utils.clip_grad_norm_(parameters, 1e9) == (2.0**24 + 1) ** 0.5


@pytest.mark.parametrize("ring", [32, 64])
def test_shares_are_added_at_the_party_workers_and_only_the_sum_is_fetched(ring):
    layout = Layout([Segment("w", 70_000), Segment("n", 2, "count")])
    exchange = Exchange("run", 1, layout)
    rng = np.random.default_rng(1)
    vectors = {name: rng.normal(size=layout.size) for name in ("a", "b", "c")}
    roles = Smpc(ring=ring).setup(tuple(vectors))
    parties = build_network("pysyft").host(roles.aggregators)
    assert set(parties) == set(roles.aggregators)
    for name, vector in vectors.items():
        for party, message in roles.hospitals[name].protect(vector, exchange).messages.items():
            parties[party].syft_worker.log_msgs = True
            assert parties[party].receive(message, exchange) == name
    shares = {p: set(side.syft_worker.object_store._objects) for p, side in parties.items()}
    combined = {p: side.combine(tuple(vectors), exchange) for p, side in parties.items()}
    for party, side in parties.items():
        history = side.syft_worker.msg_history
        assert len([m for m in history if isinstance(m, ObjectMessage)]) == len(shares[party]) == 3
        assert len([m for m in history if isinstance(m, TensorCommandMessage)]) == 2
        (fetch,) = [m for m in history if isinstance(m, ObjectRequestMessage)]
        assert fetch.object_id not in shares[party]
        gc.collect()
        assert side.syft_worker.objects_count() == 0, "shares stayed behind"
    opened = roles.opener.open(combined, exchange)
    assert opened.senders == ("a", "b", "c")
    assert np.abs(opened.total - sum(vectors.values())).max() < 3 * 2.0**-22


def test_parties_that_add_no_additive_shares_stay_where_they_are():
    roles = Smpc(scheme="shamir").setup(("a", "b", "c"))
    assert build_network("pysyft").host(roles.aggregators) == roles.aggregators
