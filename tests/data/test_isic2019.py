"""ISIC 2019's folder and FLamby's six centres."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
from golden import ISIC_CLASSES, ISIC_ROWS, write_csv, write_image

from skinfl.data import isic2019, load
from skinfl.data.tables import one_marked, read_table
from skinfl.errors import DataError

PAGE = "challenge.isic-archive.com"


def test_reads_classes_lesions_and_centres(isic):
    said = []
    dataset = load(isic, image_size=8, progress=lambda *event: said.append(event))
    assert dataset.name == "isic2019"
    assert dataset.classes == ("mel", "nv", "bcc", "ak", "bkl", "df", "vasc", "scc")
    # FLamby leaves out what has no lesion id.
    assert dataset.image_ids.tolist() == ["ISIC_A", "ISIC_B", "ISIC_C", "ISIC_E"]
    assert (0, 0, "1 images without a known centre are left out, as in FLamby") in said
    assert dataset.sites.tolist() == [centre for *_, centre in ISIC_ROWS if centre]
    assert dataset.lesion_ids.tolist() == ["BCN_0001", "HAM_0002", "MSK4_0003", "HAM_0002"]
    assert [dataset.classes[i] for i in dataset.labels] == ["mel", "scc", "nv", "bkl"]
    assert dataset.ages.tolist() == [55.0] * 4 and dataset.sexes[0] == "female"


def test_without_ham10000s_metadata_its_sites_are_one_centre(isic):
    (isic / "HAM10000_metadata").unlink()
    said = []
    dataset = load(isic, progress=lambda *event: said.append(event[2]))
    assert dataset.sites.tolist() == ["BCN", "HAM", "MSK", "HAM"]
    assert any("tell its four sites apart" in what for what in said)


def test_flambys_split_table_says_the_centre(isic):
    write_csv(
        isic / "train_test_split",
        ["image", "center"],
        [["ISIC_A", 0], ["ISIC_B", 1], ["ISIC_C", 4], ["ISIC_D", 5]],
    )
    dataset = load(isic)
    assert dataset.image_ids.tolist() == ["ISIC_A", "ISIC_B", "ISIC_C", "ISIC_D"]
    assert dataset.sites.tolist() == ["BCN", "HAM_vidir_molemax", "MSK", "HAM_vienna_dias"]
    # No lesion id: the photograph stands for itself.
    assert dataset.lesion_ids[3] == "ISIC_D"
    write_csv(isic / "train_test_split", ["image", "center"], [["ISIC_A", 6]])
    with pytest.raises(DataError, match=r"line 2: center '6' is not 0 to 5"):
        load(isic)


def test_a_decimal_comma_of_a_spreadsheet_marks_a_class_as_well(isic):
    file = isic / "ISIC_2019_Training_GroundTruth.csv"
    before = load(isic).labels.tolist()
    file.write_text(file.read_text().replace(",", ";").replace(".", ","))
    assert load(isic).labels.tolist() == before


def truth(isic, change):
    rows = [[name, *(float(label == c) for c in ISIC_CLASSES)] for name, label, _, _ in ISIC_ROWS]
    change(rows)
    write_csv(isic / "ISIC_2019_Training_GroundTruth.csv", ["image", *ISIC_CLASSES], rows)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda rows: rows[0].__setitem__(2, 1.0),
            r"1 images are not of just one of the classes .*\(ISIC_A\)",
        ),
        (lambda rows: rows[0].__setitem__(1, 0.0), r"1 images are not of just one of the classes"),
        (lambda rows: rows[0].__setitem__(1, "yes"), r"1 images are not of just one of the classes"),
        (lambda rows: rows.pop(), r"1 images in ISIC_2019_Training_Input have no row in .*\(ISIC_E\)"),
        (lambda rows: rows.append(["ISIC_X", *rows[0][1:]]), r"1 images of .* have no row in .*\(ISIC_X\)"),
        (lambda rows: rows.append(rows[0]), r"image ids on several rows \(ISIC_A\)"),
    ],
)
def test_faults_of_the_ground_truth(isic, change, message):
    truth(isic, change)
    with pytest.raises(DataError, match=message):
        load(isic)


def test_an_unknown_class_column_is_named(isic):
    header = ["image", *ISIC_CLASSES[:7], "SCCC", "UNK"]
    write_csv(isic / "ISIC_2019_Training_GroundTruth.csv", header, [["ISIC_A", 1, *[0] * 8]])
    with pytest.raises(DataError, match=r"has no column 'SCC' \(did you mean 'SCCC'\?\).*" + PAGE):
        load(isic)


def test_a_lesion_id_of_no_known_centre(isic):
    path = isic / "ISIC_2019_Training_Metadata.csv"
    path.write_text(path.read_text().replace("BCN_0001", "XYZ_0001"))
    with pytest.raises(DataError, match=r"line 2: lesion id 'XYZ_0001' is of no known centre"):
        load(isic)


@pytest.mark.parametrize(
    "name",
    ["ISIC_2019_Training_Metadata.csv", "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Input"],
)
def test_a_missing_part_is_named_with_its_page(isic, name):
    (isic / name).rename(isic / "elsewhere")
    with pytest.raises(DataError, match=rf"{name} is missing: get it from .*{PAGE}"):
        load(isic)


def test_a_missing_and_a_damaged_image(isic):
    image = isic / "ISIC_2019_Training_Input" / "ISIC_B.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"ISIC_B\.jpg is cut short"):
        load(isic)
    image.unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 images in .* are not in ISIC_2019_Training_Input \(ISIC_B\)"
    ):
        load(isic)


@pytest.mark.real
def test_centres_equal_flambys_own_on_all_its_images(real_data, tmp_path):
    """The prefix rule must give the centre numbers that FLamby published, for all 23,247 images."""
    split = read_table(real_data / "fed_isic2019_train_test_split.csv", ["image", "center"], "FLamby")
    ham = read_table(real_data / "HAM10000_metadata.csv", ["image_id", "lesion_id"], "Harvard")
    lesion = dict(zip(ham.columns["image_id"], ham.columns["lesion_id"]))
    prefix = {"0": "BCN_0000001", "4": "MSK4_0000001"}
    rows = list(zip(split.columns["image"], split.columns["center"]))
    about = write_csv(
        tmp_path / "about.csv",
        ["image", "lesion_id"],
        [[name, lesion.get(name, prefix.get(centre, ""))] for name, centre in rows],
    )
    table = read_table(about, ["image", "lesion_id"], "")
    metadata = real_data / "fed_isic2019_HAM10000_metadata.csv"
    centres = isic2019._centres(tmp_path, table, metadata, None)
    assert centres == {name: isic2019.CENTRES[int(centre)] for name, centre in rows}
    # The six sizes that FLamby's README gives.
    counts = Counter(centres.values())
    assert [counts[name] for name in isic2019.CENTRES] == [12413, 3954, 3363, 2259, 819, 439]


@pytest.mark.real
def test_flambys_one_hot_columns_are_read_as_its_targets(real_data):
    with open(real_data / "fed_isic2019_train_test_split.csv", newline="") as file:
        targets = [int(row["target"]) for row in csv.DictReader(file)]
    table = read_table(real_data / "fed_isic2019_train_test_split.csv", ["MEL"], "FLamby")
    marks = [name.upper() for name in isic2019.CLASSES]
    assert [one_marked(table, row, marks) for row in range(len(table))] == targets


def test_other_image_folders_are_not_looked_at(isic):
    write_image(isic / "ISIC_2019_Test_Input" / "ISIC_T.jpg", (1, 2, 3))
    assert len(load(isic)) == 4
