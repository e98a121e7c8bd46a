"""A trained network together with what it needs to take a photograph and name its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple, Union

import numpy as np
import torch
from PIL import Image
from torch import nn

from skinfl.data.images import SMALLEST, open_image, photograph, prepare
from skinfl.errors import DataError
from skinfl.models.store import StoredModel, load_model
from skinfl.paths import path as user_path

#: what :meth:`LesionClassifier.predict` takes
Picture = Union[str, Path, Image.Image, np.ndarray]


class LesionClassifier(nn.Module):
    """A network ready for photographs: pixels in, logits out, the normalisation inside.

    ``classes`` are the class names in the order of the logits, ``image_size`` is the side in pixels and
    ``channels`` the number of channels (1 grey, 3 red, green, blue) of what the network takes;
    ``preparation`` is how a photograph becomes that. It comes in evaluation mode. Research software, not a
    medical device.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, stored: StoredModel):
        super().__init__()
        self.network = stored.model
        self.classes: Tuple[str, ...] = stored.class_names
        self.image_size = stored.image_size
        self.preparation = stored.preparation
        self.channels = stored.in_channels
        self.register_buffer("mean", torch.tensor(stored.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(stored.std).reshape(1, -1, 1, 1))
        self.eval()

    @classmethod
    def load(cls, path: Union[str, Path]) -> LesionClassifier:
        """Read a model file; raises :class:`~skinfl.errors.ModelError` where it is none."""
        return cls(load_model(path))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits, float32, shape (n, classes).

        ``pixels`` has shape (n, channels, image_size, image_size): uint8 from 0 to 255, or floats from 0
        to 1.
        """
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return self.network((scaled - self.mean) / self.std)

    def predict(self, picture: Picture) -> Dict[str, float]:
        """Return the probability of each class for one photograph.

        ``picture`` is a file, a PIL image, or uint8 pixels of shape (height, width) or (height, width, 3).
        It is prepared as in training, and made grey where the network takes grey. Raises
        :class:`~skinfl.errors.DataError` for what is no image.
        """
        pixels = torch.from_numpy(self._pixels(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            shares = torch.softmax(self(pixels)[0].double(), dim=0)
        return {name: float(share) for name, share in zip(self.classes, shares)}

    def _pixels(self, picture: Picture) -> np.ndarray:
        if isinstance(picture, (str, Path)):
            image = open_image(user_path(picture))
        elif isinstance(picture, Image.Image):
            image = photograph(picture, "the picture")
        elif isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or not (picture.ndim == 2 or picture.shape[2:] == (3,)):
                raise DataError(
                    f"an array of shape {picture.shape} and type {picture.dtype} is no picture: "
                    "give uint8 of shape (height, width) or (height, width, 3)"
                )
            if min(picture.shape[:2]) < SMALLEST:  # Pillow has no image without pixels
                raise DataError(f"an array of shape {picture.shape} is too small for a photograph")
            image = photograph(Image.fromarray(picture), "the picture")
        else:
            raise DataError(
                f"{type(picture).__name__} is no picture: give a file's path, a PIL image or a numpy array"
            )
        resized = prepare(image, self.preparation)
        pixels = np.array(resized.convert("L") if self.channels == 1 else resized)
        return pixels.reshape(self.image_size, self.image_size, self.channels)
