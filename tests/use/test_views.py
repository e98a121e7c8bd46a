"""Several views of a photograph: the same in training, evaluation and use."""

import numpy as np
import pytest
import torch

from skinfl.classifier import LesionClassifier
from skinfl.data.features import FeatureDataset
from skinfl.data.normalisation import Normalisation
from skinfl.data.views import VIEWS, turned
from skinfl.federation.evaluation import predict
from skinfl.models.registry import build_model
from skinfl.models.store import load_model, save_model


def small_model(path, *, in_channels, views):
    described = {"in_channels": in_channels, "image_size": 19, "classes": 3}
    torch.manual_seed(0)
    model = build_model("skinnet", **described)
    saved = {"class_names": ("a", "b", "c"), "views": views}
    saved.update(normalisation_mean=(0.5,) * in_channels, normalisation_std=(0.2,) * in_channels)
    save_model(path, model, name="skinnet", doconv=True, **described, **saved)
    return path


def test_views_are_those_that_a_trunk_looked_at(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 19, 19, 3), dtype=np.uint8)
    seen = []
    classifier = LesionClassifier.load(small_model(tmp_path / "m.npz", in_channels=3, views=1))

    def answer(batch):
        seen.append(batch)
        return torch.zeros(len(batch), 3)

    monkeypatch.setattr(classifier, "forward", answer)
    classifier.probabilities(images, tta=VIEWS)
    assert len(seen) == VIEWS
    for view, mine in enumerate(seen):
        np.testing.assert_array_equal(mine.permute(0, 2, 3, 1).numpy(), turned(images, view))
    assert len({mine.numpy().tobytes() for mine in seen}) == VIEWS


def test_evaluation_averages_logits_over_views(toy):
    rng = np.random.default_rng(1)
    views = [rng.normal(size=(len(toy), 1, 1, 4)).astype(np.float16) for _ in range(3)]
    features = FeatureDataset(toy, views)
    classes = len(toy.classes)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, classes))
    identity = Normalisation((0.0,) * 4, (1.0,) * 4)
    probabilities, loss = predict(model, features, identity)
    with torch.no_grad():
        logits = sum(model(torch.from_numpy(view.astype(np.float32))) for view in views) / 3
    np.testing.assert_allclose(probabilities, torch.softmax(logits.double(), 1).numpy(), atol=1e-6)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(features.labels)).item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_network_is_used_with_the_views_it_was_trained_with(tmp_path):
    for views in (1, 4):
        small_model(tmp_path / "m.npz", in_channels=1, views=views)
        assert load_model(tmp_path / "m.npz").views == views
        classifier = LesionClassifier.load(tmp_path / "m.npz")
        pixels = np.random.default_rng(2).integers(0, 256, (3, 19, 19, 1), dtype=np.uint8)
        found = classifier.probabilities(pixels)
        np.testing.assert_array_equal(found, classifier.probabilities(pixels, tta=views))
        looks = [classifier.probabilities(turned(pixels, view), tta=1) for view in range(views)]
        mean = np.mean([np.log(look) for look in looks], axis=0)
        expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-6)
