"""The report is parsed, never compared as text: its tables, its figures, and that data stays data."""

from __future__ import annotations

import base64
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from skinfl.federation.records import RoundRecord
from skinfl.report import examples, html, page
from skinfl.report.canvas import FAINT, PALETTE, PAPER, contrast, readable_on
from skinfl.report.plots import Drawn, draw_run

VOID = {"meta", "img", "br"}
EVIL = '<evil onload="x">&amp;\''


class Reader(HTMLParser):
    """Collects tags, attributes, images and table rows, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.images, self.rows, self.notes = [], set(), [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "img":
            self.images.append(dict(attributes)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if ("class", "note") in attributes:
            self.notes.append("")
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == ("p", "note"):
            self.notes[-1] += data

    def row(self, first):
        return next(row[1:] for row in self.rows if row[0] == first)


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "f.png"
    path.write_bytes(b"\x89PNG picture")
    return [Drawn("A picture", path, "What it shows")]


def written(run_files, folder, figures=None):
    path = html.write_report(folder, *run_files, figures or [])
    assert path == folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


def test_tables_hold_the_results(run_files, tmp_path):
    result, _ = run_files
    result["final"]["per_class"]["df"]["auc"] = None
    report = written(run_files, tmp_path)
    low, high = result["intervals"]["balanced_accuracy"]
    shown = [f"{result['final']['balanced_accuracy']:.3f}", f"{low:.3f} to {high:.3f}"]
    assert report.row("Balanced accuracy") == shown
    assert report.row("Expected calibration error") == [f"{result['final']['ece']:.3f}", "–"]
    per_class = result["final"]["per_class"]
    assert report.row("dermatofibroma df")[0] == str(per_class["df"]["support"])
    assert report.row("dermatofibroma df")[3] == "–"
    assert report.row("hospital-2")[:2] == ["900", "176"]
    assert report.row("protect") == ["0.040", "0.160"]
    assert report.row("Up") == ["1.60 MB", "4.00×"]
    assert report.row("The aggregator sees") == [result["aggregator_sees"]]
    assert report.row("parties") == ["a, b, c"]
    assert report.row("data.image_size") == ["28"]
    assert report.row("torch") == ["2.1.0"]
    standard_deviations = [row[3] for row in report.rows if row[0] == "Accuracy" and len(row) == 4]
    assert standard_deviations == [f"{result['spread']['accuracy']['std']:.3f}"]


def test_rounds_are_listed(run_files, tmp_path):
    _, rounds = run_files
    rounds[1] = rounds[1]._replace(metrics=None, left_out={"hospital-5": "late"})
    rounds[1] = rounds[1]._replace(mean_clipped=0.0123)
    row = next(row for row in written(run_files, tmp_path).rows if row[0] == "2" and len(row) == 12)
    assert row[1:8] == ["5", "1", "–", "–", "–", "–", "1.23%"]
    assert row[8:] == ["8.00 MB", "2.00 MB", "2.570", "1.0e-06"]


def test_hospitals_left_out_are_named_with_the_reason(run_files, tmp_path):
    result, _ = run_files
    assert "Left out</h2>" not in html.write_report(tmp_path, *run_files, []).read_text()
    result["left_out"] = [{"round": 3, "hospital": "hospital-4", "reason": "loss is not a number"}]
    assert ["3", "hospital-4", "loss is not a number"] in written(run_files, tmp_path).rows


def test_data_notes_are_prominent(run_files, tmp_path):
    result, _ = run_files
    result["data"].update(leaked_lesions=17, protocol="published")
    notes = written(run_files, tmp_path).notes
    assert [note.split(":")[0] for note in notes] == ["Synthetic data", "Published protocol", "Leak"]
    result["data"].update(leaked_lesions=0, protocol="grouped", synthetic=False)
    assert written(run_files, tmp_path).notes == []


def test_report_opens_offline(run_files, figure, tmp_path):
    report = written(run_files, tmp_path, figure)
    (source,) = report.images
    assert base64.b64decode(source[len("data:image/png;base64,") :]) == b"\x89PNG picture"
    assert "script" not in report.tags and "link" not in report.tags
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", text)


def test_light_and_dark(run_files, tmp_path):
    text = html.write_report(tmp_path, *run_files, []).read_text(encoding="utf-8")
    assert "color-scheme: light dark" in text and "prefers-color-scheme: dark" in text


def poisoned(value, keys):
    """Return ``value`` with every text in it, and the keys named, turned into a tag."""
    if isinstance(value, RoundRecord):
        return RoundRecord.from_json(poisoned(value.to_json(), keys))
    if isinstance(value, dict):
        return {EVIL + k if k in keys else k: poisoned(v, keys) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, keys) for item in value]
    return EVIL + value if isinstance(value, str) else value


def test_nothing_in_the_data_becomes_html(run_files, comparison, figure, tmp_path):
    result, rounds = run_files
    result["left_out"] = [{"round": 3, "hospital": "hospital-4", "reason": "late"}]
    keys = {*result["data"]["classes"], *result["partition"], *result["protection_details"]}
    keys |= {"seed", "python"}
    plain = written((result, rounds), tmp_path, figure)
    report = written(
        (poisoned(result, keys), poisoned(rounds, keys)), tmp_path, [Drawn(EVIL, figure[0].path, EVIL)]
    )
    assert report.tags == plain.tags
    assert [name for name, _ in report.attributes] == [name for name, _ in plain.attributes]
    assert EVIL + "hospital-1" in [row[0] for row in report.rows]
    assert report.notes[0].endswith(EVIL + "Drawn with seed 0.")

    path = html.write_comparison_report(
        tmp_path, poisoned(comparison, keys), [Drawn(EVIL, figure[0].path, EVIL)]
    )
    both = Reader(path.read_text(encoding="utf-8"))
    assert both.tags == (plain.tags | {"a"}) - {"h3"}
    assert EVIL + "he" in [cell for row in both.rows for cell in row]


def test_comparison_holds_the_table_and_each_protection(comparison, figure, tmp_path):
    path = html.write_comparison_report(tmp_path, comparison, figure)
    report = Reader(path.read_text(encoding="utf-8"))
    assert report.row("") == ["plaintext", "smpc", "he"]
    assert report.row("Bytes up, multiple of float32") == ["1.00×", "4.00×", "13.2×"]
    seen = [row[1] for row in report.rows if row[0] == "The aggregator sees" and len(row) == 2]
    assert seen == [run["aggregator_sees"] for run in comparison["runs"]]
    assert len(report.images) == 1 and len(report.notes) == 1


def test_settings_read_as_text(run_files, tmp_path):
    result, _ = run_files
    result["config"] = {"a": None, "b": True, "c": False, "d": [1, None], "e": {}, "f": {"g": {"h": 0.1}}}
    report = written(run_files, tmp_path)
    found = {row[0]: row[1] for row in report.rows if row[0] in {*"abcde", "f.g.h"}}
    assert found == {"a": "–", "b": "yes", "c": "no", "d": "1, –", "e": "–", "f.g.h": "0.1"}


def test_only_built_html_passes_unescaped():
    assert page.joined(["<b>", page.Html("<i>x</i>")]) == "&lt;b&gt;<i>x</i>"


def test_every_table_has_heads_and_every_picture_words(run_files, figure, answered, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (len(answered.labels), 90, 120, 3)).astype(np.uint8)
    shown = examples.section(answered, pixels, 0)
    text = html.write_report(tmp_path, *run_files, figure, shown).read_text(encoding="utf-8")
    for found in re.findall(r"<table.*?</table>", text, re.S):
        for row in re.findall(r"<tr>.*?</tr>", found, re.S):
            assert re.match(r'<tr>(<td></td>)?<th scope="(col|row)">', row), row
        body = found[found.index("<tbody>") :]
        assert body.count('<th scope="row">') == body.count("<tr>")
    images = re.findall(r"<img[^>]*>", text)
    assert len(images) > 20 and all(re.search(r'alt="[^"]+"', image) for image in images)
    assert len(text) < 1_500_000


def test_sentences_lead_and_malignant_classes_are_marked_everywhere(run_files, tmp_path):
    result, _ = run_files
    text = html.write_report(tmp_path, *run_files, []).read_text(encoding="utf-8")
    first = result["sentences"][0]
    assert first.startswith("The model misses") and f'<p class="finding">{escape(first)}</p>' in text
    # by class, who holds what, the confusion matrix in numbers, the data
    marked = 'melanoma <span class="faint">mel</span> <span class="mark">malignant</span>'
    assert text.count(marked) == 4
    assert 'nevus <span class="faint">nv</span> <span class="mark">' not in text
    assert text.count("actinic keratosis or intraepithelial carcinoma (Bowen&#x27;s disease)") >= 4


def test_small_subgroups_are_said_to_be_too_small(run_files, tmp_path):
    result, _ = run_files
    row = result["subgroups"][0]
    row.update(group="few", too_small=True, lesions=3, photographs=5)
    for key in list(row):
        if key.startswith(("accuracy", "balanced", "malignant_found", "benign_found")):
            row[key] = None
    assert written(run_files, tmp_path).row("few") == ["3 (5)", "too small to judge", "–", "–", "–"]


def test_what_was_chosen_on_validation_is_shown_if_anything_was(run_files, tmp_path):
    result, _ = run_files
    text = html.write_report(tmp_path, *run_files, []).read_text(encoding="utf-8")
    assert "Threshold</h2>" not in text and "chosen on the validation" not in text
    result.update(
        best_round=3, selected_by="auc", temperature=1.4, calibration={"ece": 0.2, "ece_scaled": 0.1}
    )
    point = {"sensitivity": 0.9, "specificity": 0.7}
    chosen = {"threshold": 0.21, "target_sensitivity": 0.9, "validation": point, "test": point}
    result["thresholds"] = {
        "malignant": {**chosen, "test_by_class": {"sensitivity": 0.5, "specificity": None}}
    }
    report = written(run_files, tmp_path)
    assert report.row("Test set, the most likely class is the answer") == ["0.500", "–"]
    assert report.row("Test set, malignant from 0.210 on") == ["0.900", "0.700"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "that of round 3, chosen on the validation images by AUC" in text and "temperature of 1.4" in text


def test_hospitals_own_models_stand_beside_the_common_one(run_files, tmp_path):
    result, _ = run_files
    assert "own models</h2>" not in html.write_report(tmp_path, *run_files, []).read_text("utf-8")
    own = {name: dict(found, accuracy=0.875, auc=None) for name, found in result["hospital_final"].items()}
    result["hospitals_together"] = dict(result["final"], accuracy=0.5)
    result["personal"] = {
        "kind": "ditto",
        "fine_tune_epochs": 0,
        "common_model": True,
        "hospitals_together": dict(result["final"], accuracy=0.75),
        "hospital_final": own,
        "spread": result["spread"],
    }
    result["best_round"] = 3

    def row(name):
        rows = written(run_files, tmp_path).rows
        first = [cells[0] for cells in rows].index("All hospitals together")
        return next(cells[1:] for cells in rows[first:] if cells[0] == name)

    assert row("All hospitals together")[:2] == ["0.750", "0.500"]
    common = result["hospital_final"]["hospital-2"]
    assert row("hospital-2")[:2] == ["0.875", f"{common['accuracy']:.3f}"] and row("hospital-2")[4] == "–"
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "(Ditto)" in text and "is that of round 3." in text
    # in a deployment, of hospitals that keep their figures to themselves
    result["hospital_final"], result["personal"]["hospital_final"] = {}, {}
    assert row("All hospitals together")[:2] == ["0.750", "0.500"]
    result["personal"].update(kind="head", fine_tune_epochs=2, common_model=False)
    assert row("All hospitals together")[0] == "0.750" and len(row("All hospitals together")) == 3
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "for 2 passes. Each model" in text and "there is no common one" in text


def test_the_model_says_what_it_began_from_what_was_trained_and_which_round_is_kept(run_files, tmp_path):
    result, _ = run_files
    result["config"].update(model="efficientnet_lite0", trainable="last:2")
    result.update(trained_values=1234567, pretrained={"source": "package", "sha256": "ab" * 32})
    result.update(best_round=3, selected_by="auc", validation={"images": 10}, stopped_early=True)
    report = written(run_files, tmp_path)
    assert report.row("Network") == ["efficientnet_lite0"]
    assert report.row("Pretrained weights") == ["package, SHA-256 " + "ab" * 32]
    trained = report.row("Trained, sent and protected")
    assert trained == ["the last 2 stages and the classifier: 1,234,567 numbers"]
    [kept] = report.row("Model kept")
    assert kept.startswith("that of round 3 of 4, the best on the validation images by AUC")
    assert kept.endswith("the run ended early, as nothing got better")
    result.update(pretrained=None, validation=None, best_round=4)
    report = written(run_files, tmp_path)
    assert report.row("Pretrained weights")[0].startswith("none")
    assert report.row("Model kept") == ["that of round 4 of 4, the last one"]


def test_who_holds_what_has_the_validation_images(run_files, tmp_path):
    result, rounds = run_files
    assert "validation" not in [cells[1] for cells in written(run_files, tmp_path).rows if len(cells) > 2]
    for k, folds in enumerate(result["partition"].values()):
        folds["validation"] = {"nv": 10 + k, "mel": 1}
    result["data"].update(train_images=1500, validation_images=100)
    drawn = draw_run(tmp_path / "figures", result, rounds)
    report = written(run_files, tmp_path, drawn)
    [first, *_] = [cells for cells in report.rows if cells[1:2] == ["validation"]]
    assert first[0] == "hospital-1" and first[-1] == "11"
    assert report.row("Images") == ["2000: 1500 training, 100 validation, 400 test"]
    assert ", 11 validation, " in (tmp_path / "report.html").read_text("utf-8")  # of the figure


def test_a_coordinator_without_test_data_reports_sums(run_files, tmp_path):
    result, rounds = run_files
    together = dict(result["final"], auc=None)
    for key in ("intervals", "auc_intervals", "subgroups", "synthetic"):
        del result[key]
    data = {"name": None, "images": None, "synthetic": None, "leaked_lesions": None}
    data["classes"] = result["data"]["classes"]
    result.update(data=data, partition=None, final=None, hospital_final={}, hospitals_together=together)
    rounds = [entry._replace(metrics=None, hospital_metrics={}, train_loss={}) for entry in rounds]
    drawn = draw_run(tmp_path / "figures", result, rounds)
    html.write_report(tmp_path, result, rounds, drawn)
    report = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert report.row("Accuracy") == [f"{together['accuracy']:.3f}"]
    assert report.row("mel")[0] == str(together["per_class"]["mel"]["support"])
    assert len(report.images) == 1 and "None" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_comparison_says_its_verdict_and_links_its_runs(comparison, tmp_path):
    text = html.write_comparison_report(tmp_path, comparison, []).read_text(encoding="utf-8")
    assert '<p class="finding">No figure of smpc or he differs from plaintext by more than noise.</p>' in text
    assert re.findall(r'<a href="([^"]*)"', text) == [f"{p}/report.html" for p in ("plaintext", "smpc", "he")]
    report = Reader(text)
    scores = [f"{run['final']['per_class']['mel']['sensitivity']:.3f}" for run in comparison["runs"]]
    assert report.row("melanoma mel malignant") == scores


def _colours():
    """The style sheet's colours by name, of the light and of the dark page."""
    light, dark = page.STYLE.split("@media", 1)
    both = []
    for text in (light, dark.split("}", 1)[0]):
        found = dict(re.findall(r"--([\w-]+): #([0-9a-f]+)", text))
        long = {name: v if len(v) == 6 else "".join(c + c for c in v) for name, v in found.items()}
        both.append({n: [int(v[i : i + 2], 16) / 255 for i in (0, 2, 4)] for n, v in long.items()})
    return both


@pytest.mark.parametrize("number", [0, 1])
def test_text_has_contrast_in_light_and_dark(number):
    colours = _colours()[number]
    pairs = [(ink, paper) for ink in ("ink", "faint", "link", "good", "bad") for paper in ("paper", "shade")]
    pairs += [("warn", "warn-paper"), ("bad", "bad-paper")]
    for ink, paper in pairs:
        assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


def test_figures_have_contrast():
    for colour in (*PALETTE, FAINT):
        assert contrast(to_rgb(colour), to_rgb(PAPER)) >= 4.5, colour
    for grey in np.linspace(0, 1, 101):
        assert contrast(to_rgb(readable_on([grey] * 3)), [grey] * 3) >= 4.5
