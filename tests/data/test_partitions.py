"""Who holds what: whole lesions, wanted shares, and refusals that name the hospital."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinfl.data.partitions import PAPER_SHARES, PARTITIONS, _cut, partition
from skinfl.data.splits import train_test_split
from skinfl.errors import DataError


def shares(dataset, parts):
    return np.array([len(indices) for indices in parts.values()]) / len(dataset)


@pytest.mark.parametrize("scheme", PARTITIONS.names)
def test_each_photograph_is_at_one_hospital_and_each_lesion_too(many, scheme):
    parts = partition(many, scheme=scheme, seed=4)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(600))
    for name, indices in parts.items():
        assert np.array_equal(indices, np.sort(indices))
        others = np.setdiff1d(np.arange(600), indices)
        assert not set(many.lesion_ids[indices]) & set(many.lesion_ids[others]), name


def test_the_papers_shares(many):
    parts = partition(many)
    assert list(parts) == [f"hospital-{i}" for i in range(1, 6)]
    # Boundaries fall between lesions of two photographs at most.
    assert np.abs(shares(many, parts) - PAPER_SHARES).max() <= 2 / 600


def test_iid_shares_are_equal_and_classes_alike(many):
    parts = partition(many, scheme="iid", hospitals=3)
    assert np.abs(shares(many, parts) - 1 / 3).max() <= 2 / 600
    for indices in parts.values():
        share = np.bincount(many.labels[indices], minlength=3) / len(indices)
        assert np.abs(share - [1 / 2, 1 / 3, 1 / 6]).max() < 0.12


def test_dirichlet_skews_labels_more_with_smaller_alpha(many):
    def skew(alpha):
        parts = partition(many, scheme="dirichlet", alpha=alpha, hospitals=4, seed=1)
        mixes = [np.bincount(many.labels[i], minlength=3) / len(i) for i in parts.values()]
        return np.abs(np.array(mixes) - [1 / 2, 1 / 3, 1 / 6]).mean()

    assert skew(0.2) > 3 * skew(1000.0)
    # With alpha to infinity every hospital gets an equal share of each class.
    parts = partition(many, scheme="dirichlet", alpha=1e8, hospitals=4)
    counts = np.array([np.bincount(many.labels[i]) for i in parts.values()])
    assert np.abs(counts - np.array([75, 50, 25])).max() <= 2


def test_dirichlet_with_tiny_alpha_gives_each_class_to_one_hospital(many):
    parts = partition(many, scheme="dirichlet", alpha=1e-9, hospitals=2, seed=0)
    for label in range(3):
        assert sum(label in many.labels[indices] for indices in parts.values()) == 1


def test_dirichlet_draws_again_until_every_hospital_can_train(many):
    train = train_test_split(many).train
    for seed in range(8):
        parts = partition(many, scheme="dirichlet", alpha=0.3, seed=seed, train=train)
        again = partition(many, scheme="dirichlet", alpha=0.3, seed=seed, train=train)
        for name, indices in parts.items():
            assert len(np.unique(many.labels[np.intersect1d(indices, train)])) >= 2
            assert np.array_equal(indices, again[name])


def test_a_partition_is_the_same_in_every_environment(many):
    parts = partition(many, scheme="dirichlet", seed=0)
    assert [len(indices) for indices in parts.values()] == [97, 43, 138, 158, 164]
    assert partition(many, seed=0)["hospital-1"][:6].tolist() == [5, 8, 11, 20, 39, 40]


def test_sites_are_hospitals_by_name(many):
    parts = partition(many, scheme="site", hospitals=99)
    assert list(parts) == ["a", "b", "c"]
    for site, indices in parts.items():
        assert set(many.sites[indices]) == {site}


def test_a_lesion_seen_at_two_sites_goes_to_the_more_frequent(make):
    parts = partition(make(["x", "x", "x", "y"], [0, 0, 0, 1], sites=["m", "n", "n", "m"]), scheme="site")
    assert parts["n"].tolist() == [0, 1, 2] and parts["m"].tolist() == [3]


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=5, max_size=40), data=st.data())
def test_a_cut_gives_every_piece_a_lesion_in_order(sizes, data):
    pieces = data.draw(st.integers(1, 5))
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=pieces, max_size=pieces)))
    cut = _cut(np.array(sizes), weights / weights.sum())
    assert cut.tolist() == sorted(cut) and set(cut) == set(range(pieces))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scheme": "pape"}, r"unknown partition 'pape': did you mean 'paper'"),
        ({"hospitals": 4}, r"for 5 hospitals, not 4: use --hospitals 5, or --partition iid"),
        ({"hospitals": 0, "scheme": "iid"}, r"0 hospitals are impossible"),
        (
            {"hospitals": 401, "scheme": "iid"},
            r"401 hospitals for 400 lesions of 600 photographs.*at most 400",
        ),
        ({"scheme": "dirichlet", "alpha": 0.0}, r"alpha 0\.0 is impossible"),
        ({"scheme": "dirichlet", "alpha": float("nan")}, r"alpha nan is impossible"),
    ],
)
def test_impossible_options(many, options, message):
    with pytest.raises(DataError, match=message):
        partition(many, **options)


def test_more_hospitals_than_images(make):
    with pytest.raises(DataError, match=r"5 hospitals for 3 lesions of 3 photographs.*give at most 3"):
        partition(make(["x", "y", "z"], [0, 1, 0]))


def test_a_hospital_without_training_images_is_named(many):
    held = partition(many)["hospital-3"]
    train = np.setdiff1d(np.arange(600), held)
    with pytest.raises(DataError, match=r"hospital-3 is left with no training images.*use fewer hospitals"):
        partition(many, train=train)


def test_a_hospital_with_one_class_is_named(many):
    held = partition(many)["hospital-2"]
    others = held[many.labels[held] != 1]
    with pytest.raises(DataError, match=r"hospital-2 is left with one class only, class-1, to train on"):
        partition(many, train=np.setdiff1d(np.arange(600), others))


def test_dirichlet_gives_up_with_advice(make):
    lopsided = make([str(i) for i in range(12)], [0] * 11 + [1])
    message = r"hospital-\d is left with .*none of 100 draws was better, use fewer hospitals or a larger"
    with pytest.raises(DataError, match=message):
        partition(lopsided, scheme="dirichlet", hospitals=5, train=range(12))


def test_dirichlet_without_a_split_still_leaves_no_hospital_empty(many):
    for seed in range(5):
        parts = partition(many, scheme="dirichlet", alpha=0.05, hospitals=6, seed=seed)
        assert all(len(indices) for indices in parts.values())


def test_sites_that_are_not_known(make):
    with pytest.raises(DataError, match=r"1 of 2 photographs have no site: bring a metadata table"):
        partition(make(["x", "y"], [0, 1], sites=["n", ""]), scheme="site")


def test_a_site_with_one_class_is_named(make):
    dataset = make(["w", "x", "y", "z"], [0, 1, 1, 1], sites=["n", "n", "s", "s"])
    with pytest.raises(DataError, match=r"s is left with one class only, class-1.*--partition iid"):
        partition(dataset, scheme="site", train=range(4))


def test_too_many_hospitals_are_told_how_many_are_possible(make):
    labels = (np.arange(400) % 4 // 3).tolist()  # every fourth photograph is of the second class
    data = make([str(i) for i in range(400)], labels)
    with pytest.raises(
        DataError, match=r"more hospitals cannot train either: use --hospitals \d+"
    ) as refused:
        partition(data, hospitals=200, scheme="iid", train=range(400))
    possible = int(re.search(r"--hospitals (\d+)", str(refused.value)).group(1))
    assert len(partition(data, hospitals=possible, scheme="iid", train=range(400))) == possible


@pytest.mark.real
@pytest.mark.parametrize("scheme", PARTITIONS.names)
def test_ham10000_is_handed_out_whole(real_ham10000, scheme):
    dataset = real_ham10000
    split = train_test_split(dataset)
    parts = partition(dataset, scheme=scheme, train=split.train)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(10015))
    holders = {}
    for name, indices in parts.items():
        for lesion in dataset.lesion_ids[indices]:
            assert holders.setdefault(lesion, name) == name
