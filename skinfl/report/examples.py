"""Example photographs of a test set with what the model says of them, as small pictures in a page."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image

from skinfl.predictions import LesionClass, Predictions
from skinfl.report import page, wording

_pillow: Any = Image  # whose types leave out what old and new releases both have
#: of each class, as many that the model gets right, and as many wrong
EACH = 3
#: in all, and bytes of all pictures, which bound the page
MOST, BYTES = 72, 500_000
#: pixels of the longer side; smaller pictures stay as they are
SIDE = 176
_SMALL = 64


def choose(found: Predictions, seed: int, each: int = EACH) -> List[int]:
    """Return which photographs are shown: drawn at random of each class, ``each`` right and wrong ones.

    Nobody picked them, so they are as good and as bad as the model. Where there are many classes, fewer of
    each are shown, and classes of which nothing is left to show are passed over.
    """
    classes = len({int(label) for label in found.labels if label >= 0})
    each = max(1, min(each, MOST // max(1, 2 * classes)))
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(found.labels))
    right = found.predicted[order] == found.labels[order]
    chosen: List[int] = []
    for k in range(len(found.classes)):
        for wanted in (True, False):
            chosen += list(map(int, order[(found.labels[order] == k) & (right == wanted)][:each]))
    return chosen[:MOST]


def section(found: Predictions, pixels: Any, seed: int, synthetic: bool = False) -> page.Html:
    """Return the section of example lesions, empty without any.

    ``pixels[i]`` is the photograph of the ``i``-th answer, uint8 of shape (height, width, 1 or 3); only those
    that are shown are looked at.
    """
    parts: List[str] = []
    left = BYTES
    by_class: Dict[int, List[int]] = {}
    for i in choose(found, seed):
        by_class.setdefault(int(found.labels[i]), []).append(i)
    for k, chosen in by_class.items():
        figures: List[str] = []
        for i in chosen:
            source, small = thumbnail(np.asarray(pixels[i]))
            left -= len(source)
            if left >= 0:
                figures.append(_figure(found, i, source, small, synthetic))
        if figures:
            parts.append(page.subsection(wording.class_label(found.classes[k]), _row(figures)))
    if not parts:
        return page.Html()
    explained = page.paragraph(
        f"Up to {EACH} {'pictures' if synthetic else 'photographs'} of each class that the model gets right "
        f"and as many that it gets wrong, drawn at random from the test set, with its most likely answers. "
        f"{wording.SIGN} malignant.",
        "remark",
    )
    return page.section("Example lesions", explained, *parts)


def thumbnail(pixels: np.ndarray) -> Tuple[page.Html, bool]:
    """Return a picture as a data address, and whether it is so small that its pixels are seen."""
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    small = max(height, width) <= _SMALL
    content = io.BytesIO()
    if small:
        picture.save(content, "png", optimize=True)
        return page.data_uri(content.getvalue(), "png"), True
    if max(height, width) > SIDE:
        scale = SIDE / max(height, width)
        picture = picture.resize(
            (max(1, round(width * scale)), max(1, round(height * scale))), _pillow.BILINEAR
        )
    picture.save(content, "jpeg", quality=80)
    return page.data_uri(content.getvalue(), "jpeg"), False


def _figure(found: Predictions, i: int, source: page.Html, small: bool, synthetic: bool) -> page.Html:
    label, predicted = int(found.labels[i]), int(found.predicted[i])
    right = label == predicted
    opinions = [
        f"{_short(found.classes[k])} {found.probabilities[i, k]:.0%}"
        for k in np.argsort(-found.probabilities[i], kind="stable")[:2]
    ]
    verdict = page.span("✓ right" if right else "✗ wrong", "right" if right else "wrong")
    kind = "drawn picture" if synthetic else "photograph"
    alt = f"{kind} {found.image_ids[i]} of {found.classes[label].full_name}, which the model " + (
        "gets right" if right else f"takes for {found.classes[predicted].full_name}"
    )
    caption = page.joined([verdict, ": ", ", ".join(opinions)])
    return page.picture(alt, source, caption, "small" if small else "")


def _short(each: LesionClass) -> str:
    """Return a class in few letters: its name in full where that is short."""
    name = each.full_name if len(each.full_name) <= 24 else each.name
    return f"{name} {wording.SIGN}" if each.malignant else name


def _row(figures: Sequence[str]) -> page.Html:
    return page.Html(f'<div class="examples">\n{page.joined(figures)}</div>\n')
