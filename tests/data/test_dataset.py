"""The one shape all readers return."""

from __future__ import annotations

import inspect
import time

import numpy as np
import pytest

from skinfl.data import Lesion, LesionClass, LesionDataset
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
    lesion = build(sites=["n", "s"], sexes=["", "male"], ages=[40, 50], patient_ids=["", "e"])[1]
    assert isinstance(lesion, Lesion) and lesion.image.shape == (4, 5, 3) and lesion.image[0, 0, 0] == 60
    assert lesion[1:] == (0, "y", "q", "s", "male", 50.0, "e")


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


def test_classes_may_be_described():
    described = build(classes=[LesionClass("a", "a mole", False), "b"])
    assert described.classes == ("a", "b")
    assert described.class_info == (LesionClass("a", "a mole", False), LesionClass("b", "b", None))
    assert described.subset([1]).class_info == described.class_info


def test_the_digest_follows_all_that_decides_a_result():
    same = {build().digest(), build(name="other", sexes=["", "male"], ages=[1, 2]).digest()}
    assert len(same) == 1 and all(len(digest) == 64 for digest in same)
    pixels = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    changed = pixels.copy()
    changed[1, 3, 4, 2] += 1
    others = [
        build(images=changed),
        build(images=pixels.reshape(2, 5, 4, 3)),
        build(labels=[0, 1]),
        build(classes=["b", "a"]),
        build(classes=["a", "b", "c"]),
        build(lesion_ids=["x", "x"]),
        build(image_ids=["p", "r"]),
        build(image_ids=["q", "p"]),
        build(sites=["n", ""]),
        build(patient_ids=["e", ""]),
        build().subset([1, 0]),
        build().subset([0]),
    ]
    assert len({other.digest() for other in others} | same) == len(others) + 1
    # What a data set was before makes no difference, only what it is.
    assert build().subset([1, 0]).subset([1, 0]).digest() in same


def test_the_digest_takes_no_time_at_full_size():
    n = 10015
    images = np.random.RandomState(0).randint(0, 256, (n, 28, 28, 3), dtype=np.uint8)
    ids = [f"ISIC_{i:07d}" for i in range(n)]
    dataset = LesionDataset("large", images, np.arange(n) % 2, ["a", "b"], ids, ids)
    start = time.process_time()
    first = dataset.digest()
    # 0.1 s on a quiet core.
    assert time.process_time() - start < 1
    assert dataset.digest() is first


def test_captions_are_all_but_images_and_labels():
    dataset = LesionDataset(
        "d",
        np.zeros((3, 8, 8, 3)),
        [0, 1, 0],
        [LesionClass("nv", "naevus", False), LesionClass("mel", "melanoma", True)],
        ["a", "a", "b"],
        ["1", "2", "3"],
        ["s", "s", "t"],
        ["male", "", "female"],
        [1.0, 2.0, 3.0],
        synthetic=True,
        lesions_known=False,
        patient_ids=["p", "p", "q"],
    )
    names = list(inspect.signature(LesionDataset.__init__).parameters)
    assert set(dataset.captions()) == set(names) - {"self", "images", "labels"}
    again = LesionDataset(images=dataset.images, labels=dataset.labels, **dataset.captions())
    assert again.digest() == dataset.digest() and again.class_info == dataset.class_info
    part = dataset.subset([2, 0])
    assert list(part.patient_ids) == ["q", "p"] and list(part.ages) == [3.0, 1.0]
    assert part.synthetic and not part.lesions_known and part.class_info == dataset.class_info
