"""Figures are checked by what is on their axes: bars add up, lines hold the metrics, names are readable."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from skinfl.errors import SkinflError
from skinfl.predictions import LesionClass
from skinfl.report import canvas, findings, plots, wording

CLASSES = [LesionClass("mel", "melanoma", True), LesionClass("nv", "melanocytic nevus", False)]


def named(*names):
    return [LesionClass(name, name) for name in names]


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn so far, in order."""
    figures = []

    class Recorded(Figure):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            figures.append(self)

    monkeypatch.setattr(canvas, "Figure", Recorded)
    return figures


def partition_of(hospitals):
    return {
        f"hospital-{k + 1}": {"train": {"mel": k % 3, "nv": 10 + k}, "test": {"mel": 1}}
        for k in range(hospitals)
    }


def test_importing_leaves_the_users_backend_alone():
    code = "import sys, skinfl.report.plots; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]).decode().strip() == "False"


def test_drawing_ignores_and_keeps_the_users_settings(drawn, tmp_path):
    with matplotlib.rc_context():
        matplotlib.rcParams["font.size"] = 40
        before = dict(matplotlib.rcParams)
        plots.who_holds_what(partition_of(2), CLASSES, tmp_path / "who.png")
        assert dict(matplotlib.rcParams) == before
    assert drawn[0].axes[0].yaxis.label.get_size() < 12


def test_run_gives_pictures_that_a_phone_shows_large_enough(run_files, answered, tmp_path):
    figures = plots.draw_run(tmp_path / "figures", *run_files, answered)
    names = ["curves.png", "confusion.png", "roc.png", "reliability.png", "subgroups.png", "partition.png"]
    assert [each.path.name for each in figures] == names
    for each in figures:
        content = each.path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        # the smallest letters are at least 9 pixels high where the picture is 350 wide
        assert canvas.LETTERS / 72 * 170 * 350 / width >= 9 and height < 1.6 * width
        assert len(content) < 160_000 and each.alt and each.alt != each.caption
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(names)


def test_without_answers_only_rounds_and_counts_are_drawn(run_files, tmp_path):
    result, rounds = run_files
    names = [each.path.name for each in plots.draw_run(tmp_path, result, rounds)]
    assert names == ["curves.png", "confusion.png", "partition.png"]
    result.update(final=None, partition=None)
    assert [each.path.name for each in plots.draw_run(tmp_path, result, rounds)] == ["curves.png"]


def test_run_without_partition_draws_none(run_files, tmp_path):
    result, rounds = run_files
    result["partition"] = {}
    captions = [each.caption for each in plots.draw_run(tmp_path, result, rounds)]
    assert not any("Who holds what" in caption for caption in captions)


def test_curves_hold_the_test_metrics_and_the_band_the_hospitals(run_files, drawn, tmp_path):
    _, rounds = run_files
    plots.training_curves(rounds, tmp_path / "c.png")
    loss, accuracy = drawn[0].axes[:2]
    assert list(loss.lines[0].get_ydata()) == [entry.metrics["loss"] for entry in rounds]
    assert list(accuracy.lines[0].get_xdata()) == [1, 2, 3, 4]
    worst = [min(m["accuracy"] for m in entry.hospital_metrics.values()) for entry in rounds]
    best = [max(m["accuracy"] for m in entry.hospital_metrics.values()) for entry in rounds]
    assert [list(line.get_ydata()) for line in accuracy.lines[1:]] == [worst, best]
    assert list(loss.lines[2].get_ydata()) == [max(entry.train_loss.values()) for entry in rounds]


def test_curves_go_on_over_rounds_without_evaluation(run_files, drawn, tmp_path):
    _, rounds = run_files
    rounds[1] = rounds[1]._replace(metrics=None, hospital_metrics={})
    for metrics in rounds[2].hospital_metrics.values():
        metrics["macro_f1"] = None
    plots.training_curves(rounds, tmp_path / "c.png")
    balanced, macro_f1 = drawn[0].axes[2:4]
    assert list(balanced.lines[0].get_xdata()) == [1, 3, 4]
    assert list(macro_f1.lines[1].get_xdata()) == [1, 4]


def test_one_round_shows_its_number_and_its_band(run_files, drawn, tmp_path):
    _, rounds = run_files
    plots.training_curves(rounds[:1], tmp_path / "c.png")
    accuracy = drawn[0].axes[1]
    low, high = accuracy.get_xlim()
    assert [tick for tick in accuracy.get_xticks() if low <= tick <= high] == [1]
    assert accuracy.lines[1].get_marker() == "_"


def test_confusion_is_coloured_by_row_and_annotated_by_count(drawn, tmp_path):
    metrics = {"confusion": [[3, 1, 0], [0, 8, 2], [0, 0, 0]]}
    plots.confusion_matrix(metrics, named("a", "b", "absent"), tmp_path / "m.png")
    axis = drawn[0].axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 0.8, 0.2], [0, 0, 0]])
    assert [text.get_text() for text in axis.texts] == ["3", "1", "0", "0", "8", "2", "0", "0", "0"]


@pytest.mark.parametrize("hospitals", [2, 13, 100])
def test_bars_add_up_to_what_a_hospital_holds(hospitals, drawn, tmp_path):
    plots.who_holds_what(partition_of(hospitals), CLASSES, tmp_path / "w.png")
    train, test = drawn[0].axes
    tops = [bar.get_y() + bar.get_height() for bar in train.patches[hospitals:]]
    assert tops == [10 + k + k % 3 for k in range(hospitals)]
    assert [bar.get_height() for bar in test.patches] == [1] * hospitals + [0] * hospitals
    shown = [label.get_text() for label in test.get_xticklabels()]
    assert shown[0] == "hospital-1" and 2 <= len(shown) <= plots.NAMED_BARS


