from __future__ import annotations

import io

import pytest
from rich.console import Console

from skinfl.report import wording
from skinfl.report.table import as_markdown, comparison_rows, print_classes, print_comparison


def printed(comparison, width):
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width))
    return file.getvalue()


def test_rows_hold_every_quantity(comparison):
    comparison["runs"][1]["final"]["auc"] = None
    comparison["runs"][1]["seconds"]["train"] = 8.4
    headers, rows = comparison_rows(comparison)
    assert headers == ["", "plaintext", "smpc", "he"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["Accuracy"] == [f"{run['final']['accuracy']:.3f}" for run in comparison["runs"]]
    assert cells["AUC, one-vs-rest"][1] == "–"
    assert cells["Largest difference from plaintext"] == ["0", "3.1e-06", "2.4e-05"]
    assert cells["Seconds per round: train"] == ["2.000", "2.100", "2.000"]
    assert cells["Seconds per round: protect"] == ["0.001", "0.040", "1.200"]
    assert cells["Bytes up per hospital and round"] == ["400 kB", "1.60 MB", "5.30 MB"]
    assert cells["Bytes up, multiple of float32"] == ["1.00×", "4.00×", "13.2×"]
    assert cells["The aggregator sees"][0] == "every hospital's update and example count"


def test_difference_of_a_run_that_has_none_is_undefined(comparison):
    del comparison["differences"]["he"]
    cells = {row[0]: row[1:] for row in comparison_rows(comparison)[1]}
    assert cells["Largest difference from plaintext"] == ["0", "3.1e-06", "–"]


@pytest.mark.parametrize("runs, width", [(3, 80), (5, 100)])
def test_no_cell_is_broken_in_a_terminal(comparison, runs, width):
    comparison["runs"] = (comparison["runs"] * 2)[:runs]
    lines = printed(comparison, width).splitlines()
    assert max(map(len, lines)) <= width
    for row in comparison_rows(comparison)[1][:-1]:
        assert any(all(cell in line for cell in row) for line in lines), row


def test_names_in_brackets_are_text_not_markup(comparison):
    comparison["runs"][1]["protection"] = "[red]smpc"
    comparison["runs"][1]["aggregator_sees"] = "shares in [0, 2^64)"
    text = printed(comparison, 100)
    assert "[red]smpc" in text and "shares in [0, 2^64)" in text


def test_markdown_is_one_rectangular_table(comparison):
    comparison["runs"][2]["protection"] = "he|packed"
    text = as_markdown(comparison)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {5}
    assert "| Bytes up, multiple of float32 | 1.00× | 4.00× | 13.2× |" in table
    assert "- smpc: per party: uniformly random shares; together only the sum" in text
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_warnings_on_the_data_come_first(comparison):
    data = comparison["runs"][0]["data"]
    data.update(protocol="published", leaked_lesions=17)
    for text in (printed(comparison, 200), as_markdown(comparison)):
        assert (
            text.index("Synthetic data") < text.index("Published protocol") < text.index("Leak: 17 lesions")
        )
        assert text.index("Leak: 17 lesions") < text.index("Accuracy")
        assert "Drawn with seed 0." in text


def test_real_grouped_data_needs_no_warning(comparison):
    result = comparison["runs"][0]
    result["data"]["synthetic"] = False
    assert wording.data_notes(result) == []


@pytest.mark.parametrize(
    "count, text",
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (83_400, "83.4 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_254_000, "1.25 MB"),
        (2_500_000_000, "2.50 GB"),
        (2_500_000_000_000, "2500 GB"),
    ],
)
def test_sizes(count, text):
    assert wording.size(count) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "–"), (0, "0.000"), (0.0004, "<0.001"), (1.23456, "1.235"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_undefined_ratios():
    assert wording.multiple(10, 0) == wording.multiple(None, 10) == "–"
    assert wording.per_round(1.0, 0) is None


def test_the_verdict_stands_below_the_table(comparison):
    verdict = "No figure of smpc or he differs from plaintext by more than noise."
    for text in (printed(comparison, 100), as_markdown(comparison)):
        assert text.index("Bytes down") < text.index(verdict) < text.index("The aggregator sees:")


@pytest.mark.parametrize("width", [80, 120])
def test_classes_are_named_in_full_and_malignant_ones_marked(comparison, width):
    text = printed(comparison, width)
    assert "melanoma (malignant)" in text and "dermatofibroma  " in text
    assert "actinic keratosis or intraepithelial carcinoma" in text
    file = io.StringIO()
    print_classes(comparison["runs"][:1], Console(file=file, width=width))
    row = next(line for line in file.getvalue().splitlines() if "melanoma" in line)
    found = comparison["runs"][0]["final"]["per_class"]["mel"]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [
        "melanoma (malignant)",
        *(str(found["support"]), f"{found['sensitivity']:.3f}", f"{found['auc']:.3f}"),
    ]


def test_a_result_of_an_older_release_has_short_names_only(comparison):
    for run in comparison["runs"]:
        del run["data"]["class_info"]
    assert "│ mel " in printed(comparison, 100)
