"""Training and test sets that share no lesion, and the published code's that do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, NamedTuple, Tuple

import numpy as np

from skinfl.errors import DataError, nearest
from skinfl.seeds import numpy_rng

if TYPE_CHECKING:
    from skinfl.data.dataset import Indices, LesionDataset

PROTOCOLS = ("grouped", "published")
#: the published code copies each photograph ten times before it draws the test set
PUBLISHED_COPIES = 10


class Split(NamedTuple):
    """Indices of the training and the test photographs, how they were drawn, and what leaked.

    ``leaked_lesions`` counts the lesions with photographs in both. Under the published protocol
    indices repeat, once for each copy.
    """

    train: np.ndarray
    test: np.ndarray
    protocol: str
    leaked_lesions: int


def train_test_split(
    dataset: LesionDataset, *, test_fraction: float = 0.2, seed: int = 0, protocol: str = "grouped"
) -> Split:
    """Draw a test set of about ``test_fraction`` of the photographs.

    ``"grouped"`` keeps all photographs of a lesion together, and all of a patient where patients are known,
    and draws these groups class by class, so that each class with two groups or more is in both parts; a
    group's class is its most frequent one. ``"published"`` draws as the published code does: from ten
    copies of each photograph, heedless of lesions, so that nearly every test photograph was trained on;
    only to compare with the paper's table.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown split protocol {protocol!r}: {nearest(protocol, PROTOCOLS)}")
    if not 0.0 < test_fraction < 1.0:
        raise DataError(f"test fraction {test_fraction} is impossible: give a number between 0 and 1")
    if len(dataset) < 2:
        raise DataError(f"{dataset.name}: {len(dataset)} photographs cannot be split: two or more are needed")
    rng = numpy_rng(seed, "split", protocol)
    if protocol == "published":
        copies = np.repeat(np.arange(len(dataset)), PUBLISHED_COPIES)
        order = shuffled(copies, rng)
        cut = round(len(order) * test_fraction)
        train, test = order[cut:], order[:cut]
    else:
        train, test = _grouped(dataset, test_fraction, rng)
    return Split(train, test, protocol, leaked_lesions(dataset, train, test))


def hold_out(
    dataset: LesionDataset, fraction: float, *, seed: int, hospital: str
) -> Tuple[np.ndarray, np.ndarray]:
    """Divide a hospital's training photographs; return sorted indices to train on and to validate on.

    About ``fraction`` of each class's photographs are held out, by whole groups as in
    :func:`train_test_split`. A class of which that is less than half a group keeps all its photographs for
    training; so nothing may be held out. Each hospital draws for itself, by its name.
    """
    groups = group_photographs(dataset)
    rng = numpy_rng(seed, "validation", hospital)
    chosen: List[np.ndarray] = [np.zeros(0, np.int64)]
    for label in range(len(dataset.classes)):
        members = shuffled(np.flatnonzero(groups.labels == label), rng)
        photographs = np.cumsum(groups.sizes[members])
        # Groups enter while the midpoint of each lies below the wanted share of photographs.
        wanted = fraction * (photographs[-1] if len(members) else 0)
        cut = int(np.sum(photographs - groups.sizes[members] / 2 < wanted))
        chosen.append(members[: max(0, min(cut, len(members) - 1))])
    held_out = np.isin(groups.of, np.concatenate(chosen))
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def leaked_lesions(dataset: LesionDataset, train: Indices, test: Indices) -> int:
    """Return how many lesions have photographs both in ``train`` and in ``test``."""
    lesion_ids = dataset.lesion_ids
    both = set(lesion_ids[np.asarray(train, dtype=np.int64)]) & set(
        lesion_ids[np.asarray(test, dtype=np.int64)]
    )
    return len(both)


def leaked_patients(dataset: LesionDataset, train: Indices, test: Indices) -> int:
    """Return how many known patients have photographs both in ``train`` and in ``test``."""
    patient_ids = dataset.patient_ids
    both = set(patient_ids[np.asarray(train, dtype=np.int64)]) & set(
        patient_ids[np.asarray(test, dtype=np.int64)]
    )
    return len(both - {""})


class Groups(NamedTuple):
    """What is never taken apart, in order of first photograph: a lesion, or all lesions of a known patient.

    ``of``: each photograph's group number, shape (photographs,). ``labels``, ``sites``, ``sizes``: each
    group's most frequent class and site and its number of photographs, shape (groups,).
    """

    of: np.ndarray
    labels: np.ndarray
    sites: np.ndarray
    sizes: np.ndarray


def group_photographs(dataset: LesionDataset) -> Groups:
    """Group the photographs by patient where the patient is known, and else by lesion."""
    root = _joined(zip(dataset.lesion_ids, dataset.patient_ids))
    number: Dict[Tuple[str, str], int] = {}
    of = np.array(
        [number.setdefault(root(("lesion", name)), len(number)) for name in dataset.lesion_ids],
        dtype=np.int64,
    )
    sizes = np.bincount(of, minlength=len(number))
    # Some lesions of HAM10000 carry two diagnoses or two sites: the more frequent one counts.
    labels = _most_frequent(of, dataset.labels, len(number))
    names, codes = np.unique(dataset.sites.astype(str), return_inverse=True)
    sites = names[_most_frequent(of, codes.reshape(-1), len(number))]
    return Groups(of, labels, sites, sizes)


def _joined(pairs: Iterable[Tuple[str, str]]) -> Callable[[Tuple[str, str]], Tuple[str, str]]:
    """Return what finds the one member that stands for all lesions and patients joined by ``pairs``."""
    parent: Dict[Tuple[str, str], Tuple[str, str]] = {}

    def root(member: Tuple[str, str]) -> Tuple[str, str]:
        while parent.get(member, member) != member:
            member = parent[member]
        return member

    for lesion, patient in pairs:
        if patient:
            parent[root(("lesion", lesion))] = root(("patient", patient))
    return root


def shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``values`` in random order.

    By sorting uniform numbers: numpy's stream of them is the same in every version, that of its
    ``permutation`` need not be.
    """
    return values[np.argsort(rng.random(len(values)), kind="stable")]


def _most_frequent(of: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """Return each group's most frequent code, the smallest of equals, shape (groups,)."""
    counts = np.zeros((groups, int(codes.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(counts, (of, codes), 1)
    return counts.argmax(axis=1)


def _grouped(
    dataset: LesionDataset, test_fraction: float, rng: np.random.Generator
) -> Tuple[np.ndarray, np.ndarray]:
    groups = group_photographs(dataset)
    if len(groups.labels) < 2:
        one = "patient" if dataset.patient_ids[0] else "lesion"
        raise DataError(
            f"{dataset.name}: all photographs are of one {one} and cannot be split: two or more are needed"
        )
    chosen: List[np.ndarray] = []
    for label in range(len(dataset.classes)):
        members = shuffled(np.flatnonzero(groups.labels == label), rng)
        if len(members) < 2:
            continue
        photographs = np.cumsum(groups.sizes[members])
        # Groups enter while the midpoint of each lies below the wanted share of photographs.
        cut = int(np.sum(photographs - groups.sizes[members] / 2 < test_fraction * photographs[-1]))
        chosen.append(members[: min(max(cut, 1), len(members) - 1)])
    if not chosen:
        # Each class has a single group: any of them may be the test set.
        chosen.append(shuffled(np.arange(len(groups.labels)), rng)[:1])
    in_test = np.isin(groups.of, np.concatenate(chosen))
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)
