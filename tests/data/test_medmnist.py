"""DermaMNIST's array file."""

from __future__ import annotations

import numpy as np
import pytest

from skinfl.data import load
from skinfl.errors import DataError


@pytest.fixture
def arrays():
    rng = np.random.RandomState(0)
    return {
        f"{part}_{what}": value
        for part, n in (("train", 7), ("val", 2), ("test", 3))
        for what, value in (
            ("images", rng.randint(0, 256, (n, 28, 28, 3)).astype(np.uint8)),
            ("labels", (np.arange(n, dtype=np.uint8) % 7)[:, None]),
        )
    }


@pytest.fixture
def file(tmp_path, arrays):
    folder = tmp_path / "medmnist"
    folder.mkdir()
    np.savez(str(folder / "dermamnist.npz"), **arrays)
    return folder / "dermamnist.npz"


def test_reads_the_three_parts_in_ham10000s_class_order(file, arrays):
    dataset = load(file)
    assert dataset.name == "dermamnist" and not dataset.lesions_known
    assert np.array_equal(dataset.images[7:9], arrays["val_images"])
    # MedMNIST's 4, 5, 6 are melanoma, nevi, vascular lesions; 0 to 3 are as in HAM10000.
    names = [dataset.classes[i] for i in dataset.labels[:7]]
    assert names == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert dataset.image_ids[[0, 7, 11]].tolist() == ["train-00000", "val-00000", "test-00002"]
    assert len(set(dataset.lesion_ids)) == 12


def test_a_folder_gives_its_largest_file_resized(file, arrays):
    large = {
        key: value.repeat(2, axis=1).repeat(2, axis=2) if "images" in key else value
        for key, value in arrays.items()
    }
    np.savez(str(file.parent / "dermamnist_64.npz"), **large)
    said = []
    dataset = load(file.parent, image_size=56, progress=lambda *event: said.append(event[2]))
    assert "dermamnist_64.npz is read, not dermamnist.npz" in said[0]
    assert np.array_equal(dataset.images[0], large["train_images"][0])


def test_a_file_of_another_name_is_told_by_its_seven_classes(file, arrays):
    renamed = file.rename(file.parent / "derma.npz")
    assert load(renamed).name == "dermamnist"
    # RetinaMNIST is in colour and has five, PneumoniaMNIST two and is grey.
    for classes in (5, 2):
        other = {key: value % classes if "labels" in key else value for key, value in arrays.items()}
        np.savez(str(file.parent / "other.npz"), **other)
        with pytest.raises(
            DataError, match=r"other\.npz is not named dermamnist\*\.npz and has not all of its 7"
        ):
            load(file.parent / "other.npz")
    with pytest.raises(
        DataError, match=r"holds no data set that is known here: it has derma\.npz, other\.npz \(arrays"
    ):
        load(file.parent)
    renamed.rename(file.parent / "DermaMNIST.npz")
    assert load(file.parent).name == "dermamnist"


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("val_labels", None, r"dermamnist\.npz has no array 'val_labels'"),
        ("val_images", np.zeros((2, 28), np.uint8), r"val_images has shape \(2, 28\)"),
        ("val_images", np.zeros((2, 28, 28, 3)), r"val_images has shape .* of float64, not"),
        ("val_images", np.zeros((2, 28, 28, 1), np.uint8), r"val_images has shape \(2, 28, 28, 1\) of uint8"),
        ("val_images", np.zeros((2, 28, 28), np.uint8), r"val_images .* as DermaMNIST is in colour"),
        ("val_labels", np.zeros((3, 1), np.uint8), r"val_labels has shape \(3, 1\) of uint8 for 2 images"),
        ("val_labels", np.full((2, 1), np.nan), r"val_labels has shape \(2, 1\) of float64"),
        ("val_labels", np.full((2, 1), 7), r"val_labels has an unknown class, they run from 0 to 6"),
        ("val_labels", np.array([[{}], [{}]]), r"is cut short or no \.npz file"),
    ],
)
def test_faults_of_the_arrays(file, arrays, key, value, message):
    if value is None:
        del arrays[key]
    else:
        arrays[key] = value
    np.savez(str(file), **arrays)
    with pytest.raises(DataError, match=message + r".*get it again from https://medmnist\.com"):
        load(file)


@pytest.mark.parametrize("content", [b"", b"no zip at all", None])
def test_a_damaged_file(file, content):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"dermamnist\.npz is cut short or no \.npz file"):
        load(file)


def test_a_file_that_may_not_be_read(file, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"dermamnist\.npz cannot be read \(Permission denied\): allow it"):
        load(file)
