"""The pixel tables of HAM10000 and their join with the metadata."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from golden import HAM_HEADER, HAM_ROWS, write_csv

from skinfl.data import hmnist, load
from skinfl.errors import DataError


def write_pixels(path, pixels, labels):
    header = [f"pixel{i:04d}" for i in range(pixels.shape[1])] + ["label"]
    return write_csv(path, header, [[*row, label] for row, label in zip(pixels.tolist(), labels)])


@pytest.fixture
def table(tmp_path):
    """Four rows of 2x2 colour pixels whose labels are those of the golden metadata."""
    folder = tmp_path / "hmnist"
    folder.mkdir()
    write_pixels(folder / "hmnist_2_2_RGB.csv", np.arange(48).reshape(4, 12), [2, 2, 6, 4])
    write_csv(folder / "HAM10000_metadata.csv", HAM_HEADER, HAM_ROWS)
    return folder / "hmnist_2_2_RGB.csv"


def test_pixels_run_by_row_with_colours_together(table):
    dataset = load(table, image_size=2)
    assert dataset.name == "ham10000_2x2_RGB"
    # By hand: row 1 holds 12..23; its lower left pixel is the third, 18, 19, 20.
    assert dataset.images[1].tolist() == [[[12, 13, 14], [15, 16, 17]], [[18, 19, 20], [21, 22, 23]]]
    assert dataset.labels.tolist() == [2, 2, 6, 4]


def test_rows_are_joined_with_the_metadata_beside(table):
    dataset = load(table.parent)
    assert dataset.images.shape == (4, 28, 28, 3) and dataset.lesions_known
    assert dataset.lesion_ids.tolist() == ["HAM_0", "HAM_0", "HAM_1", "HAM_2"]
    assert dataset.sites.tolist() == ["rosendahl", "rosendahl", "vidir_modern", "vienna_dias"]
    assert dataset.sexes[2] == "" and np.isnan(dataset.ages[2])


def test_without_metadata_no_lesion_is_known(table):
    (table.parent / "HAM10000_metadata.csv").unlink()
    dataset = load(table)
    assert not dataset.lesions_known and len(set(dataset.lesion_ids)) == 4
    assert not dataset.subset([0, 1]).lesions_known


def test_a_byte_order_mark_quotes_and_windows_lines_do_not_matter(table):
    text = table.read_text().replace("pixel0000", '"pixel0000"').replace("\n", "\r\n")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load(table, image_size=2).images[0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_all_that_a_spreadsheet_saves_reads_the_same(table, separator, newline, encoding):
    before = load(table).digest()
    text = table.read_text().replace(",", separator).replace("\n", newline)
    table.write_bytes(text.encode(encoding))
    assert load(table).digest() == before


def test_of_several_tables_the_largest_and_then_the_colour_one_is_read(table):
    folder = table.parent
    write_pixels(folder / "hmnist_2_2_L.csv", np.zeros((4, 4), int), [2, 2, 6, 4])
    said = []
    assert load(folder, progress=lambda *event: said.append(event)).name == "ham10000_2x2_RGB"
    assert said[0][1] == 0 and "hmnist_2_2_RGB.csv is read, not hmnist_2_2_L.csv" in said[0][2]
    write_pixels(folder / "hmnist_3_3_L.csv", np.zeros((4, 9), int), [2, 2, 6, 4])
    assert load(folder).name == "ham10000_3x3_L"
    assert load(folder / "hmnist_2_2_L.csv").image_shape == (1, 28, 28)


def edit(path, line, change):
    lines = path.read_text().splitlines()
    lines[line - 1] = change(lines[line - 1])
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "line, change, message",
    [
        (3, lambda s: s.replace("13,", "nan,"), r"RGB\.csv, line 3: pixel0001 is 'nan', not a whole number"),
        (3, lambda s: s.replace("13,", ","), r"line 3: pixel0001 is ''"),
        (3, lambda s: s.replace("13,", "x,"), r"line 3: pixel0001 is 'x'"),
        (3, lambda s: s.replace("13,", "13.5,"), r"line 3: pixel0001 is '13\.5'"),
        (3, lambda s: s.replace("13,", "256,"), r"line 3: pixel0001 is '256'"),
        (3, lambda s: s.replace("13,", "300,"), r"line 3: pixel0001 is '300'"),
        (3, lambda s: s.replace("13,", "1/3,"), r"line 3: pixel0001 is '1/3'"),
        (2, lambda s: "-1" + s, r"line 2: pixel0000 is '-10'"),
        (5, lambda s: s[:-1] + "7", r"line 5: unknown class 7, labels run from 0 to 6"),
        (4, lambda s: s[3:], r"line 4: 12 values for 13 columns"),
        (1, lambda s: s.replace(",label", ""), r"must have 12 pixel columns and then 'label'"),
        (1, lambda s: s.replace("pixel0000,", ""), r"must have 12 pixel columns.* it has 12 columns"),
        (3, lambda s: s[:-1] + "6", r"disagree in 1 labels, first in row 2 \(mel against bkl\)"),
    ],
)
def test_faults_of_the_pixels(table, line, change, message):
    edit(table, line, change)
    with pytest.raises(DataError, match=message):
        load(table)


def test_numbers_may_be_written_with_a_point(table):
    edit(table, 3, lambda s: s.replace("13,", "13.0,"))
    assert load(table, image_size=2).images[1, 0, 0].tolist() == [12, 13, 14]


def test_many_rows_are_read_in_pieces(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (1500, 4))
    labels = np.arange(1500) % 7
    path = write_pixels(tmp_path / "hmnist_2_2_L.csv", pixels, labels)
    dataset = load(path, image_size=2)
    assert np.array_equal(dataset.images.reshape(1500, 4), pixels) and np.array_equal(dataset.labels, labels)
    edit(path, 1402, lambda s: "nan" + s[s.index(",") :])
    with pytest.raises(DataError, match=r"line 1402: pixel0000 is 'nan'"):
        load(path)


def test_two_faults_that_even_out_are_found(table):
    edit(table, 2, lambda s: s + ",9")
    edit(table, 3, lambda s: s[3:])
    with pytest.raises(DataError, match=r"line 2: 14 values for 13 columns"):
        load(table)


def test_a_table_without_rows(table):
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"has no rows"):
        load(table)


def test_another_number_of_rows_than_the_metadata(table):
    write_csv(table.parent / "HAM10000_metadata.csv", HAM_HEADER, HAM_ROWS[:3])
    with pytest.raises(DataError, match=r"has 4 rows but .*HAM10000_metadata\.csv has 3"):
        load(table)


def test_image_ids_twice_in_the_metadata(table):
    rows = [list(row) for row in HAM_ROWS]
    rows[1][1] = "ISIC_0"
    write_csv(table.parent / "HAM10000_metadata.csv", HAM_HEADER, rows)
    with pytest.raises(DataError, match=r"image ids on several rows \(ISIC_0\)"):
        load(table)


def test_a_table_that_cannot_be_read(table):
    table.unlink()
    with pytest.raises(DataError, match=r"hmnist_2_2_RGB\.csv cannot be read"):
        hmnist.read(table, 28)


def test_a_name_that_says_no_size(table):
    with pytest.raises(DataError, match="not named like an hmnist file"):
        hmnist.read(table.rename(table.parent / "pixels.csv"), 28)


@pytest.mark.real
def test_all_of_ham10000_loads_within_seconds(real_data):
    start = time.process_time()
    dataset = load(real_data)
    assert time.process_time() - start < 10
    assert dataset.images.shape == (10015, 28, 28, 1) and dataset.name == "ham10000_8x8_L"
    # Counted in the publishers' metadata table.
    assert dict(zip(dataset.classes, dataset.class_counts())) == {
        "akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "nv": 6705, "vasc": 142, "mel": 1113,
    }  # fmt: skip
    assert len(set(dataset.lesion_ids)) == 7470
    assert set(dataset.sites) == {"vidir_modern", "rosendahl", "vidir_molemax", "vienna_dias"}


@pytest.mark.real
def test_real_labels_against_shuffled_metadata_are_refused(real_data, tmp_path):
    for name in ("hmnist_8_8_L.csv", "HAM10000_metadata.csv"):
        shutil.copy(str(real_data / name), str(tmp_path / name))
    lines = (tmp_path / "HAM10000_metadata.csv").read_text().splitlines()
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    with pytest.raises(DataError, match=r"disagree in \d+ labels, first in row 1"):
        load(tmp_path)
