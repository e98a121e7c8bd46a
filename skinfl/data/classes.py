"""Which diagnoses of different publishers are the same, and which is part of another.

Data sets name and cut their classes differently: HAM10000's ``akiec`` is ISIC 2019's ``AK`` and ``SCC``
together. What a network learnt from one is compared with the labels of another through :func:`match`.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from skinfl.predictions import LesionClass

#: each diagnosis by its usual short name, with others' names of it; case and punctuation do not count
SYNONYMS: Dict[str, Tuple[str, ...]] = {
    "mel": ("melanoma", "malignant melanoma"),
    "nv": ("nev", "nevus", "naevus", "nevi", "melanocytic nevus", "melanocytic naevus", "melanocytic nevi"),
    "bcc": ("basal cell carcinoma",),
    "akiec": (
        "actinic keratosis or intraepithelial carcinoma (Bowen's disease)",
        "actinic keratosis / Bowen's disease",
        "actinic keratoses and intraepithelial carcinoma / Bowen's disease",
    ),
    "ak": ("ack", "actinic keratosis", "actinic keratoses", "solar keratosis"),
    "scc": (
        "squamous cell carcinoma",
        "squamous cell carcinoma (Bowen's disease among them)",
        "bowen's disease",
        "bod",
    ),
    "bkl": ("benign keratosis", "benign keratosis-like lesion", "benign keratosis-like lesions"),
    "sek": ("sk", "seborrheic keratosis", "seborrhoeic keratosis"),
    "df": ("dermatofibroma",),
    "vasc": ("vascular lesion", "vascular lesions"),
}
#: what is part of a wider class. HAM10000's akiec is actinic keratosis and Bowen's disease, and ISIC 2019
#: names 197 of its 327 photographs squamous cell carcinoma; bkl is seborrheic keratosis among others.
PART_OF: Dict[str, str] = {"ak": "akiec", "scc": "akiec", "sek": "bkl"}


class Match(NamedTuple):
    """How the classes of a network and of a data set meet.

    ``classes``: those that are told apart, the network's that the data lack among them. ``of_model`` and
    ``of_data``: the place in ``classes`` of each class of the network and the data, -1 for a class of the
    data that the network does not know. Where one side has a wider class (``akiec``) and the other its parts
    (``ak``, ``scc``), the wider one is in ``classes`` and several places are equal: the network's
    probabilities of the parts add up.
    """

    classes: Tuple[LesionClass, ...]
    of_model: Tuple[int, ...]
    of_data: Tuple[int, ...]

    @property
    def common(self) -> Tuple[int, ...]:
        """The places in ``classes`` that both sides have."""
        return tuple(sorted(set(self.of_model) & set(self.of_data)))


def match(model: Sequence[LesionClass], data: Sequence[LesionClass]) -> Match:
    """Match the classes of a network with those of a data set by name; see :data:`SYNONYMS`."""
    keys_of_model, keys_of_data = list(map(diagnosis, model)), list(map(diagnosis, data))
    wide_of_model = _widened(keys_of_model, keys_of_data)
    wide_of_data = _widened(keys_of_data, keys_of_model)
    classes: List[LesionClass] = []
    places: Dict[str, int] = {}
    for own, key, each in zip(keys_of_model, wide_of_model, model):
        if key not in places:
            places[key] = len(classes)
            # A wider class than the network's own is described as the data describe it.
            classes.append(each if key == own else data[wide_of_data.index(key)])
    return Match(
        tuple(classes),
        tuple(places[key] for key in wide_of_model),
        tuple(places.get(key, -1) for key in wide_of_data),
    )


def diagnosis(each: LesionClass) -> str:
    """Return the usual short name of a class, by its own short name or else its name in full."""
    for name in (each.name, each.full_name):
        found = _KNOWN.get(_plain(name))
        if found is not None:
            return found
    return _plain(each.name) or each.name


def described(classes: Sequence[Any]) -> Tuple[LesionClass, ...]:
    """Return classes with their names in full where only short ones are given, all of one publisher here.

    A coordinator is told nothing but short names.
    """
    given = tuple(LesionClass(*each) for each in classes)
    names = tuple(each.name for each in given)
    if any(each.full_name != each.name or each.malignant is not None for each in given):
        return given
    from skinfl.data import ham10000, isic2019, pad_ufes

    for known in (ham10000.CLASS_INFO, isic2019.CLASS_INFO, pad_ufes.CLASS_INFO):
        if tuple(each.name for each in known) == names:
            return known
    return given


def _widened(keys: Sequence[str], others: Sequence[str]) -> List[str]:
    """Return each key, or the wider one where the other side has only that."""
    return [PART_OF[key] if key not in others and PART_OF.get(key) in others else key for key in keys]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", " ", name.lower().replace("'", "")).strip()


_KNOWN: Dict[str, str] = {
    _plain(name): short for short, others in SYNONYMS.items() for name in (short, *others)
}
