"""Example lesions: who is shown, in how many bytes, and with which words."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from skinfl.predictions import LesionClass
from skinfl.report import examples


class Pixels:
    """Photographs that need not be in memory; remembers which were looked at."""

    def __init__(self, height=150, width=200, channels=3):
        self.shape, self.seen = (height, width, channels), []

    def __getitem__(self, i):
        self.seen.append(i)
        return np.random.RandomState(i).randint(0, 256, self.shape).astype(np.uint8)


def test_of_each_class_right_and_wrong_ones_are_drawn_at_random(answered):
    chosen = examples.choose(answered, 0)
    right = answered.predicted == answered.labels
    for k in range(7):
        of = [i for i in chosen if answered.labels[i] == k]
        for wanted in (True, False):
            there = int(((answered.labels == k) & (right == wanted)).sum())
            assert sum(right[i] == wanted for i in of) == min(3, there)
    assert chosen == examples.choose(answered, 0) and set(chosen) != set(examples.choose(answered, 1))


def test_only_what_is_shown_is_looked_at_and_said_in_words(answered):
    pixels = Pixels()
    text = examples.section(answered, pixels, 0)
    assert sorted(pixels.seen) == sorted(examples.choose(answered, 0))
    alts = re.findall(r'alt="([^"]+)"', text)
    assert any(re.fullmatch(r"photograph photo-\d+ of melanoma, which the model gets right", a) for a in alts)
    assert any("of melanoma, which the model takes for " in a for a in alts)
    assert "<h3>melanoma (malignant)</h3>" in text and "<h3>dermatofibroma</h3>" in text
    assert text.count("✓ right") + text.count("✗ wrong") == len(alts)


@pytest.mark.parametrize(
    "shape, size", [((150, 200, 3), (176, 132)), ((8, 8, 1), (8, 8)), ((600, 30, 1), (9, 176))]
)
def test_pictures_are_small_whatever_the_photographs_are(shape, size):
    source, small = examples.thumbnail(np.zeros(shape, np.uint8))
    picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert picture.size == size and small == (max(size) <= 64)


def test_the_page_is_bounded_with_many_classes_and_noise(answered):
    many = tuple(LesionClass(f"c{k}", f"class {k}") for k in range(100))
    rng = np.random.RandomState(0)
    found = answered._replace(
        classes=many, probabilities=rng.dirichlet(np.ones(100), 400), labels=rng.randint(0, 100, 400)
    )
    text = examples.section(found, Pixels(400, 400), 0)
    assert 10 < text.count("<img") <= examples.MOST and len(text) < 1.2 * examples.BYTES


def test_nothing_to_show(answered):
    empty = answered._replace(**{name: getattr(answered, name)[:0] for name in answered._fields[1:]})
    assert examples.section(empty, Pixels(), 0) == ""
    assert "pictures of each class" in examples.section(answered, Pixels(), 0, synthetic=True)
