"""Batches for training, the next ones made while the present one is trained on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch

from skinfl.data.dataset import LesionDataset
from skinfl.data.normalisation import Normalisation
from skinfl.data.transforms import Augmentation, to_batch

#: float32 values made at once. A few hundred small images cost little more than one batch of them would; more
#: than a few megabytes no longer stay in a processor's cache until they are used.
_AT_ONCE = 1 << 20

Batch = Tuple[torch.Tensor, torch.Tensor]


def feed(
    dataset: LesionDataset,
    parts: Sequence[np.ndarray],
    normalisation: Normalisation,
    augmentation: Optional[Augmentation] = None,
    rng: Optional[np.random.Generator] = None,
    *,
    device: torch.device,
    ahead: bool = True,
) -> Iterator[Batch]:
    """Yield images and labels of each of ``parts``, index arrays into ``dataset``, on ``device``.

    What ``augmentation`` does, and which view of features is taken, is drawn from ``rng`` in the order of
    use. Several batches are made together, and with ``ahead`` a thread makes the next ones meanwhile; torch
    leaves it Python's lock. Neither changes a value.
    """
    labels = torch.from_numpy(dataset.labels)
    drawn = None
    if augmentation is not None:
        assert rng is not None, "an augmentation is drawn from a generator"
        drawn = augmentation.draw(sum(map(len, parts)), rng)
    threads = torch.get_num_threads()

    def make(group: Tuple[int, List[np.ndarray]]) -> List[Batch]:
        start, indices = group
        index = np.concatenate(indices)
        rows = None if drawn is None else drawn[start : start + len(index)]
        images = to_batch(dataset.drawn(index, rng), normalisation, augmentation, rows, device=device)
        chosen = labels[torch.from_numpy(index)].to(device)
        sizes = [len(part) for part in indices]
        return list(zip(images.split(sizes), chosen.split(sizes)))

    groups = _groups(parts, max(1, _AT_ONCE // max(1, int(np.prod(dataset.image_shape)))))
    if not ahead or len(groups) < 2:
        for group in groups:
            yield from make(group)
        return
    # the number of threads is each thread's own, and a new one would begin with as many as there are cores
    with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (threads,)) as thread:
        coming = thread.submit(make, groups[0])
        for group in groups[1:]:
            made = coming.result()
            coming = thread.submit(make, group)
            yield from made
            del made
        yield from coming.result()


def _groups(parts: Sequence[np.ndarray], images: int) -> List[Tuple[int, List[np.ndarray]]]:
    """Return runs of batches of about so many images, each with the place of its first image."""
    groups: List[Tuple[int, List[np.ndarray]]] = []
    place, held = 0, images
    for part in parts:
        if held and held + len(part) > images:
            groups.append((place, []))
            held = 0
        groups[-1][1].append(part)
        held += len(part)
        place += len(part)
    return groups
