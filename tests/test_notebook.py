"""The notebook in docs/ runs from top to bottom, as a reader would run it."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the packages of the extra [dev]")
nbclient = pytest.importorskip("nbclient", reason="needs the packages of the extra [dev]")

NOTEBOOK = Path(__file__).parent.parent / "docs" / "first_federation.ipynb"


@pytest.mark.slow
def test_every_cell_runs_and_shows_something(tmp_path):
    notebook = nbformat.read(str(NOTEBOOK), as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    shown = str([cell.outputs for cell in code])
    assert "balanced_accuracy" in shown and "<progress" not in shown  # the bar goes when work is done
    assert "plaintext" in shown


def test_it_is_committed_without_outputs():
    notebook = nbformat.read(str(NOTEBOOK), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
