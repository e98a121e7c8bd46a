"""ISIC 2018's Task 3: tables of ground truth with their photographs, and what tells their lesions."""

from __future__ import annotations

import pytest
from golden import HAM_HEADER, HAM_ROWS, write_csv, write_image

from skinfl.data import inspect, load
from skinfl.data.ham10000 import CLASSES
from skinfl.errors import DataError

HEADER = ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
#: image, class and lesion, HAM10000's first three of the golden rows and another
ROWS = [
    ("ISIC_0", "BKL", "HAM_0"),
    ("ISIC_1", "BKL", "HAM_0"),
    ("ISIC_2", "MEL", "HAM_1"),
    ("ISIC_9", "AKIEC", "HAM_9"),
]
PAGE = "challenge.isic-archive.com"


def write_part(folder, part, rows=ROWS):
    for i, (name, *_) in enumerate(rows):
        write_image(folder / f"ISIC2018_Task3_{part}_Input" / f"{name}.jpg", (40 * i, 100, 100))
    return write_csv(
        folder / f"ISIC2018_Task3_{part}_GroundTruth.csv",
        HEADER,
        [[name, *(float(label == c) for c in HEADER[1:])] for name, label, _ in rows],
    )


@pytest.fixture
def folder(tmp_path):
    """The training part with its groupings."""
    write_part(tmp_path / "isic", "Training")
    write_csv(
        tmp_path / "isic" / "ISIC2018_Task3_Training_LesionGroupings.csv",
        ["image", "lesion_id", "diagnosis_confirm_type"],
        [[name, lesion, "histopathology"] for name, _, lesion in ROWS],
    )
    return tmp_path / "isic"


TRUTH = "ISIC2018_Task3_Training_GroundTruth.csv"


def said(source, **options):
    remarks = []
    dataset = load(source, image_size=8, progress=lambda done, total, what: remarks.append(what), **options)
    return dataset, [what for what in remarks if what != "decoding images"]


def test_reads_classes_and_lesions(folder):
    dataset, remarks = said(folder)
    assert dataset.name == "isic2018" and dataset.classes == CLASSES and dataset.lesions_known
    assert [dataset.classes[i] for i in dataset.labels] == ["bkl", "bkl", "mel", "akiec"]
    assert dataset.image_ids.tolist() == [name for name, *_ in ROWS]
    assert dataset.lesion_ids.tolist() == [lesion for *_, lesion in ROWS]
    assert dataset.images.shape == (4, 8, 8, 3) and remarks == []
    findings = inspect.check(folder)
    assert findings.problems == [] and findings.source == "isic2018" and findings.lesions == 3