def test_more_classes_than_colours_are_told_apart(drawn, tmp_path):
    classes = named(*(f"class {k}" for k in range(10)))
    partition = {"a": {"train": {each.name: 1 for each in classes}, "test": {}}}
    plots.who_holds_what(partition, classes, tmp_path / "w.png")
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in drawn[0].axes[0].patches}
    assert len(looks) == 10


def test_names_are_never_formulas_and_never_endless(drawn, tmp_path):
    name = "price $x^2$ of a very long clinic number 7"
    folds = {"train": {"nv": 1}, "validation": {"mel": 1}, "test": {}}
    plots.who_holds_what({name: folds}, CLASSES, tmp_path / "w.png")
    shown = drawn[0].axes[-1].get_xticklabels()[0].get_text()
    assert shown == r"price \$x^2\$ …umber 7"


def test_costs_are_per_round_and_labelled(comparison, drawn, tmp_path):
    (figure,) = plots.draw_comparison(tmp_path, comparison)
    assert figure.path.name == "cost.png" and "1.60 MB up" in figure.alt
    traffic, time = drawn[0].axes
    assert [text.get_text() for text in traffic.texts[:3]] == ["400 kB", "1.60 MB", "5.30 MB"]
    assert [bar.get_width() for bar in time.patches[:3]] == [2.0, 2.0, 2.0]
    assert [text.get_text() for text in time.texts] == ["2.531 s", "2.570 s", "3.730 s"]


def test_folder_that_cannot_be_written(run_files, tmp_path):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(SkinflError, match="cannot write"):
        plots.draw_run(tmp_path / "figures", *run_files)


def test_names_are_in_full_and_malignant_ones_marked(run_files, drawn, tmp_path):
    result, _ = run_files
    classes = wording.classes_of(result["data"])
    plots.confusion_matrix(result["final"], classes, tmp_path / "m.png")
    plots.who_holds_what(result["partition"], classes, tmp_path / "w.png")
    rows = [label.get_text().replace("\n", " ") for label in drawn[0].axes[0].get_yticklabels()]
    assert rows[0] == "actinic keratosis or intraepithelial carcinoma (Bowen's disease) ▲"
    assert rows[3] == "dermatofibroma" and rows[4] == "melanoma ▲"
    assert [t.get_text() for t in drawn[0].axes[0].get_xticklabels()][3:5] == ["df", "mel ▲"]
    legend = [text.get_text() for text in drawn[1].legends[0].get_texts()]
    assert "melanoma ▲" in legend and "melanocytic nevus" in legend


def test_roc_curves_have_the_areas_and_intervals_of_the_result(run_files, answered, drawn, tmp_path):
    result, rounds = run_files
    plots.draw_run(tmp_path, result, rounds, answered)
    legend = [text.get_text().replace("\n", " ") for text in drawn[2].legends[0].get_texts()]
    assert legend[0].startswith("malignant against benign: 0.")
    low, high = result["auc_intervals"]["mel"]
    auc = result["final"]["per_class"]["mel"]["auc"]
    assert f"melanoma ▲: {auc:.3f} ({low:.2f}–{high:.2f})" in legend


def test_a_comparison_overlays_the_curves_of_its_runs(comparison, run_files, answered, drawn, tmp_path):
    _, rounds = run_files
    names = [run["protection"] for run in comparison["runs"]]
    figures = plots.draw_comparison(
        tmp_path, comparison, dict.fromkeys(names, rounds), dict.fromkeys(names, answered)
    )
    assert [each.path.name for each in figures] == ["rounds.png", "roc.png", "cost.png"]
    balanced = drawn[0].axes[0].lines
    assert [line.get_label() for line in balanced] == names
    assert list(balanced[0].get_ydata()) == [entry.metrics["balanced_accuracy"] for entry in rounds]
    # equal lines are seen below one another
    assert sorted({line.get_linewidth() for line in balanced}, reverse=True) == [
        line.get_linewidth() for line in balanced
    ]
    assert "malignant against benign" in figures[1].caption


@pytest.mark.parametrize("classes, name", [(named("mel", "nv"), "mel"), (named("a", "b"), "a")])
def test_runs_are_overlaid_by_melanoma_or_else_by_the_first_class(classes, name, answered):
    kept = answered._replace(
        classes=tuple(classes), probabilities=answered.probabilities[:, :2], labels=answered.labels % 2
    )
    assert plots._first_curve(kept).name == name


def test_more_curves_than_a_picture_holds(answered, drawn, tmp_path):
    curve = findings.roc_curves(answered, 0, intervals=False)[1]
    classes = named(*(f"class {k}" for k in range(40)))
    plots.roc([curve._replace(name=each.name) for each in classes], classes, tmp_path / "r.png")
    assert len(drawn[0].legends[0].get_texts()) == plots.CURVES
    counts = np.eye(40, dtype=int).tolist()
    plots.confusion_matrix({"confusion": counts}, classes, tmp_path / "m.png")
    width, height = (int.from_bytes((tmp_path / "m.png").read_bytes()[i : i + 4], "big") for i in (16, 20))
    assert height < 3 * width
