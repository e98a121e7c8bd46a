"""The one shape all readers return."""

from __future__ import annotations

import numpy as np
import pytest

from skinfl.data import Lesion, LesionDataset
from skinfl.errors import DataError


def build(**changes):
    values = {
        "name": "toy",
        "images": np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3),
        "labels": [1, 0],
        "classes": ["a", "b"],
        "lesion_ids": ["x", "y"],
        "image_ids": ["p", "q"],
    }
    return LesionDataset(**{**values, **changes})


def test_a_photograph_has_all_its_columns():
    lesion = build(sites=["n", "s"], sexes=["", "male"], ages=[40, 50])[1]
    assert isinstance(lesion, Lesion) and lesion.image.shape == (4, 5, 3) and lesion.image[0, 0, 0] == 60
    assert lesion[1:] == (0, "y", "q", "s", "male", 50.0)


def test_what_is_not_known_is_empty():
    dataset = build()
    assert dataset.image_shape == (3, 4, 5) and dataset.class_counts().tolist() == [1, 1]
    assert dataset[0].site == "" and dataset[0].sex == "" and np.isnan(dataset[0].age)


def test_a_subset_keeps_order_and_marks():
    subset = build(synthetic=True, lesions_known=False).subset([1, 0, 1])
    assert subset.image_ids.tolist() == ["q", "p", "q"] and subset.labels.tolist() == [0, 1, 0]
    assert subset.synthetic and not subset.lesions_known and subset.name == "toy"
    assert len(build().subset([])) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": np.zeros((2, 4, 5))}, r"toy: images must have shape"),
        ({"images": np.zeros((2, 4, 5, 2))}, r"toy: images must have shape"),
        ({"image_ids": ["p"]}, r"toy: 1 image_ids for 2 images"),
        ({"ages": [1, 2, 3]}, r"toy: 3 ages for 2 images"),
        ({"labels": [0, 2]}, r"toy: labels must lie in 0\.\.1"),
        ({"labels": [0, -1]}, r"toy: labels must lie in 0\.\.1"),
    ],
)
def test_what_does_not_fit_together(changes, message):
    with pytest.raises(DataError, match=message):
        build(**changes)
