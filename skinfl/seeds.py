"""Seeds derived by name, so that no generator's state has to be kept between rounds.

Every use of randomness that decides a *result* (shuffling, augmentation, initial weights, sampling)
asks for the seed of its own purpose. A resumed run asks again and gets the same one. Randomness that
protects a *secret* (shares, masks, keys) never comes from here: see :mod:`skinfl.protection`.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import Iterator

import numpy as np


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for ``purpose``, e.g. ``derive(7, "shuffle", round, hospital, epoch)``."""
    text = "\x1f".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *purpose: object) -> np.random.Generator:
    """Return a numpy generator seeded for ``purpose``."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))


@contextmanager
def seeded(seed: int, *purpose: object) -> Iterator[None]:
    """Seed torch's and Python's global generators inside the block and restore them after it.

    First weights and dropout draw from torch's, which each device has one of; Python's is for what users
    bring.
    """
    import torch  # here, as drawing with numpy needs none and torch takes seconds to load

    value = derive(seed, *purpose)
    python_state = random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(value)
        random.seed(value)
        try:
            yield
        finally:
            random.setstate(python_state)
