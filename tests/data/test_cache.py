"""Decoded photographs kept between runs: found again, noticed when changed or damaged, done without."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from golden import HAM_COLOURS, write_image

from skinfl.data import cache as caching
from skinfl.data import images, load
from skinfl.errors import DataError

PHOTOGRAPH = "HAM10000_images_part_1/ISIC_0.jpg"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded."""
    names = []

    def decode(content, path):
        names.append(path.name)
        return real(content, path)

    real = images._decoded
    monkeypatch.setattr(images, "_decoded", decode)
    return names


def kept(cache):
    return [path for path in cache.iterdir() if path.name.startswith("images-")]


def age(path, seconds=60):
    """Set a file's time of change back, as if it had lain there for a while."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - seconds * 10**9))


def settle(monkeypatch):
    """Take every file for one that has lain there for a while."""
    monkeypatch.setattr("skinfl.data.digests._SETTLED", -(10**12))


def test_what_is_kept_is_mapped_and_equal(ham, decoded):
    first = load(ham)
    assert len(decoded) == 4
    again = load(ham)
    assert len(decoded) == 4
    assert np.array_equal(first.images, again.images) and first.digest() == again.digest()


@pytest.mark.parametrize(
    "way", [{"image_size": 10}, {"fit": "crop"}, {"fit": "pad"}, {"colour_constancy": "shades-of-grey"}]
)
def test_each_way_to_prepare_is_kept_apart(ham, cache, way):
    load(ham)
    load(ham, **way)
    assert len(kept(cache)) == 2
    assert np.array_equal(load(ham, **way).images, load(ham, **way, cache_dir=cache / "other").images)


def test_only_a_changed_photograph_is_decoded_again(ham, decoded):
    before = load(ham).images
    write_image(ham / PHOTOGRAPH, (1, 1, 1))
    del decoded[:]
    after = load(ham).images
    assert decoded == ["ISIC_0.jpg"]
    assert after[0].max() < 10 and np.array_equal(after[1:], before[1:])


def test_a_change_that_keeps_size_and_time_is_noticed(ham, monkeypatch):
    path = ham / PHOTOGRAPH
    for i in range(100):  # pictures of other colours, of one size on the disk
        write_image(path, (i, 2 * i, 50))
        if i == 0:
            size = path.stat().st_size
            load(ham)
            first = path.read_bytes()
        elif path.stat().st_size == size and path.read_bytes() != first:
            break
    changed = path.read_bytes()
    path.write_bytes(first)
    settle(monkeypatch)
    before, stat = load(ham).images, path.stat()
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert not np.array_equal(load(ham).images[0], before[0])


def test_photographs_that_lie_still_are_not_read_again(ham, monkeypatch):
    settle(monkeypatch)
    load(ham)
    load(ham)  # sees that what was kept is whole
    monkeypatch.setattr(
        "skinfl.data.digests.digest_of", lambda path: pytest.fail(f"{path} is read once more")
    )
    load(ham)


def test_what_was_just_written_may_change_unseen_and_is_read_again(ham, monkeypatch):
    load(ham)
    seen = []
    monkeypatch.setattr("skinfl.data.digests.digest_of", lambda path: seen.append(path.name) or "0" * 64)
    monkeypatch.setattr(images, "hashlib", None)
    with pytest.raises(AttributeError):
        load(ham)
    assert "ISIC_0.jpg" in seen


def test_a_photograph_that_changes_while_it_is_read_is_refused(ham, monkeypatch):
    real = images.folders.read
    monkeypatch.setattr(images.folders, "read", lambda path: real(path) + b"more")
    with pytest.raises(DataError, match=r"ISIC_0\.jpg was changed while it was read: try again"):
        load(ham)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("file", ["pixels.npy", "about"])
@pytest.mark.parametrize("damage", ["cut", "flip", "other", "empty", "gone", "folder", "longer"])
def test_a_damaged_cache_is_made_again(ham, cache, file, damage, settled, caplog, monkeypatch):
    if settled:
        settle(monkeypatch)
    whole = np.asarray(load(ham).images)
    (place,) = kept(cache)
    path = place / file
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "other":
        np.save(str(path), np.zeros((3, 28, 28, 3), np.uint8))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()
    elif damage == "longer":
        path.write_bytes(content + b"0")
    assert np.array_equal(load(ham).images, whole)
    assert caplog.text.count("made again") == 1
    caplog.clear()
    assert np.array_equal(load(ham).images, whole) and not caplog.records


def test_a_file_where_the_kept_folder_should_be(ham, cache, caplog):
    whole = np.asarray(load(ham).images)
    (place,) = kept(cache)
    shutil.rmtree(place)
    place.write_text("no folder")
    assert np.array_equal(load(ham).images, whole) and "made again" in caplog.text
    assert place.is_dir()


def test_damaged_digests_only_cost_time(ham, cache, monkeypatch):
    settle(monkeypatch)
    whole = np.asarray(load(ham).images)
    for path in cache.glob("digests-*"):
        path.write_bytes(b"what a crash left")
    assert np.array_equal(load(ham).images, whole)


def test_damage_in_what_is_kept_of_others_is_not_taken_over(ham, cache):
    whole = np.asarray(load(ham).images)
    (place,) = kept(cache)
    content = bytearray((place / "pixels.npy").read_bytes())
    content[-1] ^= 255
    (place / "pixels.npy").write_bytes(content)
    write_image(ham / PHOTOGRAPH, (1, 1, 1))
    assert np.array_equal(load(ham).images[1:], whole[1:])


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_cache_of_patients_images_is_its_owners_alone(ham, tmp_path, monkeypatch):
    settle(monkeypatch)
    load(ham, cache_dir=tmp_path / "cache")
    load(ham, cache_dir=tmp_path / "cache")
    (place,) = kept(tmp_path / "cache")
    assert place.stat().st_mode & 0o777 == 0o700
    files = [*place.iterdir(), *(path for path in (tmp_path / "cache").iterdir() if path != place)]
    assert len(files) == 4 and all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def unwritable(monkeypatch, cache, how):
    if how == "a file above":
        cache.parent.mkdir(exist_ok=True)
        cache.write_text("a file where the cache's folder should be")
    else:  # whoever runs the tests may be allowed everything

        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("skinfl.files.Path.mkdir", refuse)
        monkeypatch.setattr("skinfl.files._create", refuse)


@pytest.mark.parametrize("how", ["a file above", "another user's"])
@pytest.mark.parametrize("little", [True, False])
def test_a_cache_that_cannot_be_written_is_one_remark(ham, tmp_path, monkeypatch, how, little, caplog):
    whole = np.asarray(load(ham, cache_dir=tmp_path / "good").images)
    caplog.clear()
    unwritable(monkeypatch, tmp_path / "bad", how)
    if not little:
        monkeypatch.setattr(caching, "_LITTLE", 0)
    found = load(ham, cache_dir=tmp_path / "bad").images
    assert isinstance(found._source, np.ndarray) == little
    assert np.array_equal(found, whole)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "decoded images are not kept for the next run"
    ]


class FullDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, stream, room):
        self._stream, self.room = stream, room

    def write(self, content):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        taken = self._stream.write(content[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self._stream, name)


def fill_disk(monkeypatch, room, temporary_too=False):
    real = caching._Pixels

    class Pixels(real):
        made = 0

        def __init__(self, stream, shape):
            Pixels.made += 1
            super().__init__(FullDisk(stream, room) if Pixels.made == 1 or temporary_too else stream, shape)

    monkeypatch.setattr(caching, "_Pixels", Pixels)


@pytest.mark.parametrize("room", [0, 60, 128, 129, 128 + 2352, 128 + 3 * 2352 + 7])
@pytest.mark.parametrize("little", [True, False])
def test_nothing_is_lost_where_the_disk_is_full_half_way(
    ham, cache, monkeypatch, room, little, caplog, decoded
):
    whole = np.asarray(load(ham, cache_dir=cache / "good").images)
    del decoded[:]
    caplog.clear()
    fill_disk(monkeypatch, room)
    if not little:
        monkeypatch.setattr(caching, "_LITTLE", 0)
    found = load(ham, cache_dir=cache / "full")
    assert np.array_equal(found.images, whole)
    assert sorted(decoded) == [f"ISIC_{i}.jpg" for i in range(4)], "what was decoded is not decoded again"
    assert len(caplog.records) == 1 and "No space left on device" in caplog.text
    assert kept(cache / "full") == [] and not list((cache / "full").glob(".*"))


def test_no_room_anywhere_is_one_clear_error(ham, cache, monkeypatch):
    fill_disk(monkeypatch, 128 + 2352, temporary_too=True)
    monkeypatch.setattr(caching, "_LITTLE", 0)
    with pytest.raises(
        DataError, match=r"no room for 0\.0 GB .*: name a folder that has it with SKINFL_CACHE"
    ):
        load(ham)
    monkeypatch.setattr(caching, "_free_memory", lambda: 0)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5}))
    with pytest.raises(DataError, match="no room"):
        load(ham)
    assert kept(cache) == []


def test_a_disk_that_is_too_small_is_noticed_before_all_is_decoded(ham, cache, monkeypatch, caplog):
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5}))
    assert len(load(ham)) == 4
    assert "No space left" in caplog.text and kept(cache) == []


def test_a_fault_in_a_photograph_leaves_nothing_behind(ham, cache):
    (ham / PHOTOGRAPH).write_bytes((ham / PHOTOGRAPH).read_bytes()[:200])
    with pytest.raises(DataError, match=r"ISIC_0\.jpg is cut short"):
        load(ham)
    assert kept(cache) == [] and not list(cache.glob(".*"))


def test_another_run_that_was_first_is_no_fault(ham, cache, monkeypatch, caplog):
    def race(self, rows):
        rows = list(rows)
        keep(self, iter(rows))
        return keep(self, iter(rows))

    keep = caching.Wanted.keep
    monkeypatch.setattr(caching.Wanted, "keep", race)
    found = load(ham).images
    assert np.abs(found[:].mean(axis=(1, 2)) - np.array(HAM_COLOURS)).max() < 6
    assert not caplog.records and len(kept(cache)) == 1
