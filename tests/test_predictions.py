"""The table of predictions."""

import numpy as np
import pytest

from skinfl.errors import DataError
from skinfl.predictions import LesionClass, Predictions, read_predictions, write_predictions

CLASSES = (LesionClass("mel", "melanoma", True), LesionClass("nv", "melanocytic nevus", False))


def texts(*values):
    return np.asarray(values, dtype=object)


FOUND = Predictions(
    CLASSES,
    np.array([[0.25, 0.75], [0.5, 0.5]]),
    np.array([0, -1]),
    texts("a", 'b,"c"'),
    texts("l1", ""),
    texts("hospital-1", ""),
    texts("back", ""),
    texts("female", ""),
    np.array([55.0, np.nan]),
)


def test_predictions_are_read_as_they_were_written(tmp_path):
    write_predictions(tmp_path / "p.csv", FOUND)
    read = read_predictions(tmp_path / "p.csv", CLASSES)
    assert read.classes == CLASSES
    for mine, theirs in zip(FOUND[1:], read[1:]):
        np.testing.assert_array_equal(mine, theirs)
    assert list(read.predicted) == [1, 0]


@pytest.mark.parametrize("spoil", [lambda t: t[:-20], lambda t: t.replace("p_nv", "p_bcc"), lambda t: ""])
def test_another_table_is_refused(tmp_path, spoil):
    write_predictions(tmp_path / "p.csv", FOUND)
    (tmp_path / "p.csv").write_text(spoil((tmp_path / "p.csv").read_text()))
    with pytest.raises(DataError, match="again"):
        read_predictions(tmp_path / "p.csv", CLASSES)
