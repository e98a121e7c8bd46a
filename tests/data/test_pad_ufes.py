"""PAD-UFES-20's folder: what is read, and each fault a user may bring."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden import write_csv, write_image

from skinfl.data import LesionClass, inspect, load
from skinfl.data.splits import leaked_patients, train_test_split
from skinfl.errors import DataError

PAGE = "data.mendeley.com/datasets/zr7vgbcyr2"
#: the columns of the publisher's table
HEADER = [
    "patient_id", "lesion_id", "smoke", "drink", "background_father", "background_mother", "age", "pesticide",
    "gender", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick",
    "region", "diameter_1", "diameter_2", "diagnostic", "itch", "grew", "hurt", "changed", "bleed",
    "elevation", "img_id", "biopsed",
]  # fmt: skip


def row(patient, lesion, number, diagnostic, age="55", gender="FEMALE"):
    values = dict.fromkeys(HEADER, "")
    values.update(
        patient_id=f"PAT_{patient}", lesion_id=str(lesion), diagnostic=diagnostic, age=age, gender=gender,
        region="ARM", smoke="False", itch="UNK", biopsed="True",
        img_id=f"PAT_{patient}_{lesion}_{number}.png",
    )  # fmt: skip
    return [values[name] for name in HEADER]


ROWS = [
    row(1516, 1765, 530, "NEV", age="8", gender=""),
    row(46, 881, 939, "BCC"),
    row(46, 881, 140, "BCC"),
    row(46, 900, 12, "ACK"),
    row(1545, 1867, 547, "MEL", gender="MALE"),
]
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200)]


@pytest.fixture
def pad(tmp_path):
    """A folder in Mendeley's layout, one zip unpacked in place and two into folders of their names."""
    folder = tmp_path / "pad"
    places = ["imgs_part_1", "imgs_part_2/imgs_part_2", "imgs_part_2/imgs_part_2", "imgs_part_3/imgs_part_3"]
    for values, colour, place in zip(ROWS, COLOURS, [*places, "imgs_part_1"]):
        write_image(folder / place / values[HEADER.index("img_id")], colour)
    write_csv(folder / "metadata.csv", HEADER, ROWS)
    return folder


def test_reads_the_rows_in_order_with_their_images(pad):
    dataset = load(pad, image_size=8)
    assert dataset.name == "pad_ufes_20" and dataset.lesions_known and not dataset.synthetic
    assert dataset.classes == ("ack", "bcc", "mel", "nev", "scc", "sek")
    assert dataset.labels.tolist() == [3, 1, 1, 0, 2]
    assert dataset.lesion_ids.tolist() == [
        "PAT_1516_1765", "PAT_46_881", "PAT_46_881", "PAT_46_900", "PAT_1545_1867",
    ]  # fmt: skip
    assert dataset.patient_ids.tolist() == ["PAT_1516", "PAT_46", "PAT_46", "PAT_46", "PAT_1545"]
    assert dataset.image_ids[0] == "PAT_1516_1765_530"
    assert dataset.sexes.tolist() == ["", "female", "female", "female", "male"]
    assert dataset.ages.tolist() == [8.0, 55.0, 55.0, 55.0, 55.0] and set(dataset.sites) == {""}
    assert np.array_equal(dataset.images[:, 0, 0], COLOURS)


def test_its_classes_say_which_are_cancer(pad):
    info = load(pad).class_info
    assert [each.name for each in info if each.malignant] == ["bcc", "mel", "scc"]
    assert info[5] == LesionClass("sek", "seborrheic keratosis", False)


def test_a_patients_lesions_are_never_in_both_parts(pad):
    dataset = load(pad)
    for seed in range(10):
        split = train_test_split(dataset, seed=seed)
        assert leaked_patients(dataset, split.train, split.test) == 0


def test_a_check_reads_it_and_the_table_stands_for_its_folder(pad):
    findings = inspect.check(pad)
    assert findings.problems == [] and findings.source == "pad_ufes_20" and findings.lesions == 4
    assert len(load(pad / "metadata.csv")) == 5


def test_the_table_may_lie_elsewhere_and_images_in_any_folder(pad, tmp_path):
    table = (pad / "metadata.csv").rename(tmp_path / "table.csv")
    (pad / "imgs_part_1").rename(pad / "pictures")
    for name in ("imgs_part_2", "imgs_part_3"):
        (pad / name / name).rename(pad / f"more {name}")
        (pad / name).rmdir()
    assert len(load(pad, metadata=table)) == 5


def put(number, column, value):
    return lambda rows: rows[number].__setitem__(HEADER.index(column), value)


@pytest.mark.parametrize(
    "change, message",
    [
        (put(1, "diagnostic", "BOD"), r"metadata\.csv, line 3: unknown diagnostic 'bod'"),
        (put(3, "age", "old"), r"line 5: age 'old' is no number of years"),
        (put(3, "patient_id", ""), r"line 5: patient_id is empty.*" + PAGE),
        (put(3, "lesion_id", "UNK"), r"line 5: lesion_id is empty"),
        (put(1, "img_id", ROWS[0][24]), r"image ids on several rows \(PAT_1516_1765_530\)"),
        (lambda rows: rows.pop(), r"1 images in .* have no row in .* \(PAT_1545_1867_547\)"),
        (lambda rows: rows.append(row(9, 9, 9, "SEK")), r"1 of 6 images in .*\(PAT_9_9_9\).*" + PAGE),
        (lambda rows: rows[2].pop(), r"line 4: 25 values for 26 columns"),
    ],
)
def test_faults_of_the_table(pad, change, message):
    rows = [list(values) for values in ROWS]
    change(rows)
    write_csv(pad / "metadata.csv", HEADER, rows)
    with pytest.raises(DataError, match=message):
        load(pad)


def test_what_is_not_known_stays_open(pad):
    rows = [list(values) for values in ROWS]
    put(0, "age", "UNK")(rows)
    write_csv(pad / "metadata.csv", HEADER, rows)
    assert math.isnan(load(pad).ages[0])


def test_without_its_table_that_is_what_is_missing(pad):
    (pad / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"pad/metadata\.csv is missing: get it from .*" + PAGE):
        load(pad)


def test_a_table_without_images(pad):
    for part in (1, 2, 3):
        (pad / f"imgs_part_{part}").rename(pad.parent / f"imgs_part_{part}")
    with pytest.raises(
        DataError, match=r"has metadata\.csv but no images \(it has the table metadata\.csv\)"
    ):
        load(pad)
