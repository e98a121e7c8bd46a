"""Images that need not be in memory behave as the array they stand for."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest

from skinfl.data import rows
from skinfl.data.dataset import LesionDataset
from skinfl.data.preparation import Preparation
from skinfl.data.rows import ImageRows, MappedFile, blocks, mapped
from skinfl.data.transforms import pixel_sums


@pytest.fixture
def array():
    return np.random.RandomState(0).randint(0, 256, (23, 4, 5, 3)).astype(np.uint8)


@pytest.fixture(params=["array", "mapped", "nested"])
def lazy(request, array, tmp_path):
    if request.param == "array":
        return ImageRows(array)
    np.save(str(tmp_path / "a.npy"), array)
    if request.param == "mapped":
        return mapped(tmp_path / "a.npy")
    order = np.random.RandomState(1).permutation(23)
    np.save(str(tmp_path / "b.npy"), array[order])
    return mapped(tmp_path / "b.npy").subset(np.argsort(order))


KEYS = [
    0,
    -1,
    np.int64(7),
    slice(None),
    slice(3, 9),
    slice(20, 40),
    slice(None, None, -2),
    [],
    [3, 3, 1],
    np.array([5, -1, 0]),
    np.arange(23) % 2 == 0,
    (0, 0, 0),
    (slice(None), 0, 0),
    (slice(2, 4), slice(None), 1),
    Ellipsis,
    (Ellipsis, 2),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_equals_an_arrays(lazy, array, key):
    asked = np.asarray(key, dtype=np.int64) if isinstance(key, list) else key
    found = lazy[asked]
    assert isinstance(found, np.ndarray) or np.isscalar(found) or found.ndim == 0
    assert np.array_equal(found, array[asked])


def test_it_looks_like_the_array(lazy, array):
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.nbytes) == (array.shape, array.dtype, 4, array.nbytes)
    assert len(lazy) == 23 and np.array_equal(lazy, array) and np.array_equal(list(lazy), array)
    assert np.array_equal(np.concatenate(list(blocks(lazy, 70))), array)
    for other in (pickle.loads(pickle.dumps(lazy)), copy.deepcopy(lazy)):
        assert np.array_equal(other, array)
    with pytest.raises(IndexError):
        lazy[23]
    with pytest.raises(IndexError):
        lazy.subset([23])


@pytest.mark.parametrize("indices", [[], [4], [22, 0, 0, -1], range(23)], ids=str)
def test_subsets_of_subsets(lazy, array, indices):
    i = np.asarray(indices, dtype=np.int64)
    sub = lazy.subset(indices)
    assert sub.shape == array[i].shape and np.array_equal(sub, array[i])
    assert np.array_equal(sub.subset(range(len(i))[::-1]), array[i][::-1])


def test_a_lazy_data_set_equals_an_eager_one(lazy, array):
    def dataset(images):
        names = [str(i) for i in range(23)]
        return LesionDataset("made", images, np.arange(23) % 2, "ab", names, names)

    whole, eager = dataset(lazy), dataset(array)
    assert whole.digest() == eager.digest()
    some = np.array([5, 2, 2, 19])
    chosen = dataset(lazy).subset(some)
    assert np.array_equal(chosen.images, array[some]) and chosen.image_shape == (3, 4, 5)
    assert chosen.digest() == eager.subset(some).digest()
    names = [str(i) for i in some]
    assert chosen.digest() == LesionDataset("x", array[some], some % 2, "ab", names, names).digest()
    assert np.array_equal(pixel_sums(whole.images), pixel_sums(array))
    assert np.array_equal(chosen[3].image, array[19])


def test_a_subset_knows_how_it_was_prepared(make):
    dataset = make(["a", "b"], [0, 1], preparation=Preparation(1, "crop"))
    assert dataset.subset([1]).preparation == Preparation(1, "crop")


def test_little_stays_resident_however_much_is_read(tmp_path, monkeypatch, array):
    monkeypatch.setattr(rows, "_AROUND", 0)
    monkeypatch.setattr(rows, "_RESIDENT", 3 * array[0].nbytes)
    np.save(str(tmp_path / "a.npy"), array)
    found = mapped(tmp_path / "a.npy")
    released = []

    class Map:
        def madvise(self, what):
            released.append(what)

        def __len__(self):
            return array.nbytes

    found._source._map = Map()
    assert np.array_equal(found[np.arange(23)[::-1]], array[::-1])
    assert len(released) == 7
    for i in range(7):
        found[i]
    assert len(released) == 9


def resident():
    """Return how many bytes of mapped files are in this process's memory."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:")) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux says what is resident")
def test_the_system_gets_back_what_was_read(tmp_path, monkeypatch):
    array = np.random.RandomState(0).randint(0, 256, (1024, 64, 340, 3)).astype(np.uint8)  # 67 MB
    np.save(str(tmp_path / "a.npy"), array)
    monkeypatch.setattr(rows, "_RESIDENT", 16 * (array[0].nbytes + rows._AROUND))
    images, before = mapped(tmp_path / "a.npy"), resident()
    for some in (images, images.subset(np.random.RandomState(1).permutation(1024))):
        for block in blocks(some, 10 * array[0].size):
            assert resident() - before < 40 << 20
            assert block.flags.writeable
    assert np.array_equal(images[1000:], array[1000:])


@pytest.mark.parametrize("damage", ["cut", "longer", "none", "objects", "columns"])
def test_a_file_of_something_else_is_refused(tmp_path, array, damage):
    path = tmp_path / "a.npy"
    np.save(str(path), array)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "longer":
        path.write_bytes(content + b"1")
    elif damage == "none":
        path.write_bytes(b"")
    elif damage == "objects":
        np.save(str(path), np.array([{}]), allow_pickle=True)
    else:
        np.save(str(path), np.asfortranarray(array))
    with pytest.raises(ValueError), open(str(path), "rb") as stream:
        MappedFile(stream)
