"""What the command line shows: known sources, a folder's check, who holds what."""

from __future__ import annotations

import numpy as np
import pytest
from golden import HAM_HEADER, HAM_ROWS, write_csv, write_image

from skinfl.data import inspect, synthetic
from skinfl.data.partitions import partition
from skinfl.data.splits import Split, train_test_split


def test_known_sources_name_page_and_layout():
    sources = {source.name: source for source in inspect.known_sources()}
    assert set(sources) == {
        "ham10000", "hmnist", "isic2018", "isic2019", "dermamnist", "synthetic", "pad_ufes_20",
    }  # fmt: skip
    assert "10.7910/DVN/DBW86T" in sources["ham10000"].page
    assert all(source.what and source.layout for source in sources.values())


def test_a_good_folder(ham):
    events = []
    findings = inspect.check(ham, progress=lambda *event: events.append(event))
    assert findings.problems == [] and findings.source == "ham10000"
    assert (findings.images, findings.lesions, findings.lesions_known) == (4, 3, True)
    assert findings.classes == {"akiec": 0, "bcc": 0, "bkl": 2, "df": 0, "nv": 1, "vasc": 0, "mel": 1}
    assert findings.sites == {"rosendahl": 2, "vidir_modern": 1, "vienna_dias": 1}
    assert findings.sizes == {"12x9": 4}
    assert events[-1] == (4, 4, "checking images")


def test_all_problems_are_found_at_once(ham):
    rows = [list(row) for row in HAM_ROWS]
    rows[0][2] = "nevus"
    rows.append(["HAM_8", "ISIC_8", *HAM_ROWS[0][2:]])
    write_csv(ham / "HAM10000_metadata.csv", HAM_HEADER, rows)
    write_image(ham / "HAM10000_images_part_2" / "ISIC_7.jpg", (0, 0, 0))
    (ham / "HAM10000_images_part_1" / "ISIC_1.jpg").write_bytes(b"cut")
    findings = inspect.check(ham)
    assert findings.missing == ["ISIC_8"] and findings.extra == ["ISIC_7"]
    assert findings.unknown_classes == {"nevus": 1}
    assert len(findings.problems) == 4
    for text in ("unknown class 'nevus'", "ISIC_8", "ISIC_7", "ISIC_1.jpg is cut short"):
        assert any(text in problem for problem in findings.problems), text
    assert findings.sizes == {"12x9": 2} and findings.images == 3


def test_isic2019(isic):
    findings = inspect.check(isic)
    assert findings.problems == [] and findings.source == "isic2019"
    assert findings.sites == {"BCN": 1, "HAM_rosendahl": 1, "HAM_vienna_dias": 1, "MSK": 1}
    assert findings.remarks == ["1 images without a known centre are left out, as in FLamby"]


def test_the_synthetic_set_is_named(tmp_path):
    findings = inspect.check(synthetic.write(tmp_path / "d", images=56, image_size=16))
    assert findings.source == "synthetic" and findings.synthetic and findings.problems == []


def test_tables_and_arrays(tmp_path):
    write_csv(tmp_path / "hmnist_1_2_L.csv", ["pixel0000", "pixel0001", "label"], [[9, 8, 4], [7, 6, 6]])
    findings = inspect.check(tmp_path)
    assert findings.source == "hmnist" and not findings.lesions_known and findings.sizes == {"2x1": 2}
    arrays = {f"{part}_images": np.zeros((2, 28, 28, 3), np.uint8) for part in ("train", "val", "test")}
    arrays.update({f"{part}_labels": np.ones((2, 1), np.uint8) for part in ("train", "val", "test")})
    np.savez(str(tmp_path / "dermamnist.npz"), **arrays)
    findings = inspect.check(tmp_path / "dermamnist.npz")
    assert findings.source == "dermamnist" and findings.classes["bcc"] == 6
    del arrays["val_labels"]
    np.savez(str(tmp_path / "dermamnist.npz"), **arrays)
    findings = inspect.check(tmp_path / "dermamnist.npz")
    assert "has no array 'val_labels'" in findings.problems[0] and findings.source == "dermamnist"


def test_what_cannot_be_read_at_all_is_one_problem(tmp_path):
    findings = inspect.check(tmp_path / "nowhere")
    assert len(findings.problems) == 1 and "does not exist" in findings.problems[0]
    assert findings.images == 0 and findings.source == ""


def test_who_holds_what_by_hand(make):
    dataset = make(["u", "u", "v", "w", "x"], [0, 0, 1, 1, 0])
    split = Split(np.array([0, 2, 3]), np.array([1, 4]), "grouped", 1)
    summary = inspect.summarise_split(dataset, split, {"a": np.array([0, 2]), "b": np.array([1, 3, 4])})
    assert summary == {
        "classes": ["class-0", "class-1"],
        "protocol": "grouped",
        "leaked_lesions": 1,
        "lesions_known": True,
        "leaked_patients": None,
        "shared_lesions": 1,
        "train": [1, 2],
        "test": [2, 0],
        "hospitals": {
            "a": {"lesions": 2, "train": [1, 1], "test": [0, 0]},
            "b": {"lesions": 3, "train": [0, 1], "test": [2, 0]},
        },
    }


@pytest.mark.parametrize("protocol, copies", [("grouped", 1), ("published", 10)])
def test_hospitals_add_up_to_the_split(many, protocol, copies):
    split = train_test_split(many, protocol=protocol)
    summary = inspect.summarise_split(many, split, partition(many))
    for part in ("train", "test"):
        total = np.sum([hospital[part] for hospital in summary["hospitals"].values()], axis=0)
        assert total.tolist() == summary[part]
    assert sum(summary["train"]) + sum(summary["test"]) == 600 * copies
    assert summary["shared_lesions"] == 0 and (summary["leaked_lesions"] == 0) == (protocol == "grouped")


@pytest.mark.real
def test_real_tables_have_no_problem(real_data):
    findings = inspect.check(real_data)
    assert findings.problems == [] and findings.images == 10015 and findings.lesions == 7470
