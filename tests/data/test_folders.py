"""Folders as people have them: litter, unreadable neighbours, odd names, and what is not recognised."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from golden import HAM_HEADER, HAM_ROWS, ISIC_ROWS, write_csv, write_image

from skinfl.data import inspect, load, synthetic
from skinfl.errors import DataError

TWIN = b"\0\5\26\7Mac OS X        " + bytes(4000)


@pytest.fixture
def locked(monkeypatch):
    """Return what makes folders unreadable, for root as well."""
    names = set()
    listdir, access = os.listdir, os.access

    def refuse(folder="."):
        if os.path.basename(str(folder)) in names:
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr("os.listdir", refuse)
    monkeypatch.setattr(
        "os.access", lambda path, mode: os.path.basename(str(path)) not in names and access(path, mode)
    )
    return names.add


@pytest.mark.parametrize("published", [True, False])
def test_an_unreadable_neighbour_does_no_harm(ham, locked, published):
    if not published:
        for part in (1, 2):
            (ham / f"HAM10000_images_part_{part}").rename(ham / f"part {part}")
    (ham / "lost+found").mkdir()
    locked("lost+found")
    assert len(load(ham)) == 4 and inspect.check(ham).problems == []


@pytest.mark.parametrize("name", ["ham", "HAM10000_images_part_2"])
def test_an_unreadable_folder_that_is_needed_is_named(ham, locked, name):
    locked(name)
    with pytest.raises(DataError, match=rf"{name} cannot be read \(Permission denied\): allow it to be read"):
        load(ham)
    assert len(inspect.check(ham).problems) == 1


def test_an_unreadable_folder_in_isic2019(isic, locked):
    (isic / "lost+found").mkdir()
    locked("lost+found")
    assert len(load(isic)) == 4
    locked("ISIC_2019_Training_Input")
    with pytest.raises(DataError, match=r"ISIC_2019_Training_Input cannot be read"):
        load(isic)


def litter(folder):
    for path in list(folder.rglob("*")):
        if path.is_file():
            (path.parent / f"._{path.name}").write_bytes(TWIN)
            (path.parent / f"~${path.name}").write_bytes(b"\x06Me" + bytes(160))
            (path.parent / f".~lock.{path.name}#").write_text(",me,host,25.11.2026;")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\0\0\1")
    shutil.copytree(
        str(folder / next(p.name for p in folder.iterdir() if p.is_dir())), str(folder / "__MACOSX")
    )


def test_litter_of_systems_and_editors_is_passed_over(ham, isic):
    write_csv(isic / "train_test_split", ["image", "center"], [[name, 0] for name, *_ in ISIC_ROWS])
    for folder in (ham, isic):
        before = load(folder).digest()
        litter(folder)
        assert load(folder).digest() == before and inspect.check(folder).problems == []


def test_two_split_tables_of_flamby_are_refused_and_one_is_named(isic):
    rows = [[name, 0] for name, *_ in ISIC_ROWS]
    write_csv(isic / "train_test_split.csv", ["image", "center"], rows)
    said = []
    assert len(load(isic, progress=lambda *event: said.append(event[2]))) == 5
    assert "centres are those of FLamby's table train_test_split.csv" in said
    write_csv(isic / "pilot_train_test_split.csv", ["image", "center"], rows[:2])
    with pytest.raises(
        DataError, match=r"\(pilot_train_test_split\.csv, train_test_split\.csv\).*keep the one"
    ):
        load(isic)


def test_which_of_several_metadata_tables_is_read_is_said(ham):
    shutil.copy(str(ham / "HAM10000_metadata.csv"), str(ham / "my_HAM10000_metadata.csv"))
    remarks = inspect.check(ham).remarks
    assert remarks == [
        "of several metadata tables HAM10000_metadata.csv is read, not my_HAM10000_metadata.csv"
    ]


def test_a_folder_of_isic2019_without_its_images_is_no_ham10000(isic):
    (isic / "ISIC_2019_Training_Input").rename(isic / "ISIC_2019_Training_Input_preprocessed")
    with pytest.raises(
        DataError, match=r"Training_Input is missing: rename ISIC_2019_Training_Input_preproc"
    ):
        load(isic)


def test_zip_files_unpacked_into_folders_of_their_names_are_read(ham, isic):
    for folder in (ham / "HAM10000_images_part_1", isic / "ISIC_2019_Training_Input"):
        before = load(folder.parent).digest()
        folder.rename(folder.parent / "x")
        folder.mkdir()
        (folder.parent / "x").rename(folder / folder.name)
        assert load(folder.parent).digest() == before


@pytest.mark.parametrize(
    "name", ["HAM10000_metadata.tsv", "ham10000_metadata.csv", "HAM10000_metadata (1).csv"]
)
def test_a_table_of_another_name_is_pointed_at(ham, name):
    (ham / "HAM10000_metadata.csv").rename(ham / name)
    with pytest.raises(DataError) as caught:
        load(ham)
    assert f"HAM10000_metadata.csv is missing: rename {name!r}, which has its columns" in str(caught.value)


def isic2020(folder):
    header = ["image_name", "patient_id", "sex", "age_approx", "diagnosis", "benign_malignant", "target"]
    write_csv(folder / "train.csv", header, [["ISIC_1", "IP_1", "male", 45, "unknown", "benign", 0]])
    write_image(folder / "train" / "ISIC_1.jpg", (1, 2, 3))


def isic2024(folder):
    (folder / "train-image.hdf5").write_bytes(b"\x89HDF")
    write_csv(folder / "train-metadata.csv", ["isic_id", "target"], [["ISIC_1", 0]])


def by_class(folder):
    for name in ("mel", "nv"):
        write_image(folder / "train" / name / "a.jpg", (1, 2, 3))


def above(folder):
    write_image(folder / "Data" / "HAM10000_images_part_1" / "ISIC_0.jpg", (1, 2, 3))
    write_csv(folder / "Data" / "HAM10000_metadata.csv", HAM_HEADER, HAM_ROWS[:1])


@pytest.mark.parametrize(
    "make, message",
    [
        (isic2020, r"it has ISIC 2020, which is not read \(yet\), 1 \.jpg in train/"),
        (isic2024, r"it has ISIC 2024, which is not read \(yet\)"),
        (by_class, r"it has 1 \.jpg in train/mel/, 1 \.jpg in train/nv/; looked for"),
        (
            lambda f: write_image(f / "a.tif", (1, 2, 3)),
            r"1 \.tif \(not read: images must be \.jpg, \.jpeg, \.png",
        ),
        (lambda f: (f / "a.dcm").write_bytes(b"DICM"), r"1 \.dcm \(not read"),
        (lambda f: (f / "HAM10000.zip").write_bytes(b"PK"), r"it has HAM10000\.zip \(not unpacked\)"),
        (lambda f: write_csv(f / "labels.csv", ["x"], [["y"]]), r"it has the table labels\.csv"),
        (lambda f: (f / "deep").mkdir(), r"it has deep; looked for"),
        (above, r"holds no data set itself, but ham10000 lies in the folder Data in it: give .*Data$"),
    ],
)
def test_an_unknown_folder_says_what_lies_there_and_what_was_looked_for(tmp_path, make, message):
    folder = tmp_path / "unknown"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    text = str(caught.value)
    assert "is missing" not in text and "\n" not in text
    if make is not above:
        for looked_for in (
            "HAM10000_metadata.csv",
            "hmnist_*.csv",
            "dermamnist*.npz",
            "img_id and diagnostic",
        ):
            assert looked_for in text


def test_images_that_lie_deeper_are_said(ham):
    for part in (1, 2):
        shutil.move(str(ham / f"HAM10000_images_part_{part}"), str(ham / "sub" / f"part_{part}"))
    with pytest.raises(DataError, match=r"no images \(it has 2 \.jpg in sub/part_1/, 2 \.jpg in sub/part_2/"):
        load(ham)


def test_ids_with_an_ending_are_said(ham):
    rows = [[row[0], f"{row[1]}.jpg", *row[2:]] for row in HAM_ROWS]
    write_csv(ham / "HAM10000_metadata.csv", HAM_HEADER, rows)
    with pytest.raises(DataError, match=r"4 are there without the ending in the table's ids"):
        load(ham)


@pytest.mark.parametrize(
    "source, message",
    [
        ("", "no data set is named"),
        (" ", "no data set is named"),
        ("x" * 300, "does not exist: give a folder"),
        ("a\0b", "does not exist"),
        ("~nobody-of-this-name/data", "does not exist"),
        ("https://example.org/HAM10000.zip", "does not exist: nothing is downloaded, get it first"),
        ("C:\\Users\\me\\HAM10000", "does not exist"),
    ],
)
def test_odd_names_are_one_line(source, message):
    with pytest.raises(DataError, match=message):
        load(source)
    assert len(inspect.check(source).problems) == 1


def test_the_home_folder_stands_for_its_sign(ham, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    table = (ham / "HAM10000_metadata.csv").rename(tmp_path / "table.csv")
    monkeypatch.setenv("SKINFL_CACHE", "~/kept")
    assert len(load(f"~/{ham.name}", metadata=f"~/{table.name}")) == 4
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_table_that_a_data_set_does_not_take_is_refused(tmp_path, ham):
    arrays = {f"{part}_images": np.zeros((2, 28, 28, 3), np.uint8) for part in ("train", "val", "test")}
    arrays.update({f"{part}_labels": np.ones((2, 1), np.uint8) for part in ("train", "val", "test")})
    np.savez(str(tmp_path / "dermamnist.npz"), **arrays)
    table = ham / "HAM10000_metadata.csv"
    for source in (tmp_path / "dermamnist.npz", "synthetic"):
        with pytest.raises(
            DataError, match=r"(dermamnist|synthetic) takes no separate metadata table: leave"
        ):
            load(source, metadata=table)


def test_drawing_into_a_folder_that_may_not_be_read(tmp_path, locked):
    (tmp_path / "taken").mkdir()
    locked("taken")
    with pytest.raises(
        DataError, match=r"taken cannot be written \(Permission denied\): give another folder"
    ):
        synthetic.write(tmp_path / "taken", images=56, image_size=16)
    with pytest.raises(DataError, match=r"x cannot be written \(File name too long\): give another folder"):
        synthetic.write(tmp_path / ("x" * 300), images=56, image_size=16)
