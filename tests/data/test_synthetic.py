"""The drawn set: layout, proportions, determinism, and that each structure shows."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from skinfl.data import load, synthetic
from skinfl.data.dermoscopy import Camera, Traits, draw
from skinfl.data.splits import train_test_split
from skinfl.data.tables import read_table
from skinfl.data.transforms import normalisation_from_sums, pixel_sums, to_batch
from skinfl.errors import DataError
from skinfl.models import build_model
from skinfl.seeds import numpy_rng, seeded

PLAIN = Traits(
    size=0.6, elongation=0, asymmetry=0, irregularity=0, softness=0.2, melanin=0.6, haemoglobin=0.1,
    variegation=0, network=0, globules=0, veil=0, vessels=0, cysts=0, patch=0, scale=0, lacunae=0,
    shape_seed=1,
)  # fmt: skip
CAMERA = Camera((1.0, 1.0, 1.0), 0.0, False, 0.0)


@pytest.fixture
def drawn(tmp_path):
    return synthetic.write(tmp_path / "drawn", images=70, image_size=24, seed=3)


def picture(camera=CAMERA, seed=11, **traits):
    """Draw one photograph in 0..1, always with the same framing, light and hair."""
    return draw(PLAIN._replace(**traits), camera, 0.2, numpy_rng(seed, "picture"), 48) / 255.0


def middle(pixels):
    return pixels[20:28, 28:36].reshape(-1, 3).mean(axis=0)


def test_is_laid_out_like_ham10000_and_marked(drawn):
    files = sorted((drawn / "HAM10000_images_part_1").iterdir())
    assert len(files) == 70 and files[0].name == "DRAWN_0000000.jpg"
    with Image.open(str(files[0])) as image:
        assert image.format == "JPEG" and image.size == (32, 24)
    table = read_table(drawn / "HAM10000_metadata.csv", ["dx"], "")
    assert list(table.columns) == [
        "lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset",
    ]  # fmt: skip
    assert "of no patient" in (drawn / "SYNTHETIC.txt").read_text()


def test_is_read_by_the_same_reader_and_says_that_it_is_drawn(drawn):
    dataset = load(drawn, image_size=16)
    assert dataset.name == "synthetic" and dataset.synthetic and dataset.lesions_known
    assert dict(zip(dataset.classes, dataset.class_counts())) == synthetic.class_counts(70)
    assert set(dataset.sites) <= {name for name, *_ in synthetic.SITES}
    assert np.isfinite(dataset.ages).all() and set(dataset.sexes) == {"male", "female"}


def test_photographs_of_a_lesion_share_class_site_and_age(drawn):
    dataset = load(drawn)
    several = [name for name, n in Counter(dataset.lesion_ids).items() if n > 1]
    assert several
    for name in several:
        rows = dataset.lesion_ids == name
        assert len({*zip(dataset.labels[rows], dataset.sites[rows], dataset.ages[rows])}) == 1


@pytest.mark.parametrize("images", [56, 70, 500, 2000, 10015])
def test_class_counts_follow_ham10000(images):
    counts = synthetic.class_counts(images)
    assert sum(counts.values()) == images and min(counts.values()) >= 8
    if images >= 2000:
        for name, count in counts.items():
            assert abs(count - images * synthetic.HAM10000_COUNTS[name] / 10015) <= 3


@pytest.fixture(scope="module")
def plan():
    return synthetic._plan(4000, 0)


def test_the_site_says_nothing_of_the_class(plan):
    counts = np.zeros((5, 7))
    for lesion in plan:
        counts[lesion.site, synthetic.CLASSES.index(lesion.label)] += 1
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    # 99.9 % point of chi-square with 24 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 51.2
    assert np.abs(counts.sum(axis=1) / counts.sum() - [0.30, 0.25, 0.20, 0.15, 0.10]).max() < 0.03


def test_lesions_have_several_photographs_as_in_ham10000(plan):
    share = np.bincount([lesion.photographs for lesion in plan], minlength=5)[1:] / len(plan)
    assert np.abs(share - synthetic.PHOTOGRAPHS_PER_LESION).max() < 0.02


def test_a_seed_gives_the_same_files_and_another_seed_others(drawn, tmp_path):
    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    again = synthetic.write(tmp_path / "again", images=70, image_size=24, seed=3)
    assert contents(again) == contents(drawn)
    other = synthetic.write(tmp_path / "other", images=70, image_size=24, seed=4)
    assert contents(other).keys() == contents(drawn).keys() and contents(other) != contents(drawn)


def test_a_picture_is_the_same_in_every_environment():
    pixels = picture(network=0.7, veil=0.5, irregularity=0.5, variegation=0.6)
    # Measured once; a change of these needs a new synthetic.VERSION.
    assert (
        np.abs(
            pixels[::16, ::16, 0] * 255 - [[236, 238, 241, 255], [224, 217, 167, 235], [219, 216, 192, 239]]
        ).max()
        <= 1
    )


@pytest.mark.parametrize(
    "trait, value, direction",
    [
        ("melanin", 1.2, (-1, -1, -1)),
        ("haemoglobin", 1.5, (0, -1, -1)),
        ("lacunae", 1.0, (0, -1, -1)),
        ("patch", 1.0, (1, 1, 1)),
    ],
)
def test_pigments_and_patches_change_the_middle(trait, value, direction):
    change = middle(picture(**{trait: value})) - middle(picture())
    for channel, sign in enumerate(direction):
        if sign:
            assert sign * change[channel] > 0.03, (trait, change)


def test_a_veil_is_bluish_white():
    change = picture(veil=1.0, melanin=1.2) - picture(melanin=1.2)
    seen = change[np.abs(change).sum(axis=2) > 0.1].mean(axis=0)
    assert seen[2] > 0.1 and seen[2] > seen[1] > seen[0]


@pytest.mark.parametrize("trait", ["network", "globules", "vessels", "cysts", "scale"])
def test_fine_structures_change_the_lesion_only(trait):
    change = np.abs(picture(**{trait: 1.0}) - picture()).sum(axis=2)
    assert change.max() > 0.15
    assert 0.005 < (change > 0.05).mean() < 0.4
    # Away from the lesion, at the left and right rims, nothing changes.
    assert change[:, :6].max() < 0.02 and change[:, -6:].max() < 0.02


def test_size_softness_and_asymmetry():
    def area(**traits):
        pixels = picture(melanin=1.5, **traits)
        return (pixels[..., 0] < 0.62).mean()

    assert area(size=0.8) > 1.5 * area(size=0.5)
    edges = [np.abs(np.diff(picture(melanin=1.5, softness=s)[24, :, 2])).max() for s in (0.05, 1.0)]
    assert edges[0] > 1.5 * edges[1]

    def unevenness(asymmetry):
        pictures = [picture(melanin=1.2, asymmetry=asymmetry, shape_seed=s) for s in range(12)]
        return np.mean([np.abs(np.log(p[:, :32].mean() / p[:, :31:-1].mean())) for p in pictures])

    assert unevenness(1.0) > 1.1 * unevenness(0.0)


def test_what_the_camera_adds():
    base = picture()
    assert np.allclose(
        middle(picture(CAMERA._replace(gains=(0.8, 1.0, 1.0)))) / middle(base), [0.8, 1, 1], atol=0.02
    )
    vignette = picture(CAMERA._replace(vignette=0.4))
    assert vignette[0, 0].mean() < 0.8 * base[0, 0].mean()
    assert np.std(picture(CAMERA._replace(noise=0.05)) - base) == pytest.approx(0.05, rel=0.2)
    corners = [picture(CAMERA._replace(field_stop=True), seed=s)[0, 0].max() for s in range(20)]
    assert 0 < sum(corner < 0.05 for corner in corners) < 20


def test_some_photographs_have_hair():
    dark = [(picture(melanin=0.03, seed=s).sum(axis=2) < 0.9).mean() for s in range(30)]
    assert 3 <= sum(share > 0.005 for share in dark) <= 20


@pytest.mark.parametrize(
    "options, message",
    [
        ({"images": 55}, r"55 synthetic images are too few: draw 56 or more"),
        ({"image_size": 15}, r"synthetic images of 15 pixels are too small"),
    ],
)
def test_impossible_options(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        synthetic.write(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(drawn, tmp_path):
    with pytest.raises(DataError, match=r"drawn exists already: give a new or an empty folder"):
        synthetic.write(drawn, images=56, image_size=16)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file exists already"):
        synthetic.write(tmp_path / "file", images=56, image_size=16)
    with pytest.raises(DataError, match=r"cannot be written"):
        synthetic.write(tmp_path / "file" / "below", images=56, image_size=16)


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    said = []
    synthetic.write(tmp_path / "empty", images=56, image_size=16, progress=lambda *e: said.append(e))
    assert said[0] == (1, 56, "drawing pictures") and said[-1][0] == 56
    assert len(load(tmp_path / "empty")) == 56


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "parent" / "x", images=56)
    assert list((tmp_path / "parent").iterdir()) == []


def small(**options):
    return synthetic.drawn(images=56, image_size=16, **options)


def test_the_cache_is_drawn_once(cache, monkeypatch):
    with small() as folder:
        assert folder.parent == cache
    monkeypatch.setattr(synthetic, "draw", lambda *arguments: pytest.fail("drawn again"))
    with small() as again:
        assert again == folder and (again / "SYNTHETIC.txt").is_file()


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    with small(cache_dir=tmp_path / "file") as folder:
        assert len(list((folder / "HAM10000_images_part_1").iterdir())) == 56
    assert not folder.exists() and "not kept for the next run" in caplog.text


def test_two_runs_may_draw_at_once(cache, monkeypatch):
    def meanwhile(*arguments):
        # Another run finishes the same folder while this one draws.
        monkeypatch.undo()
        monkeypatch.setenv("SKINFL_CACHE", str(cache))
        with small():
            return draw(*arguments)

    monkeypatch.setattr(synthetic, "draw", meanwhile)
    with small() as folder:
        assert len(load(folder)) == 56
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


def test_load_draws_the_default_set(cache, monkeypatch):
    defaults = synthetic.drawn
    monkeypatch.setattr(synthetic, "drawn", lambda **options: defaults(images=56, image_size=16, **options))
    dataset = load("synthetic")
    assert len(dataset) == 56 and dataset.synthetic and dataset.images.shape == (56, 28, 28, 3)


def test_a_damaged_set_in_the_cache_is_drawn_again(cache, monkeypatch, caplog):
    defaults = synthetic.drawn
    monkeypatch.setattr(synthetic, "drawn", lambda **options: defaults(images=56, image_size=16, **options))
    whole = load("synthetic").images
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"cut")):
        damage(next(cache.glob("synthetic-*/HAM10000_images_part_1/DRAWN_0000007.jpg")))
        assert np.array_equal(load("synthetic").images, whole)
        assert "is damaged" in caplog.text and "is drawn again" in caplog.text
        caplog.clear()


@pytest.mark.slow
def test_two_thousand_pictures_in_thirty_seconds_that_are_neither_easy_nor_hopeless():
    start = time.process_time()
    dataset = load("synthetic")
    assert time.process_time() - start < 30
    assert len(dataset) == 2000
    split = train_test_split(dataset)
    normalisation = normalisation_from_sums(pixel_sums(dataset.images[split.train]))
    images = to_batch(dataset.images[:], normalisation)
    labels = torch.from_numpy(dataset.labels)
    with seeded(0, "hardness"):
        model = build_model("skinnet", in_channels=3, image_size=28, classes=7)
        weight = torch.tensor(len(dataset) / (7.0 * dataset.class_counts())).float()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(8):
            order = split.train[torch.randperm(len(split.train)).numpy()]
            for batch in np.array_split(order, len(order) // 32):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch], weight=weight)
                loss.backward()
                optimiser.step()
    model.eval()
    with torch.no_grad():
        predicted = model(images[split.test]).argmax(dim=1).numpy()
    truth = dataset.labels[split.test]
    balanced = np.mean([(predicted[truth == k] == k).mean() for k in range(7)])
    assert 0.35 < balanced < 0.85
