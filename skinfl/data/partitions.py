"""Which hospital holds which photographs. A lesion's photographs are always at one hospital.

The whole data set is handed out, training and test photographs alike; a hospital's training part is
what it holds of the split's training photographs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np

from skinfl.data.splits import Groups, group_photographs, shuffled
from skinfl.errors import DataError, SettingsError, nearest
from skinfl.registry import Option, Registry
from skinfl.seeds import numpy_rng

if TYPE_CHECKING:
    from skinfl.data.dataset import Indices, LesionDataset

#: the share of the data each of the paper's five hospitals holds
PAPER_SHARES = (0.10, 0.35, 0.25, 0.15, 0.15)
#: how often a Dirichlet draw that leaves a hospital without a task is drawn again
DIRICHLET_DRAWS = 100


def _default(settings: Any) -> str:
    return "paper" if settings.hospitals == len(PAPER_SHARES) else "iid"


#: who holds what, by name. An entry is called with ``dataset``, its ``groups``, the number of ``hospitals``,
#: ``seed`` and ``train`` as :func:`partition` has them, as far as it uses them, and with its options. It
#: returns each hospital's sorted indices, and raises DataError for a hospital that could not train.
PARTITIONS = Registry(
    "partition",
    group="Hospitals",
    help="who holds what",
    default=_default,
    derived="paper for 5 hospitals, else iid",
)
#: what an entry may use
FACTS = ("dataset", "groups", "hospitals", "seed", "train")


def partition(
    dataset: LesionDataset,
    *,
    hospitals: int = 5,
    scheme: str = "paper",
    seed: int = 0,
    train: Optional[Indices] = None,
    **options: Any,
) -> Dict[str, np.ndarray]:
    """Assign every photograph to a hospital; return each hospital's sorted indices.

    Parameters
    ----------
    hospitals: how many, named ``hospital-1`` and so on. Of no effect with ``scheme="site"``.
    scheme: one of :data:`PARTITIONS`; ``options`` are its own.
    train: indices of the training photographs. Where given, a hospital that has none of them, or of
        one class only, is refused.
    """
    names = [entry.name for entry in PARTITIONS]
    if scheme not in names:
        raise DataError(f"unknown partition {scheme!r}: {nearest(scheme, names)}")
    facts = {
        "dataset": dataset,
        "groups": group_photographs(dataset),
        "hospitals": hospitals,
        "seed": seed,
        "train": train,
    }
    parts: Dict[str, np.ndarray] = PARTITIONS.build(scheme, options, **facts)
    return parts


def _by_shares(
    scheme: str, shares: np.ndarray, dataset: LesionDataset, groups: Groups, seed: int
) -> Dict[str, np.ndarray]:
    """Hand out shuffled groups in consecutive pieces of the given shares."""
    order = shuffled(np.arange(len(groups.sizes)), numpy_rng(seed, "partition", scheme))
    owner = np.empty(len(order), dtype=np.int64)
    owner[order] = _cut(groups.sizes[order], shares)
    return _named(owner[groups.of], len(shares))


def _check_number(hospitals: int, dataset: LesionDataset, groups: Groups) -> None:
    if hospitals < 1:
        raise DataError(f"{hospitals} hospitals are impossible: give one or more")
    if hospitals > len(groups.sizes):
        kind = "patients" if any(dataset.patient_ids) else "lesions"
        raise DataError(
            f"{hospitals} hospitals for {len(groups.sizes)} {kind} of {len(dataset)} photographs in "
            f"{dataset.name}: give at most {len(groups.sizes)}"
        )


def _paper_number(hospitals: int) -> str:
    """Return what is wrong with the number of hospitals for the paper's shares, or nothing."""
    if hospitals == len(PAPER_SHARES):
        return ""
    return (
        f"the paper's partition is for {len(PAPER_SHARES)} hospitals, not {hospitals}: "
        f"use --hospitals {len(PAPER_SHARES)}, or --partition iid or dirichlet"
    )


def _paper_check(settings: Any) -> None:
    if _paper_number(settings.hospitals):
        raise SettingsError(_paper_number(settings.hospitals))


@PARTITIONS.register(
    "paper", "the paper's five shares: 0.10, 0.35, 0.25, 0.15, 0.15", uses=FACTS, check=_paper_check
)
def paper(
    *, dataset: LesionDataset, groups: Groups, hospitals: int, seed: int, train: Optional[Indices]
) -> Dict[str, np.ndarray]:
    """Hand out the paper's shares, to five hospitals and to no other number."""
    _check_number(hospitals, dataset, groups)
    if _paper_number(hospitals):
        raise DataError(_paper_number(hospitals))
    parts = _by_shares("paper", np.array(PAPER_SHARES), dataset, groups, seed)
    _check(dataset, parts, train, "use fewer hospitals, more data or another --seed")
    return parts


@PARTITIONS.register("iid", "equal shares", uses=FACTS)
def iid(
    *, dataset: LesionDataset, groups: Groups, hospitals: int, seed: int, train: Optional[Indices]
) -> Dict[str, np.ndarray]:
    """Hand out equal shares."""
    _check_number(hospitals, dataset, groups)

    def of(number: int) -> Dict[str, np.ndarray]:
        return _by_shares("iid", np.full(number, 1 / number), dataset, groups, seed)

    parts = of(hospitals)
    problems = _problems(dataset, parts, train)
    if not problems:
        return parts
    # What goes wrong at many hospitals at once is a matter of their number, not of the draw.
    fewer = sorted({int(hospitals * 0.95**k) for k in range(1, 200)} - {0, 1, hospitals}, reverse=True)
    possible = next((n for n in fewer if not _problems(dataset, of(n), train)), None)
    others = f", and {len(problems) - 1} more hospitals cannot train either" if problems[1:] else ""
    mend = "more data" if possible is None else f"--hospitals {possible}, which are possible, or more data"
    seed_hint = "" if problems[1:] else ", or another --seed"
    raise DataError(f"{problems[0]} of {dataset.name}{others}: use {mend}{seed_hint}")


