"""HAM10000's folder: what is read, and each fault a user may bring."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from golden import HAM_COLOURS, HAM_HEADER, HAM_ROWS, write_csv, write_image
from PIL import Image

from skinfl.data import ham10000, load
from skinfl.errors import DataError

PAGE = "10.7910/DVN/DBW86T"


def test_reads_the_rows_in_order_with_their_images(ham):
    dataset = load(ham, image_size=8)
    assert dataset.name == "ham10000" and not dataset.synthetic and dataset.lesions_known
    assert dataset.images.shape == (4, 8, 8, 3)
    assert dataset.classes == ("akiec", "bcc", "bkl", "df", "nv", "vasc", "mel")
    assert dataset.labels.tolist() == [2, 2, 6, 4]
    assert dataset.lesion_ids.tolist() == ["HAM_0", "HAM_0", "HAM_1", "HAM_2"]
    assert dataset.image_ids.tolist() == ["ISIC_0", "ISIC_1", "ISIC_2", "ISIC_3"]
    assert dataset.sites.tolist() == ["rosendahl", "rosendahl", "vidir_modern", "vienna_dias"]
    assert dataset.sexes.tolist() == ["male", "male", "", "female"]
    assert math.isnan(dataset.ages[2]) and dataset.ages[[0, 3]].tolist() == [80.0, 35.0]
    # JPEG changes a flat colour by a few levels only.
    assert np.abs(dataset.images[:].mean(axis=(1, 2)) - np.array(HAM_COLOURS)).max() < 6


def test_resizing_is_bilinear(ham):
    # Columns of black and white, twice as many: ends kept, a quarter and three quarters between.
    folder = ham / "HAM10000_images_part_1"
    (folder / "ISIC_0.jpg").unlink()
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, 1::2] = 255
    Image.fromarray(pixels).save(str(folder / "ISIC_0.png"))
    row = load(ham, image_size=16).images[0, 0, :, 0].tolist()
    assert row == [0, 64, 191, *[191, 64, 64, 191] * 3, 255]


def test_finds_images_in_any_folder_but_prefers_the_published_ones(ham):
    (ham / "HAM10000_images_part_1").rename(ham / "pictures")
    (ham / "HAM10000_images_part_2").rename(ham / "more")
    assert len(load(ham)) == 4
    (ham / "pictures").rename(ham / "ham10000_images_part_1")
    for image in (ham / "more").iterdir():
        shutil.move(str(image), str(ham / "ham10000_images_part_1"))
    # The masks of Harvard's record are no photographs.
    write_image(ham / "HAM10000_segmentations" / "ISIC_0_segmentation.png", (0, 0, 0))
    assert len(load(ham)) == 4


def test_kaggles_double_folders_count_once(ham):
    for part in (1, 2):
        shutil.copytree(
            str(ham / f"HAM10000_images_part_{part}"), str(ham / f"ham10000_images_part_{part}_copy")
        )
    assert len(load(ham)) == 4


def test_one_name_with_two_contents_is_refused(ham):
    write_image(ham / "HAM10000_images_part_2" / "ISIC_0.jpg", (9, 9, 9), size=(90, 90))
    with pytest.raises(DataError, match=r"ISIC_0\.jpg.*two images of one name: remove one"):
        load(ham)


def test_metadata_with_sites_is_preferred(ham):
    shutil.copy(str(ham / "HAM10000_metadata.csv"), str(ham / "fed_isic2019_HAM10000_metadata.csv"))
    write_csv(ham / "HAM10000_metadata.csv", HAM_HEADER[:-1], [row[:-1] for row in HAM_ROWS])
    assert ham10000.find_metadata(ham).name == "fed_isic2019_HAM10000_metadata.csv"
    assert load(ham).sites[0] == "rosendahl"
    (ham / "fed_isic2019_HAM10000_metadata.csv").unlink()
    assert load(ham).sites.tolist() == [""] * 4


def test_reads_harvards_tab_separated_copy(ham):
    text = (ham / "HAM10000_metadata.csv").read_text().replace(",", "\t")
    (ham / "HAM10000_metadata.csv").unlink()
    (ham / "HAM10000_metadata").write_text(text)
    assert load(ham).labels.tolist() == [2, 2, 6, 4]


def test_metadata_may_lie_elsewhere(ham, tmp_path):
    moved = tmp_path / "table.csv"
    (ham / "HAM10000_metadata.csv").rename(moved)
    assert len(load(ham, metadata=moved)) == 4
    with pytest.raises(DataError, match=r"none\.csv is missing: give the publisher's"):
        load(ham, metadata=tmp_path / "none.csv")


def rewrite(ham, change):
    rows = [list(row) for row in HAM_ROWS]
    change(rows)
    write_csv(ham / "HAM10000_metadata.csv", HAM_HEADER, rows)


def put(row, column, value):
    return lambda rows: rows[row].__setitem__(HAM_HEADER.index(column), value)


@pytest.mark.parametrize(
    "change, message",
    [
        (put(1, "dx", "mell"), r"HAM10000_metadata\.csv, line 3: unknown class 'mell' \(did you mean 'mel'"),
        (put(1, "dx", "BKL"), r"line 3: unknown class 'BKL' \(did you mean 'bkl'"),
        (put(3, "age", "old"), r"line 5: age 'old' is no number of years"),
        (put(3, "lesion_id", ""), r"line 5: lesion_id is empty.*" + PAGE),
        (put(1, "image_id", "ISIC_0"), r"image ids on several rows \(ISIC_0\): keep one row of each"),
        (lambda rows: rows.pop(), r"1 images in .* have no row in .* \(ISIC_3\): move them elsewhere"),
        (
            lambda rows: rows.append(["HAM_9", "ISIC_9", *HAM_ROWS[3][2:]]),
            r"1 of 5 images in .* are not in .* \(ISIC_9\): get them from .*" + PAGE,
        ),
        (lambda rows: rows.clear(), r"has no rows.*" + PAGE),
        (lambda rows: rows[2].pop(), r"line 4: 7 values for 8 columns"),
    ],
)
def test_faults_of_the_table(ham, change, message):
    rewrite(ham, change)
    with pytest.raises(DataError, match=message):
        load(ham)


@pytest.mark.parametrize("age", ["", "NaN", "nan", "unknown"])
def test_an_unknown_age_is_nan(ham, age):
    rewrite(ham, put(0, "age", age))
    assert math.isnan(load(ham).ages[0])


def test_a_missing_column_is_named(ham):
    write_csv(ham / "HAM10000_metadata.csv", ["lesion", *HAM_HEADER[1:]], HAM_ROWS)
    with pytest.raises(DataError, match=r"has no column 'lesion_id' \(did you mean 'lesion'\?\).*" + PAGE):
        load(ham)


def test_a_table_that_is_no_text_is_refused(ham):
    (ham / "HAM10000_metadata.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match=r"HAM10000_metadata\.csv cannot be read as a table"):
        load(ham)


def test_images_without_a_table(ham):
    (ham / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match=r"HAM10000_metadata\.csv is missing: get it from .*" + PAGE):
        load(ham)


def test_a_table_without_images(ham):
    for part in (1, 2):
        shutil.rmtree(str(ham / f"HAM10000_images_part_{part}"))
    with pytest.raises(DataError, match=r"has HAM10000_metadata\.csv but no images.*" + PAGE):
        load(ham)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_damaged_image_is_named(ham, content):
    path = ham / "HAM10000_images_part_2" / "ISIC_2.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3] if content is None else content)
    with pytest.raises(DataError, match=r"ISIC_2\.jpg is (cut short or no image|empty)"):
        load(ham)
