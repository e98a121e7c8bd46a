"""The benchmark runs, and its file has the rows and keys that others read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "protection.py"
KEYS = {
    "name",
    "up_bytes_per_param",
    "down_bytes_per_param",
    "protect_s",
    "combine_s",
    "open_s",
    "verify_s",
    "max_error",
    "ratio_to_plain_sum",
}


def run(tmp_path, *arguments):
    report, chart = tmp_path / "rows.json", tmp_path / "rows.png"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--json", str(report), "--chart", str(chart), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert chart.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(report.read_text())["rows"]
    for row in rows:
        assert set(row) >= KEYS
        assert f"| {row['name']} |" in done.stdout
    return {row["name"]: row for row in rows}


def test_a_few_rows(tmp_path):
    rows = run(
        tmp_path,
        "--params",
        "50000",
        "--hospitals",
        "3",
        "--repeats",
        "1",
        "--rows",
        "smpc-additive-32",
        "secagg-mask",
    )
    ours, theirs = rows["smpc-additive-32"], rows["secagg-mask"]
    assert 4 < ours["up_bytes_per_param"] < 4.1 and 8 <= theirs["up_bytes_per_param"] < 8.1
    assert ours["exact"] is True and ours["max_error"] < 1e-6 and theirs["max_error"] < 1e-4


@pytest.mark.slow
def test_all_rows(tmp_path):
    rows = run(tmp_path, "--params", "60000", "--hospitals", "5", "--repeats", "1")
    required = "plaintext smpc-additive-32 smpc-additive-64 smpc-shamir he-bfv-16 he-bfv-12 he-ckks-pfhe"
    assert set(required.split()) <= set(rows)
    assert all(row["exact"] for row in rows.values() if row["exact"] is not None)
    assert rows["he-bfv-16"]["up_bytes_per_param"] < 4.0
    assert rows["he-bfv-12"]["up_bytes_per_param"] < 2.7
    assert rows["published-128"]["up_bytes_per_param"] > 400 * rows["he-bfv-16"]["up_bytes_per_param"]


def test_impossible_options_are_refused():
    done = subprocess.run([sys.executable, str(SCRIPT), "--hospitals", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "--hospitals 2" in done.stderr