def test_ham10000s_metadata_tell_sites_ages_and_sexes(folder):
    write_csv(folder / "HAM10000_metadata", HAM_HEADER, HAM_ROWS)
    dataset, _ = said(folder)
    assert dataset.name == "isic2018"
    assert dataset.sites.tolist() == ["rosendahl", "rosendahl", "vidir_modern", ""]
    assert dataset.sexes.tolist() == ["male", "male", "", ""] and dataset.ages[0] == 80.0
    assert dataset.lesion_ids.tolist() == [lesion for *_, lesion in ROWS]
    (folder / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    dataset, remarks = said(folder)
    assert dataset.lesion_ids.tolist() == ["HAM_0", "HAM_0", "HAM_1", "ISIC_9"] and not dataset.lesions_known
    assert "the lesions of 1 images are not known" in remarks[0]


def test_a_metadata_table_elsewhere(folder, tmp_path):
    table = write_csv(tmp_path / "mine.csv", HAM_HEADER, HAM_ROWS)
    assert said(folder, metadata=table)[0].sites[0] == "rosendahl"


def test_without_groupings_no_leak_can_be_ruled_out(folder):
    (folder / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    dataset, remarks = said(folder)
    assert not dataset.lesions_known and dataset.lesion_ids.tolist() == dataset.image_ids.tolist()
    assert "the lesions of 4 images are not known" in remarks[0]
    assert not inspect.check(folder).lesions_known


def test_of_several_parts_the_training_set_is_read_and_a_table_chooses_another(folder):
    write_part(folder, "Validation", [("ISIC_5", "NV", "")])
    test = write_part(folder, "Test", [("ISIC_6", "DF", ""), ("ISIC_7", "VASC", "")])
    dataset, remarks = said(folder)
    assert dataset.name == "isic2018" and len(dataset) == 4
    assert "ISIC2018_Task3_Training_GroundTruth.csv is read, not ISIC2018_Task3_Test" in remarks[0]
    dataset, _ = said(test)
    assert dataset.name == "isic2018_test" and dataset.image_ids.tolist() == ["ISIC_6", "ISIC_7"]
    assert [dataset.classes[i] for i in dataset.labels] == ["df", "vasc"]


@pytest.mark.parametrize("given", ["folder", "table"])
def test_zip_files_unpacked_into_folders_of_their_names(folder, given):
    own = folder / "ISIC2018_Task3_Training_GroundTruth"
    own.mkdir()
    (folder / TRUTH).rename(own / TRUTH)
    inputs = folder / "ISIC2018_Task3_Training_Input"
    inputs.rename(folder / "x")
    inputs.mkdir()
    (folder / "x").rename(inputs / inputs.name)
    assert len(said(folder if given == "folder" else own / TRUTH)[0]) == 4


def test_harvards_copy_of_the_test_set(tmp_path):
    write_csv(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv", HAM_HEADER, HAM_ROWS)
    for _, name, *_ in HAM_ROWS:
        write_image(tmp_path / "ISIC2018_Task3_Test_Images" / f"{name}.jpg", (1, 2, 3))
    dataset, remarks = said(tmp_path)
    assert dataset.name == "isic2018_test" and dataset.lesions_known and remarks == []
    assert dataset.lesion_ids.tolist() == [row[0] for row in HAM_ROWS]
    assert [dataset.classes[i] for i in dataset.labels] == [row[2] for row in HAM_ROWS]


def test_beside_ham10000_that_one_is_read(folder, ham):
    for path in folder.iterdir():
        path.rename(ham / path.name)
    dataset, remarks = said(ham)
    assert dataset.name == "ham10000" and len(dataset) == 4
    assert "ham10000 is read, not ISIC2018_Task3_Training_GroundTruth.csv" in remarks[0]
    assert len(said(ham / TRUTH)[0]) == 4


def truth(folder, change, header=HEADER):
    rows = [[name, *(float(label == c) for c in HEADER[1:])] for name, label, _ in ROWS]
    change(rows)
    write_csv(folder / TRUTH, header, rows)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows[0].__setitem__(1, 1.0), r"1 images are not of just one .*AKIEC.*\(ISIC_0\)"),
        (lambda rows: rows[0].__setitem__(5, 0.0), r"1 images are not of just one of the classes"),
        (lambda rows: rows[0].__setitem__(5, "yes"), r"1 images are not of just one of the classes"),
        (lambda rows: rows.pop(), r"1 images in ISIC2018_Task3_Training_Input have no row in .*\(ISIC_9\)"),
        (lambda rows: rows.append(["ISIC_X", *rows[0][1:]]), r"1 of 5 images in .* are not in .*\(ISIC_X"),
        (lambda rows: rows.append(rows[0]), r"image ids on several rows \(ISIC_0\)"),
        (lambda rows: rows[1].pop(), r"line 3: 7 values for 8 columns"),
        (lambda rows: rows.clear(), r"has no rows: get it again from .*" + PAGE),
    ],
)
def test_faults_of_the_ground_truth(folder, change, message):
    truth(folder, change)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_an_unknown_class_column_is_named(folder):
    truth(folder, lambda rows: None, ["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC"])
    with pytest.raises(DataError, match=r"has no column 'AKIEC'.*" + PAGE):
        load(folder)


@pytest.mark.parametrize("name", [TRUTH, "ISIC2018_Task3_Training_Input"])
def test_a_missing_part_is_named_with_its_page(folder, name):
    (folder / name).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=rf"{name} is missing.*: get it from .*{PAGE}"):
        load(folder)


def test_groupings_of_other_columns(folder):
    write_csv(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", ["image", "lesion"], [["ISIC_0", "a"]])
    with pytest.raises(DataError, match=r"LesionGroupings\.csv has no column 'lesion_id'"):
        load(folder)


def test_a_missing_and_a_damaged_image(folder):
    image = folder / "ISIC2018_Task3_Training_Input" / "ISIC_2.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"ISIC_2\.jpg is cut short"):
        load(folder)
    image.unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 images in .* are not in .* \(ISIC_2\): get them from .*" + PAGE
    ):
        load(folder)
    (findings) = inspect.check(folder)
    assert findings.missing == ["ISIC_2"] and findings.images == 3
