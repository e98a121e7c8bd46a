"""Training and test sets: no lesion in both, every class in both, and the published leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinfl.data.dataset import LesionDataset
from skinfl.data.splits import group_photographs, leaked_lesions, leaked_patients, train_test_split
from skinfl.errors import DataError


def from_lesions(sizes, labels):
    """One data set from each lesion's number of photographs and class."""
    lesions = np.repeat(np.arange(len(sizes)), sizes)
    n = len(lesions)
    return LesionDataset(
        "made",
        np.zeros((n, 1, 1, 1), np.uint8),
        np.repeat(labels, sizes),
        ("a", "b", "c"),
        [str(i) for i in lesions],
        [str(i) for i in range(n)],
    )


@settings(max_examples=60, deadline=None)
@given(
    lesions=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
)
def test_any_data_set_is_split_without_leak(lesions, fraction, seed):
    sizes, labels = zip(*lesions)
    dataset = from_lesions(sizes, labels)
    split = train_test_split(dataset, test_fraction=fraction, seed=seed)
    assert sorted([*split.train, *split.test]) == list(range(len(dataset)))
    assert len(split.train) and len(split.test)
    assert split.leaked_lesions == 0
    assert not set(dataset.lesion_ids[split.train]) & set(dataset.lesion_ids[split.test])
    for label in set(labels):
        if labels.count(label) > 1:
            assert label in dataset.labels[split.train] and label in dataset.labels[split.test]


def test_the_share_is_kept_in_each_class(many):
    split = train_test_split(many, test_fraction=0.2)
    # 300, 200 and 100 photographs, at most one photograph off as a lesion has two at most.
    assert np.abs(np.bincount(many.labels[split.test]) - [60, 40, 20]).max() <= 1


def test_the_seed_decides(many):
    first, again, other = (train_test_split(many, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.test, again.test) and not np.array_equal(first.test, other.test)


def test_a_split_is_the_same_in_every_environment(many):
    # Drawn once; numpy, Python or torch of any version must draw it again.
    assert train_test_split(many, seed=0).test[:8].tolist() == [0, 1, 5, 6, 7, 8, 11, 26]


def test_the_published_split_leaks_and_says_so(many):
    split = train_test_split(many, protocol="published")
    assert split.protocol == "published"
    assert len(split.train) == 4800 and len(split.test) == 1200
    assert np.bincount(np.concatenate([split.train, split.test])).tolist() == [10] * 600
    # A lesion of one photograph has ten copies: all on one side with chance 0.8^10 + 0.2^10 = 0.107,
    # one of two photographs with 0.8^20 = 0.012. So 200 (1 - 0.107) + 200 (1 - 0.012) = 376 leak.
    assert 355 < split.leaked_lesions < 395


def test_leaks_are_counted_by_hand(make):
    dataset = make(["x", "x", "y", "y", "z"], [0, 0, 1, 1, 0])
    assert leaked_lesions(dataset, [0, 2], [1, 3, 4]) == 2
    assert leaked_lesions(dataset, [0, 1], [2, 3, 4]) == 0
    assert leaked_lesions(dataset, [], [0]) == 0


def test_a_lesion_counts_as_its_most_frequent_class_and_site(make):
    lesions = group_photographs(
        make(["p", "q", "p", "p", "q"], [1, 0, 2, 2, 1], sites=["n", "s", "m", "n", "s"])
    )
    assert lesions.of.tolist() == [0, 1, 0, 0, 1]
    assert lesions.labels.tolist() == [2, 0]
    assert lesions.sites.tolist() == ["n", "s"]
    assert lesions.sizes.tolist() == [3, 2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"protocol": "grouped "}, r"unknown split protocol 'grouped ': did you mean 'grouped'"),
        ({"test_fraction": 0.0}, r"test fraction 0\.0 is impossible"),
        ({"test_fraction": float("nan")}, r"test fraction nan is impossible"),
    ],
)
def test_impossible_options(many, options, message):
    with pytest.raises(DataError, match=message):
        train_test_split(many, **options)


def test_what_cannot_be_split(make):
    with pytest.raises(DataError, match="1 photographs cannot be split"):
        train_test_split(make(["x"], [0]))
    with pytest.raises(DataError, match="all photographs are of one lesion"):
        train_test_split(make(["x", "x"], [0, 0]))


@pytest.mark.real
def test_ham10000_is_split_without_leak(real_ham10000):
    dataset = real_ham10000
    split = train_test_split(dataset, seed=3)
    assert split.leaked_lesions == 0 and len(split.train) + len(split.test) == 10015
    assert np.abs(np.bincount(dataset.labels[split.test]) - 0.2 * dataset.class_counts()).max() < 3
    assert train_test_split(dataset, protocol="published").leaked_lesions > 6500


def test_a_patients_lesions_stay_together(make):
    patients = [f"p{i % 7}" for i in range(60)]
    dataset = make([str(i) for i in range(60)], [i % 3 for i in range(60)], patient_ids=patients)
    for seed in range(5):
        split = train_test_split(dataset, seed=seed)
        assert len(split.test) and leaked_patients(dataset, split.train, split.test) == 0
    assert leaked_patients(dataset, [0, 1], [7, 2]) == 1


def test_where_one_photograph_names_no_patient_its_lesion_does(make):
    # By hand: lesion u is patient p's, so is v by way of w's second photograph; x is nobody's known.
    dataset = make(["u", "u", "v", "w", "w", "x", "y"], [0] * 7, patient_ids=["p", "", "q", "q", "p", "", ""])
    assert group_photographs(dataset).of.tolist() == [0, 0, 0, 0, 0, 1, 2]