def _cut(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Cut a row of groups into consecutive pieces of the given shares of photographs.

    Returns the piece of each group, shape (groups,), each piece with one group at least.
    """
    middle = np.cumsum(sizes) - sizes / 2
    pieces = np.searchsorted(np.cumsum(shares)[:-1] * sizes.sum(), middle, side="right")
    n, last = len(sizes), len(shares) - 1
    # No piece may be skipped, from the left, and enough groups must remain for those to the right.
    for i in range(n):
        before = pieces[i - 1] if i else -1
        pieces[i] = max(min(pieces[i], before + 1), before, last - (n - 1 - i))
    return pieces


def _named(owner: np.ndarray, hospitals: int) -> Dict[str, np.ndarray]:
    return {f"hospital-{h + 1}": np.flatnonzero(owner == h) for h in range(hospitals)}


@PARTITIONS.register(
    "site", "one hospital per site where photographs were taken", uses=("dataset", "groups", "train")
)
def by_site(*, dataset: LesionDataset, groups: Groups, train: Optional[Indices]) -> Dict[str, np.ndarray]:
    """Make each site a hospital, named like it; how many there are, the data says."""
    unknown = int(np.sum(dataset.sites == ""))
    if unknown:
        raise DataError(
            f"{dataset.name}: {unknown} of {len(dataset)} photographs have no site: bring a metadata table "
            "with the column 'dataset', or use --partition iid or dirichlet"
        )
    parts = {str(site): np.flatnonzero((groups.sites == site)[groups.of]) for site in np.unique(groups.sites)}
    _check(dataset, parts, train, "use --partition iid or dirichlet, or more data")
    return parts


@PARTITIONS.register(
    "dirichlet",
    "each class's shares drawn from Dirichlet(alpha)",
    options=(
        Option("alpha", float, 0.3, "concentration of the Dirichlet partition; small is skewed", low=0.01),
    ),
    uses=FACTS,
)
def dirichlet(
    *,
    dataset: LesionDataset,
    groups: Groups,
    hospitals: int,
    seed: int,
    train: Optional[Indices],
    alpha: float = 0.3,
) -> Dict[str, np.ndarray]:
    """Draw each class's shares from Dirichlet(alpha), Hsu et al., arXiv:1909.06335.

    ``alpha``: the smaller, the more the hospitals' classes differ.
    """
    _check_number(hospitals, dataset, groups)
    if not (np.isfinite(alpha) and alpha > 0):
        raise DataError(f"alpha {alpha} is impossible: give a positive number, e.g. 0.3")
    for draw in range(DIRICHLET_DRAWS):
        rng = numpy_rng(seed, "partition", "dirichlet", draw)
        owner = np.empty(len(groups.sizes), dtype=np.int64)
        for label in range(len(dataset.classes)):
            members = shuffled(np.flatnonzero(groups.labels == label), rng)
            ends = np.cumsum(_dirichlet_shares(alpha, hospitals, rng))[:-1] * groups.sizes[members].sum()
            middle = np.cumsum(groups.sizes[members]) - groups.sizes[members] / 2
            owner[members] = np.searchsorted(ends, middle, side="right")
        parts = _named(owner[groups.of], hospitals)
        problems = _problems(dataset, parts, train)
        if not problems:
            return parts
    raise DataError(
        f"{problems[0]} of {dataset.name}: none of {DIRICHLET_DRAWS} draws was better, use fewer hospitals "
        f"or a larger --alpha than {alpha:g}"
    )


def _dirichlet_shares(alpha: float, hospitals: int, rng: np.random.Generator) -> np.ndarray:
    gammas = rng.standard_gamma(alpha, hospitals)
    total = gammas.sum()
    # Every gamma may underflow when alpha is tiny; the limit is one hospital that holds the class.
    return gammas / total if total > 0 else np.eye(hospitals)[rng.integers(hospitals)]


def _problems(dataset: LesionDataset, parts: Dict[str, np.ndarray], train: Optional[Indices]) -> List[str]:
    """Return what is wrong with each hospital that could not train."""
    found = []
    in_train = np.ones(len(dataset), dtype=bool)
    if train is not None:
        in_train[:] = False
        in_train[np.asarray(train, dtype=np.int64)] = True
    for name, indices in parts.items():
        labels = dataset.labels[indices[in_train[indices]]]
        if not len(labels):
            found.append(
                f"{name} is left with no training images" if train is not None else f"{name} has no images"
            )
        elif train is not None and len(np.unique(labels)) == 1:
            found.append(f"{name} is left with one class only, {dataset.classes[labels[0]]}, to train on")
    return found


def _check(dataset: LesionDataset, parts: Dict[str, np.ndarray], train: Optional[Indices], mend: str) -> None:
    problems = _problems(dataset, parts, train)
    if problems:
        raise DataError(f"{problems[0]} of {dataset.name}: {mend}")
