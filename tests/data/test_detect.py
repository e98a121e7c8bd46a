"""Finding out what a path is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from golden import HAM_HEADER, HAM_ROWS, write_csv, write_image

from skinfl.data import load
from skinfl.data.detect import detect
from skinfl.data.parallel import in_threads
from skinfl.errors import DataError, SettingsError


def pixel_table(folder):
    write_csv(folder / "hmnist_1_1_L.csv", ["pixel0000", "label"], [[9, label] for label in (2, 2, 6, 4)])


def test_a_missing_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"nowhere does not exist: give a folder that 'skinfl data list' shows"
    ):
        load(tmp_path / "nowhere")


def test_a_folder_given_as_the_metadata_table_is_not_called_missing(ham):
    with pytest.raises(DataError, match=r"ham is no file: give the publisher's metadata table"):
        load(ham, metadata=ham)


@pytest.mark.parametrize(
    "address", ["https://example.org/HAM10000.zip", "https:/example.org/x", "s3://bucket/x"]
)
def test_an_address_is_told_that_nothing_is_downloaded(address):
    with pytest.raises(DataError, match="nothing is downloaded, get it first"):
        load(Path(address))  # as the command line gives it


def test_what_is_there_and_is_no_data_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(DataError, match="link is a link to gone, which is not there"):
        load(tmp_path / "link")
    with pytest.raises(DataError, match="/dev/null is neither a file nor a folder"):
        load("/dev/null")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is empty: give a folder that 'skinfl data list' shows"):
        load(str(tmp_path / "empty"))


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(
        DataError,
        match=r"other holds no data set that is known here: it has the table notes\.txt; looked for .*HAM",
    ):
        load(tmp_path / "other")
    with pytest.raises(DataError, match=r"notes\.txt is no file that is known here"):
        load(tmp_path / "other" / "notes.txt")


def test_photographs_come_before_tables_and_this_is_said(ham):
    pixel_table(ham)
    said = []
    assert load(ham, progress=lambda *event: said.append(event[2])).name == "ham10000"
    assert "ham10000 is read, not hmnist_1_1_L.csv" in said[0]


def test_a_stray_picture_makes_no_ham10000(tmp_path):
    folder = tmp_path / "tables"
    write_image(folder / "figure.png", (1, 2, 3))
    pixel_table(folder)
    write_csv(folder / "HAM10000_metadata.csv", HAM_HEADER, HAM_ROWS)
    assert detect(folder).reader.source.name == "hmnist"
    assert load(folder).lesions_known


def test_the_metadata_file_stands_for_its_folder(ham):
    assert len(load(ham / "HAM10000_metadata.csv")) == 4


@pytest.mark.parametrize("size", [0, -3])
def test_an_impossible_size(ham, size):
    with pytest.raises(DataError, match=rf"image size {size} is impossible"):
        load(ham, image_size=size)


def test_hidden_files_are_no_images(ham):
    (ham / "HAM10000_images_part_1" / "._ISIC_7.jpg").write_bytes(b"resource fork")
    assert len(load(ham)) == 4


def test_decoding_is_reported_and_then_cached(ham, cache):
    events = []
    first = load(ham, progress=lambda *event: events.append(event))
    assert events == [(i, 4, "decoding images") for i in (1, 2, 3, 4)]
    second = load(ham, progress=lambda *event: pytest.fail("decoded again"))
    assert np.array_equal(first.images, second.images)
    assert load(ham, image_size=10).images.shape[1] == 10


def test_an_interrupted_decoding_drops_the_rest():
    def interrupt(done, total, what):
        raise KeyboardInterrupt

    decoded = []
    with pytest.raises(KeyboardInterrupt):
        for _ in in_threads(lambda i: (time.sleep(0.01), decoded.append(i)), 500, interrupt, ""):
            pass
    assert len(decoded) < 100


def test_a_changed_image_is_decoded_again(ham):
    load(ham)
    write_image(ham / "HAM10000_images_part_1" / "ISIC_0.jpg", (1, 1, 1))
    assert load(ham).images[0].max() < 10


def test_a_user_without_a_home_keeps_no_cache_and_gets_no_folder_named_tilde(ham, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("SKINFL_CACHE", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda text: text)  # what it does for a number without a name
    assert len(load(ham)) == 4
    assert list(work.iterdir()) == []
    with pytest.raises(SettingsError, match="has no home here"):
        load(ham, cache_dir="~/cache")
