"""PySyft 0.2.9 itself: the process's one TorchHook, and workers that come and go."""

from __future__ import annotations

import functools
import itertools
import random
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Callable

import torch
import torchvision  # noqa: F401 - must be imported before the hook, or torch.jit fails

from skinfl.errors import SettingsError

VERSION = "0.2.9"


def _installed() -> str:
    try:
        return version("syft")
    except PackageNotFoundError:
        return "none"


if _installed() != VERSION:
    raise SettingsError(
        f"PySyft {VERSION} is asked for, found {_installed()}: make the environment of environment.yml "
        "(Python 3.8), or take what needs no PySyft: workers 'virtual', protection 'smpc'"
    )

import syft  # noqa: E402
from syft.generic import id_provider  # noqa: E402

_numbers = itertools.count(1)


def torch_hook() -> syft.TorchHook:
    """Return the process's one TorchHook. It makes torch's functions accept pointers, everywhere.

    Plain tensors must not notice. Three things are put right for that; without them, training that
    PySyft only looks on differs from training without it.
    """
    if not hasattr(torch, "torch_hooked"):
        # PySyft draws its objects' ids from Python's global generator, which training is seeded by.
        id_provider.random = random.Random()
        clip_grad_norm = torch.nn.utils.clip_grad_norm_
        syft.TorchHook(torch)
        # PySyft's version for pointers computes plain gradients' norm in float32, torch's in float64.
        torch.nn.utils.clip_grad_norm_ = clip_grad_norm
        for method in ("__getitem__", "__setitem__"):
            setattr(torch.Tensor, method, _mended(getattr(torch.Tensor, method)))
    return syft.hook


def _mended(hooked: Callable[..., Any]) -> Callable[..., Any]:
    """Return PySyft's indexing method, made right for plain tensors.

    Once hooked, torch's C code takes an index tensor of fewer than 32 elements for a tuple of as many
    indices: ``x[tensor([1, 2])]`` gives ``x[1, 2]``. A tuple with the tensor in it is taken as it is.
    """

    @functools.wraps(hooked)
    def method(self: torch.Tensor, index: Any, *value: Any) -> Any:
        plain = isinstance(index, torch.Tensor) and not hasattr(index, "child")
        return hooked(self, (index,) if plain and not hasattr(self, "child") else index, *value)

    return method


def add_worker(name: str, kind: type = syft.VirtualWorker) -> syft.VirtualWorker:
    """Return a new worker. Its PySyft id is ``name`` and a number: PySyft gives a second worker of
    the same id the first one's objects.
    """
    return kind(torch_hook(), id=f"{name}/{next(_numbers)}")


def forget_worker(worker: syft.VirtualWorker) -> None:
    """Drop a worker's objects and PySyft's references to it, which would keep them for ever."""
    worker.clear_objects()
    for other in [worker.hook.local_worker, *worker.hook._syft_workers]:
        other._known_workers.pop(worker.id, None)
    worker.hook._syft_workers.discard(worker)
