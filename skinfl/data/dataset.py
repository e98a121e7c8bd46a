"""The one shape all readers return: images with the labels and identities that belong to them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.data.preparation import Preparation
from skinfl.data.rows import ImageRows, Images, blocks
from skinfl.errors import DataError
from skinfl.predictions import LesionClass

Texts = Union[Sequence[str], np.ndarray]
Indices = Union[Sequence[int], np.ndarray]


class Lesion(NamedTuple):
    """One photograph: ``image`` is uint8 of shape (height, width, channels)."""

    image: np.ndarray
    label: int
    lesion_id: str
    image_id: str
    site: str
    sex: str
    age: float
    patient_id: str = ""


_PER_PHOTOGRAPH = ("lesion_ids", "image_ids", "sites", "sexes", "ages", "patient_ids")


class LesionDataset:
    """Photographs of skin lesions, all of one size, uint8, in memory or on the disk.

    Parameters
    ----------
    name: what reports call it, e.g. ``"ham10000"``.
    images: uint8, shape (n, height, width, channels), channels 1 or 3: an array, or
        :class:`~skinfl.data.rows.ImageRows`, which are read as they are asked for. Or a frozen trunk's
        features in their place: float16 or float32, of any number of channels.
    labels: integers in ``range(len(classes))``, shape (n,).
    classes: in label order, each a :class:`LesionClass` or a bare name of which nothing more is known. The
        attribute ``classes`` has the names, ``class_info`` the descriptions.
    lesion_ids: photographs of one lesion share an id; whoever splits the data keeps them together.
    image_ids, sites, sexes, ages: per photograph; ``""`` and NaN where unknown.
    synthetic: whether the pictures were drawn, not taken. Reports say so.
    lesions_known: whether ``lesion_ids`` come from the publisher. Where it is False each photograph
        has an id of its own, and a leak between train and test cannot be ruled out.
    patient_ids: whose lesion it is, ``""`` where unknown. All lesions of a patient are kept together too.
    preparation: how the photographs became these pixels, None where that is not known.
    """

    def __init__(
        self,
        name: str,
        images: Images,
        labels: Indices,
        classes: Sequence[Union[str, LesionClass]],
        lesion_ids: Texts,
        image_ids: Texts,
        sites: Optional[Texts] = None,
        sexes: Optional[Texts] = None,
        ages: Optional[Union[Sequence[float], np.ndarray]] = None,
        synthetic: bool = False,
        lesions_known: bool = True,
        patient_ids: Optional[Texts] = None,
        preparation: Optional[Preparation] = None,
    ):
        n = len(images)
        self.name = name
        floats = images.dtype in (np.float16, np.float32)  # a trunk's features; float64 are pixels' values
        self.images: Images = (
            images
            if floats or isinstance(images, ImageRows)
            else np.ascontiguousarray(images, dtype=np.uint8)
        )
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_info: Tuple[LesionClass, ...] = tuple(
            each if isinstance(each, LesionClass) else LesionClass(each, each) for each in classes
        )
        self.classes: Tuple[str, ...] = tuple(each.name for each in self.class_info)
        self.lesion_ids = np.asarray(lesion_ids, dtype=object)
        self.image_ids = np.asarray(image_ids, dtype=object)
        self.sites = np.asarray([""] * n if sites is None else sites, dtype=object)
        self.sexes = np.asarray([""] * n if sexes is None else sexes, dtype=object)
        self.ages = np.asarray([np.nan] * n if ages is None else ages, dtype=np.float64)
        self.patient_ids = np.asarray([""] * n if patient_ids is None else patient_ids, dtype=object)
        self.synthetic = bool(synthetic)
        self.lesions_known = bool(lesions_known)
        self.preparation = preparation
        #: the images in each of their views, ``images`` first: training draws one each time, evaluation
        #: averages over all
        self.views: Tuple[Images, ...] = (self.images,)
        self._digest = ""
        if self.images.ndim != 4 or not (floats or self.images.shape[3] in (1, 3)):
            raise DataError(f"{name}: images must have shape (n, height, width, 1 or 3)")
        for column in ("labels", *_PER_PHOTOGRAPH):
            if len(getattr(self, column)) != n:
                raise DataError(f"{name}: {len(getattr(self, column))} {column} for {n} images")
        if n and not (0 <= self.labels.min() and self.labels.max() < len(self.classes)):
            raise DataError(f"{name}: labels must lie in 0..{len(self.classes) - 1}")

    @staticmethod
    def of_views(views: Sequence[Images], labels: Indices, **captions: Any) -> LesionDataset:
        """Return a data set of which each image is there in several views, all of one shape."""
        found = LesionDataset(images=views[0], labels=labels, **captions)
        found.views = (found.images, *views[1:])
        return found

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Lesion:
        return Lesion(
            self.images[i],
            int(self.labels[i]),
            self.lesion_ids[i],
            self.image_ids[i],
            self.sites[i],
            self.sexes[i],
            float(self.ages[i]),
            self.patient_ids[i],
        )

    def captions(self) -> Dict[str, Any]:
        """Return all but images and labels, by the constructor's names: for where the two travel apart."""
        return {
            "name": self.name,
            "classes": self.class_info,
            "lesion_ids": self.lesion_ids,
            "image_ids": self.image_ids,
            "sites": self.sites,
            "sexes": self.sexes,
            "ages": self.ages,
            "synthetic": self.synthetic,
            "lesions_known": self.lesions_known,
            "patient_ids": self.patient_ids,
            "preparation": self.preparation,
        }

    def subset(self, indices: Indices) -> LesionDataset:
        """Return the photographs at ``indices``, in that order; their pixels are not copied."""
        i = np.asarray(indices, dtype=np.int64)
        captions = self.captions()
        captions.update({column: captions[column][i] for column in _PER_PHOTOGRAPH})
        return LesionDataset.of_views([_rows(v).subset(i) for v in self.views], self.labels[i], **captions)

    @property
    def image_shape(self) -> Tuple[int, int, int]:
        """(channels, height, width), torch's order."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def photograph_shape(self) -> Tuple[int, int, int]:
        """(channels, height, width) of the photographs, where ``images`` may be features of theirs."""
        return self.image_shape

    @property
    def photographs(self) -> LesionDataset:
        """The photographs, where ``images`` may be features of theirs."""
        return self

    def drawn(self, indices: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        """Return the images at ``indices`` for a step of training.

        Of several views one each, as ``rng`` draws; without it the first.
        """
        if len(self.views) == 1 or rng is None:
            return self.images[indices]
        # of floats as many are used as are asked for, so that it does not matter how many are drawn at once
        which = (rng.random(len(indices)) * len(self.views)).astype(np.int64)
        found = np.empty((len(indices), *self.images.shape[1:]), self.images.dtype)
        for view, images in enumerate(self.views):
            found[which == view] = images[indices[which == view]]
        return found

    def class_counts(self) -> np.ndarray:
        """Return how many photographs each class has, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of all that decides a result, the order included.

        That is pixels, labels, class names, and the ids of lesions, images, sites and patients: data that
        were added to, relabelled, replaced, sorted anew or resized have another one, on any machine. What a
        report only shows (name, sexes, ages) does not count. Computed once: whoever changes an array in
        place afterwards is not noticed.
        """
        if not self._digest:
            sha = hashlib.sha256()
            identities = [self.lesion_ids, self.image_ids, self.sites, self.patient_ids]
            # JSON keeps apart what joined texts would mix up.
            text = json.dumps(
                [self.images.shape, self.classes, *([str(x) for x in ids] for ids in identities)]
            )
            sha.update(text.encode())
            sha.update(self.labels.astype("<i8").tobytes())
            for block in blocks(self.images):
                sha.update(np.ascontiguousarray(block).data)
            self._digest = sha.hexdigest()
        return self._digest


def _rows(images: Images) -> ImageRows:
    return images if isinstance(images, ImageRows) else ImageRows(images)
