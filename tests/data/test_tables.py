"""Tables as published, and as spreadsheets and scripts save them again."""

from __future__ import annotations

import os

import pytest

from skinfl.data import load, tables
from skinfl.data.tables import age, known, read_table
from skinfl.errors import DataError

ROWS = [["a", "b c", "note"], ["1", "x", "plain"], ["2", "", "with, comma"], ["3", "N/A", "Rücken"]]


def write(path, separator=",", newline="\n", encoding="utf-8", quote=False, before=""):
    def cell(value):
        return f'"{value}"' if quote or separator in value or "," in value else value

    text = before + "".join(separator.join(map(cell, row)) + newline for row in ROWS)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("quote", [False, True])
def test_all_that_a_spreadsheet_saves_reads_the_same(tmp_path, separator, newline, encoding, quote):
    table = read_table(write(tmp_path / "t.csv", separator, newline, encoding, quote), ["a", "b c"], "PAGE")
    assert table.columns == {
        "a": ["1", "2", "3"],
        "b c": ["x", "", "N/A"],
        "note": [row[2] for row in ROWS[1:]],
    }
    assert table.lines == [2, 3, 4] and table.where(2) == f"{tmp_path / 't.csv'}, line 4"
    assert tables.header(tmp_path / "t.csv") == ["a", "b c", "note"]


@pytest.mark.parametrize("separator", [",", ";"])
def test_excels_line_about_the_separator_is_understood(tmp_path, separator):
    path = write(tmp_path / "t.csv", separator, before=f"sep={separator}\n")
    table = read_table(path, ["a"], "PAGE")
    assert table.columns["a"] == ["1", "2", "3"] and table.lines == [3, 4, 5]
    assert tables.header(path) == ["a", "b c", "note"]


def read(tmp_path, content, required=("a", "b")):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, required, "PAGE")


def test_every_value_stays_the_text_it_is(tmp_path):
    table = read(tmp_path, "a,b\n007,1e3\nNA,nan\nTrue, 2 \nNone,2020-01-01\n")
    assert table.columns == {"a": ["007", "NA", "True", "None"], "b": ["1e3", "nan", "2", "2020-01-01"]}


def test_lines_are_those_of_the_file(tmp_path):
    assert read(tmp_path, "a,b\n\n1,x\n\n2,y\n").lines == [3, 5]
    table = read(tmp_path, '\n\na,b\n1,x\n\n  \n2,"two\nlines"\n3,y\n,\n')
    assert table.columns == {"a": ["1", "2", "3"], "b": ["x", "two\nlines", "y"]}
    assert table.lines == [4, 8, 9]


def test_empty_columns_and_rows_of_a_spreadsheet_are_passed_over(tmp_path):
    table = read(tmp_path, ",a,b,,\n0,1,x,,\n1,2,y,,\n,,,,\n,,,,\n")
    assert table.columns == {"a": ["1", "2"], "b": ["x", "y"]}


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"t\.csv has no column 'a' \(it is empty\): get it again from PAGE"),
        ("a,b\n", r"has no rows"),
        ("a,b\n\n,\n", r"has no rows"),
        ("a,b\n1,2\n3\n", r"t\.csv, line 3: 1 values for 2 columns: get it again from PAGE"),
        ("a,b\n1,2\n3,4,5\n", r"line 3: 3 values for 2 columns"),
        ("a,b\n1,2,9\n3,4,5\n", r"line 2: 3 values for 2 columns"),
        ("a,b\n1,\n3\n", r"line 3: 1 values for 2 columns"),
        ('a,b\n1,"x\ny"\n3\n', r"line 4: 1 values for 2 columns"),
        ("a,b,a\n1,2,3\n", r"has several columns named 'a': keep the one that counts"),
        ("a, b ,c,b\n1,2,3,4\n", r"has several columns named 'b'"),
        ("a,bb\n1,2\n", r"no column 'b' \(did you mean 'bb'\?\)"),
        ("A,B\n1,2\n", r"no column 'a'"),
        (",".join(f"pixel{i:04d}" for i in range(90)), r"^.{0,300}and 82 more.{0,40}$"),
        (b"a,b\n1,\0\n", r"cannot be read as a table \(it is no text, it holds the character '\\x00'\)"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", r"it is no text"),
        (b"PK\3\4" + bytes(range(256)), r"it is a zip or Excel file: unpack it, or save it as CSV"),
        ('a,b\n1,"2\n', r"cannot be read as a table \(a quotation mark is not closed\)"),
        ("a,b\n1," + "x" * 200_000 + "\n", r"^.{0,400}$"),
        ("<!DOCTYPE html><html><title>Log in</title>\n" * 3, r"^.{0,400}$"),
    ],
)
def test_faults_are_one_short_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_table_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DataError, match=r"t\.csv cannot be read \(Permission denied\): allow it to be read"):
        read_table(path, ["a"], "PAGE")


@pytest.mark.parametrize(
    "value", ["", "NA", "N/A", "#N/A", "nan", "NULL", "none", "Unknown", "UNK", "?", "-"]
)
def test_what_means_not_known(value):
    assert known(value) == ""


@pytest.mark.parametrize("value, years", [("55", 55), ("55.0", 55), ("45,5", 45.5), ("0", 0), ("5.", 5)])
def test_ages(tmp_path, value, years):
    assert age(read(tmp_path, f'a,b\n"{value}",x\n'), "a", 0) == years


@pytest.mark.parametrize(
    "value", ["-5", "900", "1e999", "0x10", "80-85", "old", "5,5,5", "inf", "1_0", "x" * 900]
)
def test_impossible_ages(tmp_path, value):
    table = read(tmp_path, f'a,b\n"{value}",x\n')
    with pytest.raises(DataError, match=r"line 2: a '.*' is no number of years: mend or empty it") as caught:
        age(table, "a", 0)
    assert len(str(caught.value)) < 300


def test_a_second_column_of_labels_does_not_replace_the_first(ham):
    path = ham / "HAM10000_metadata.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",dx", *(line + ",nv" for line in lines[1:])]) + "\n")
    with pytest.raises(DataError, match=r"HAM10000_metadata\.csv has several columns named 'dx'"):
        load(ham)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_metadata_table_saved_by_excel_on_windows(ham, encoding):
    path = ham / "HAM10000_metadata.csv"
    before = load(ham)
    path.write_bytes(path.read_text().replace(",", ";").replace("\n", "\r\n").encode(encoding))
    after = load(ham)
    assert after.digest() == before.digest() and after.sites[0] == "rosendahl"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_folder_in_a_tables_place_is_refused_at_once(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.csv"))
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "folder.csv"):
        with pytest.raises(DataError, match=rf"{name} cannot be read \(it is no file\)"):
            tables.read_table(tmp_path / name, ["image"], "https://example.org")
        assert tables.header(tmp_path / name) == [] and tables.cells(tmp_path / name) == []
