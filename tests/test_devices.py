"""Where networks compute: names, refusals, precision, and memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from samples import toy_dataset
from torch import nn

from skinfl import devices
from skinfl.assembly import check, local_plan
from skinfl.data.feeding import feed
from skinfl.data.normalisation import Normalisation
from skinfl.data.transforms import Augmentation
from skinfl.devices import Compute, compute_on, is_out_of_memory
from skinfl.errors import SettingsError, TrainingError
from skinfl.federation.evaluation import predict
from skinfl.federation.local import train
from skinfl.federation.update import StateLayout
from skinfl.models.skinnet import SkinNet
from skinfl.seeds import numpy_rng
from skinfl.settings import OF_THE_MACHINE, Settings, options

NORMALISATION = Normalisation((0.3,), (0.2,))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def fake_gpu(monkeypatch, capability=(8, 0), count=2):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(devices, "_set_deterministic", lambda on: None)


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:1000", "", "cpu:1", 3, "cuda\n"])
def test_a_name_of_no_device_is_refused(name):
    with pytest.raises(SettingsError, match="device = ") as caught:
        Settings(device=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused_before_data_is_read(name, no_gpu, monkeypatch):
    if name == "mps" and hasattr(torch.backends, "mps"):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=f"device {name} is not there"):
        check(Settings(device=name))


def test_auto_is_the_processor_where_there_is_no_gpu(no_gpu):
    found = compute_on("auto", image_size=224)
    assert found.device.type == "cpu" and found.precision is None and found.description == "cpu"


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    fake_gpu(monkeypatch)
    assert str(compute_on("cuda:1", image_size=28).device) == "cuda:1"
    with pytest.raises(SettingsError, match="device cuda:2 is not there: the last one is cuda:1"):
        compute_on("cuda:2", image_size=28)


@pytest.mark.skipif(not hasattr(torch, "autocast"), reason="torch.autocast came with torch 1.10")
def test_mixed_precision_is_taken_where_it_pays(monkeypatch):
    fake_gpu(monkeypatch)
    assert compute_on("auto", image_size=224).precision == "bf16"
    assert compute_on("auto", image_size=28).precision is None
    assert compute_on("auto", "off", image_size=224).precision is None
    assert compute_on("auto", "fp16", image_size=28).precision == "fp16"
    fake_gpu(monkeypatch, capability=(7, 5))
    assert compute_on("auto", image_size=224).precision is None
    with pytest.raises(SettingsError, match="capability 8"):
        compute_on("auto", "bf16", image_size=224)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_is_refused_on_the_processor(amp, no_gpu):
    with pytest.raises(SettingsError, match="needs a CUDA device"):
        check(Settings(amp=amp))


def test_what_is_the_machines_own_are_settings():
    assert set(OF_THE_MACHINE) <= set(options())


@pytest.mark.parametrize(
    "error, is_one",
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory(error, is_one):
    assert is_out_of_memory(error) == is_one


class Small(SkinNet):
    """A network on a device that holds ``room`` images at once."""

    room = 1000

    def forward(self, images):
        if len(images) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return super().forward(images)


def trained(room, batch_size=32, compute=None, images=70, **changes):
    torch.manual_seed(0)
    model = Small(1, 12, 3)
    model.room = room
    layout = StateLayout(model)
    plan = local_plan(Settings(batch_size=batch_size, local_epochs=2, **changes))
    return train(
        model,
        layout,
        toy_dataset(images),
        NORMALISATION,
        plan,
        start=layout.flatten(model),
        seed=1,
        purpose=(1, "north"),
        full_gradient=True,
        drift=np.full(layout.n_parameters, 1e-4, np.float32),
        proximal=0.1,
        compute=compute,
    )


def test_too_little_memory_says_what_fits():
    with pytest.raises(TrainingError, match="batch of 32: 8 images fit; use --batch-size 8") as caught:
        trained(room=9)
    assert "\n" not in str(caught.value)


def test_no_memory_at_all_is_said():
    for smaller in (False, True):
        with pytest.raises(TrainingError, match="not the memory for 2 images of 12 pixels"):
            trained(room=1, compute=Compute("cpu", smaller=smaller))


@pytest.mark.parametrize("images", [70, 65])
def test_parts_of_a_batch_give_the_batchs_gradient(images):
    # 65 images: a last batch of one joins the one before, which has 33 then
    compute = Compute("cpu", smaller=True)
    whole, parts = trained(1000, images=images), trained(9, images=images, compute=compute)
    assert compute.part == 8
    assert parts.steps == whole.steps
    assert parts.delta == pytest.approx(whole.delta, abs=2e-5)
    assert parts.gradient == pytest.approx(whole.gradient, abs=1e-5)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-5)
    # what fits is known from then on, and a seed still gives one model
    assert np.array_equal(parts.delta, trained(9, images=images, compute=compute).delta)


def test_a_network_is_in_the_computers_memory_after_it_trained():
    model, moved = nn.Linear(2, 2), []
    model.to = lambda device: moved.append(str(device))
    with pytest.raises(ZeroDivisionError), Compute("cuda:3").place(model):
        raise ZeroDivisionError
    assert moved == ["cuda:3", "cpu"]


class Putting(SkinNet):
    """A network with an operation that gives what it gives in no fixed order."""

    def forward(self, images):
        logits = super().forward(images)
        logits.detach().clone().put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        return logits


@pytest.mark.skipif(not hasattr(torch, "use_deterministic_algorithms"), reason="came with torch 1.8")
def test_what_has_no_deterministic_form_is_said_in_one_line():
    model = Putting(1, 12, 3)
    layout, plan = StateLayout(model), local_plan(Settings())
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(TrainingError, match="cpu: put_ has no deterministic form there") as caught:
            train(
                model,
                layout,
                toy_dataset(40),
                NORMALISATION,
                plan,
                start=layout.flatten(model),
                seed=1,
                purpose=("x",),
            )
    finally:
        torch.use_deterministic_algorithms(False)
    assert "\n" not in str(caught.value) and "--no-deterministic" in str(caught.value)


@pytest.mark.parametrize(
    "said, name",
    [
        (
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this",
            "adaptive_avg_pool2d_backward_cuda",
        ),
        (
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic "
            "because it uses CuBLAS and you have CUDA >= 10.2.",
            "a product of cuBLAS",
        ),
    ],
)
def test_torchs_ways_of_saying_it_are_known(said, name):
    cpu, model = Compute("cpu"), nn.Linear(1, 1)
    with pytest.raises(TrainingError, match=f"cpu: {name} has no deterministic form"), cpu.place(model):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="cannot be multiplied"), cpu.place(model):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.skipif(not hasattr(torch, "autocast"), reason="torch.autocast came with torch 1.10")
def test_mixed_precision_learns_alike():
    # the processor's own bfloat16 stands for a GPU's
    mixed, full = trained(1000, compute=Compute("cpu", "bf16")), trained(1000)
    assert not np.array_equal(mixed.delta, full.delta)
    assert np.linalg.norm(mixed.delta - full.delta) < 0.2 * np.linalg.norm(full.delta)
    assert mixed.loss == pytest.approx(full.loss, abs=0.05)


def test_evaluation_takes_smaller_batches_where_memory_runs_out():
    torch.manual_seed(0)
    model, dataset = Small(1, 12, 3), toy_dataset(70)
    expected, loss = predict(model, dataset, NORMALISATION)
    model.room = 10
    found, found_loss = predict(model, dataset, NORMALISATION)
    assert found == pytest.approx(expected, abs=1e-6) and found_loss == pytest.approx(loss, abs=1e-6)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(model, dataset, NORMALISATION, batch_statistics=True)


@pytest.mark.parametrize("at_once", [1, 500, 5000, 1 << 20])
def test_batches_made_ahead_and_together_are_the_same(monkeypatch, at_once):
    dataset = toy_dataset(70)
    parts = np.array_split(numpy_rng(0, "order").permutation(70), 9)
    cpu = torch.device("cpu")

    def batches(ahead):
        rng = numpy_rng(3, "augment")
        return list(feed(dataset, parts, NORMALISATION, Augmentation(), rng, device=cpu, ahead=ahead))

    expected = batches(False)
    monkeypatch.setattr("skinfl.data.feeding._AT_ONCE", at_once)
    for ahead in (True, False):
        found = batches(ahead)
        assert len(found) == len(expected) == len(parts)
        for (images, labels), (same, same_labels), part in zip(found, expected, parts):
            assert torch.equal(images, same) and torch.equal(labels, same_labels)
            assert labels.tolist() == dataset.labels[part].tolist()


def test_training_leaves_the_global_generators_alone():
    torch.manual_seed(7)
    np.random.seed(7)
    trained(1000)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    model = Small(1, 12, 3)
    torch.set_rng_state(before[0])
    layout, plan = StateLayout(model), local_plan(Settings())
    results = [
        train(
            model,
            layout,
            toy_dataset(40),
            NORMALISATION,
            plan,
            start=layout.flatten(model) * 0 + 0.01,
            seed=1,
            purpose=("x",),
        )
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert np.array_equal(results[0].delta, results[1].delta)


def test_a_failure_in_the_thread_that_makes_batches_is_the_trainings(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("skinfl.data.feeding.to_batch", fail)
    with pytest.raises(TrainingError, match="not the memory"):
        trained(1000)
