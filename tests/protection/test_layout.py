import pytest

from skinfl.errors import ProtectionError
from skinfl.protection.layout import Layout, Segment


def test_slices_size_and_equality():
    layout = Layout([Segment("a", 3), Segment("n", 2, "count")])
    assert layout.size == 5
    assert layout.slices() == {"a": slice(0, 3), "n": slice(3, 5)}
    same = Layout([("a", 3, "value"), ("n", 2, "count")])
    assert layout == same and hash(layout) == hash(same) and layout.digest == same.digest
    assert "2 segments, 5 values" in repr(layout)


def test_any_difference_changes_the_digest():
    layouts = [
        Layout(segments)
        for segments in (
            [("a", 3), ("b", 2)],
            [("b", 2), ("a", 3)],
            [("a", 2), ("b", 3)],
            [("a", 3), ("b", 2, "count")],
            [("ab", 5)],
        )
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)


def test_impossible_layouts_are_refused():
    with pytest.raises(ProtectionError, match="distinct segment names"):
        Layout([("a", 1), ("a", 2)])
    for segments in ([], [("a", 0)]):
        with pytest.raises(ProtectionError, match="at least one segment"):
            Layout(segments)


def test_the_transforms_that_made_a_vector_are_part_of_the_digest():
    segments = [("a", 3), ("n", 1, "count")]
    layouts = [Layout(segments), Layout(segments, transforms="x"), Layout(segments, transforms="y")]
    assert len(set(layouts)) == len({layout.digest for layout in layouts}) == 3
    assert Layout(segments, transforms="x") == layouts[1]


def test_names_with_tabs_and_newlines_cannot_stand_for_other_segments():
    assert Layout([("a\t3\tvalue\nb", 2)]).digest != Layout([("a", 3), ("b", 2)]).digest
    assert Layout([("a\t3", 2)]).digest != Layout([("a", 3)]).digest
