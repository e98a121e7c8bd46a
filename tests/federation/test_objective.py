"""Losses, class weights, smoothed labels and mixed images against what they must come to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comparison import settings_of
from samples import SMALL_RUN, toy_dataset
from torch import nn
from torch.nn import functional

from skinfl.assembly import assemble, load_federated_data, local_plan, share_out
from skinfl.data.transforms import normalisation_from_sums, pixel_sums, to_batch
from skinfl.errors import SettingsError, TrainingError
from skinfl.federation.common import Prepared
from skinfl.federation.local import train
from skinfl.federation.losses import LOSSES
from skinfl.federation.objective import mix, mixed, objective_of
from skinfl.federation.rules import class_shares, class_weights
from skinfl.federation.update import StateLayout
from skinfl.registry import Option
from skinfl.settings import Settings

COUNTS = np.array([5, 1, 0, 30, 4])
SMALL = SMALL_RUN


def batch(n=9, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, requires_grad=True)
    return logits, torch.randint(0, classes, (n,), generator=generator)


def objective(loss="cross_entropy", smoothing=0.0, weights=None, shares=None, **options):
    values = {option.name: option.default for option in LOSSES[loss].options}
    return objective_of(loss, {**values, **options}, smoothing, weights, shares)


def value_and_gradient(loss, logits, labels):
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.item(), gradient.numpy()


def assert_same(one, other, logits, labels, **how):
    (a, da), (b, db) = (value_and_gradient(loss, logits, labels) for loss in (one, other))
    assert a == pytest.approx(b, rel=1e-6)
    np.testing.assert_allclose(da, db, rtol=1e-5, atol=1e-7)


def torch_cross_entropy(logits, labels):
    return functional.cross_entropy(logits, labels)


def test_the_plain_loss_is_torchs_cross_entropy():
    assert_same(objective(), torch_cross_entropy, *batch())


def test_focal_loss_with_gamma_0_is_the_cross_entropy():
    assert_same(objective("focal", focal_gamma=0.0), torch_cross_entropy, *batch())


def test_focal_loss_is_its_formula():
    logits, labels = batch()
    p = torch.softmax(logits.double(), 1)[torch.arange(len(labels)), labels]
    expected = (-((1 - p) ** 2) * torch.log(p)).mean().item()
    assert objective("focal", focal_gamma=2.0)(logits, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_finite_gradient_where_the_network_is_sure(gamma):
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    value, gradient = value_and_gradient(objective("focal", focal_gamma=gamma), logits, torch.tensor([0, 0]))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_balanced_softmax_of_equal_shares_is_the_cross_entropy():
    assert_same(objective("balanced_softmax", shares=np.full(5, 0.2)), torch_cross_entropy, *batch())


def test_balanced_softmax_is_its_formula():
    logits, labels = batch()
    shares = class_shares(COUNTS)
    pulled = logits.double() + torch.from_numpy(np.log(shares))
    expected = functional.cross_entropy(pulled, labels).item()
    found = objective("balanced_softmax", shares=shares)(logits, labels).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_balanced_softmax_without_shares_is_refused():
    with pytest.raises(TrainingError, match="balanced_softmax needs the classes' shares"):
        objective("balanced_softmax")


def test_smoothing_spreads_a_share_of_the_label():
    logits, labels = batch()
    soft = 0.9 * functional.one_hot(labels, 5).double() + 0.1 / 5
    expected = -(soft * torch.log_softmax(logits.double(), 1)).sum(1).mean().item()
    assert objective(smoothing=0.1)(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert objective(smoothing=0.0)(logits, labels).item() == objective()(logits, labels).item()


@pytest.mark.parametrize("loss", LOSSES.names)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_a_mean_of_weighted_terms_and_linear_in_labels(loss, smoothing):
    logits, labels = batch()
    weights, shares = np.array([2.0, 0.5, 1.0, 0.1, 3.0]), class_shares(COUNTS)
    whole = objective(loss, smoothing, weights, shares)
    plain = objective(loss, smoothing, None, shares)
    terms = [weights[k] * plain(logits[i : i + 1], labels[i : i + 1]).item() for i, k in enumerate(labels)]
    assert whole(logits, labels).item() == pytest.approx(np.mean(terms), rel=1e-5)
    one_hot = functional.one_hot(labels, 5).float()
    assert_same(whole, lambda given, _: whole(given, one_hot), logits, labels)
    other = labels.flip(0)
    soft = 0.7 * one_hot + 0.3 * functional.one_hot(other, 5).float()
    expected = 0.7 * whole(logits, labels).item() + 0.3 * whole(logits, other).item()
    assert whole(logits, soft).item() == pytest.approx(expected, rel=1e-5)


def test_mixing_with_a_share_of_1_changes_nothing():
    images, labels = torch.rand(4, 1, 3, 3), torch.tensor([0, 2, 1, 1])
    found, soft = mixed(images, labels, 3, 1.0, torch.tensor([3, 2, 1, 0]))
    assert torch.equal(found, images)
    assert torch.equal(soft, functional.one_hot(labels, 3).float())


def test_mixed_labels_are_mixed_as_their_images_are():
    labels = torch.arange(6) % 3
    images = labels[:, None, None, None].float().expand(6, 1, 2, 2)
    found, soft = mix(images, labels, 3, 0.4, np.random.Generator(np.random.PCG64(3)))
    assert soft.sum(1).numpy() == pytest.approx(np.ones(6))
    assert (soft @ torch.arange(3.0)).numpy() == pytest.approx(found[:, 0, 0, 0].numpy())
    again = mix(images, labels, 3, 0.4, np.random.Generator(np.random.PCG64(3)))
    assert torch.equal(again[0], found) and torch.equal(again[1], soft)


def test_the_effective_number_goes_from_no_weights_to_the_inverse_share():
    present = COUNTS > 0
    even = class_weights(COUNTS, "effective", 0.0)
    assert even[present] == pytest.approx(1.0) and even[~present].tolist() == [0.0]
    inverse = class_weights(COUNTS, "inverse")
    assert class_weights(COUNTS, "effective", 0.9999999) == pytest.approx(inverse, rel=1e-4)
    between = class_weights(COUNTS, "effective", 0.9)
    raw = [(1 - 0.9) / (1 - 0.9**n) if n else 0.0 for n in COUNTS]
    assert between == pytest.approx(np.array(raw) / np.dot(raw, COUNTS / COUNTS.sum()))


def test_shares_add_up_to_1_and_none_is_0():
    shares = class_shares(COUNTS)
    assert shares.sum() == pytest.approx(1.0) and (shares > 0).all()
    assert shares[3] / shares[1] == pytest.approx(30.0)


def test_balanced_softmax_weighs_no_class_besides_unless_it_is_asked_for():
    assert Settings(loss="balanced_softmax").class_weights == "none"
    assert Settings(loss="balanced_softmax", class_weights="sqrt").class_weights == "sqrt"
    assert Settings(loss="focal").class_weights == "sqrt"


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "focl"},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"mixup": -1.0},
        {"focal_gamma": -1.0},
        {"class_weights": "effectiv"},
        {"effective_beta": 1.0},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(given):
    with pytest.raises(SettingsError) as caught:
        Settings(**given)
    assert "\n" not in str(caught.value) and next(iter(given)) in str(caught.value)


def test_a_loss_of_ones_own_is_trained_with_under_smoothing_and_weights(toy):
    class Squared(nn.Module):
        def __init__(self, squared_scale):
            super().__init__()
            self.scale = squared_scale

        def forward(self, logits):
            return self.scale * (1 - torch.softmax(logits, 1)) ** 2

    option = Option("squared_scale", float, 2.0, "factor")
    LOSSES.register("squared", "for tests", Squared, options=(option,))
    try:
        settings = Settings(**SMALL, loss="squared", label_smoothing=0.1, squared_scale=3.0)
        assert local_plan(settings).loss_options == {"squared_scale": 3.0}
        assembly = assemble(settings, load_federated_data(settings))
        list(assembly.federation.run())
        assert assembly.federation.state.records[-1].mean_loss < 3.0
    finally:
        LOSSES.unregister("squared")


def trained(dataset, **changes):
    """Train a linear network on toy images for one round; return the result, the network and its start."""
    settings = Settings(**{**SMALL, "augment": False, "momentum": 0.0, **changes})
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    layout = StateLayout(model)
    start = layout.flatten(model)
    counts = dataset.class_counts()
    result = train(
        model,
        layout,
        dataset,
        normalisation_from_sums(pixel_sums(dataset.images)),
        local_plan(settings),
        start=start,
        seed=5,
        purpose=(1, "a"),
        class_weights=class_weights(counts, settings.class_weights, settings.effective_beta),
        class_shares=class_shares(counts),
        full_gradient=True,
    )
    return result, model, layout, start


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"loss": "focal"}, {"label_smoothing": 0.1}], ids=str)
def test_training_with_them_repeats_bit_for_bit_and_differs_from_training_without(changes):
    dataset = toy_dataset(40)
    one, again, without = (trained(dataset, **given)[0] for given in (changes, changes, {}))
    assert np.array_equal(one.delta, again.delta)
    assert not np.array_equal(one.delta, without.delta)


def test_the_full_gradient_is_of_the_loss_without_mixing():
    dataset = toy_dataset(40)
    changes = {"loss": "balanced_softmax", "label_smoothing": 0.1}
    result, model, layout, start = trained(dataset, mixup=0.4, **changes)
    assert np.array_equal(result.gradient, trained(dataset, **changes)[0].gradient)
    layout.write(model, start)
    whole = objective("balanced_softmax", 0.1, None, class_shares(dataset.class_counts()))
    images = to_batch(dataset.images, normalisation_from_sums(pixel_sums(dataset.images)))
    loss = whole(model(images), torch.from_numpy(dataset.labels))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    np.testing.assert_allclose(
        result.gradient, torch.cat([g.reshape(-1) for g in expected]).numpy(), rtol=1e-4, atol=1e-6
    )


def test_weights_and_shares_follow_from_the_hospitals_sums(toy):
    settings = Settings(**SMALL, class_weights="effective", effective_beta=0.9)
    federated = load_federated_data(settings)
    assembly = assemble(settings.replace(rounds=1), federated)
    list(assembly.federation.run())
    counts = federated.dataset.subset(federated.split.train).class_counts()
    prepared: Prepared = assembly.federation.state.begun
    assert prepared.class_shares == pytest.approx(counts / counts.sum())
    assert prepared.class_weights == pytest.approx(class_weights(counts, "effective", 0.9))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "balanced_softmax", "mixup": 0.2, "warmup_rounds": 1},
        {"loss": "focal", "label_smoothing": 0.1, "class_weights": "effective", "lr_schedule": "cosine"},
    ],
    ids=["balanced", "focal"],
)
def test_they_train_alike_under_every_protection(toy, changes):
    models = {}
    for choice in ("plaintext", "smpc", "he"):
        settings = settings_of((choice, {}), **SMALL, **changes)
        assembly = assemble(settings, share_out(settings, toy))
        list(assembly.federation.run())
        models[choice] = assembly.federation.state.server.model
    assert np.array_equal(models["smpc"], models["he"])
    np.testing.assert_allclose(models["smpc"], models["plaintext"], atol=1e-4)
