"""A trained network together with what it needs to take a photograph and name its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Tuple, Union

import numpy as np
import torch
from PIL import Image
from torch import nn

from skinfl.data.classes import described
from skinfl.data.images import SMALLEST, open_image, photograph, prepare
from skinfl.data.views import VIEWS, turned
from skinfl.devices import is_out_of_memory
from skinfl.errors import DataError, ModelError, SettingsError
from skinfl.models.store import StoredModel, load_model
from skinfl.paths import path as user_path
from skinfl.predictions import LesionClass

#: what :meth:`LesionClassifier.predict` takes
Picture = Union[str, Path, Image.Image, np.ndarray]
#: photographs that pass through the network at once
BATCH = 64


class LesionClassifier(nn.Module):
    """A network ready for photographs: pixels in, logits out, the normalisation inside.

    ``classes`` are the class names in the order of the logits, ``class_info`` says what they mean and which
    are malignant, ``image_size`` is the side in pixels and ``channels`` the number of channels (1 grey, 3
    red, green, blue) of what the network takes; ``preparation`` is how a photograph becomes that. Logits are
    divided by ``temperature`` before they become probabilities. It comes in evaluation mode. Research
    software, not a medical device.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, stored: StoredModel):
        super().__init__()
        self.network = stored.model
        self.classes: Tuple[str, ...] = stored.class_names
        self.class_info: Tuple[LesionClass, ...] = described(stored.class_info)
        self.temperature = stored.temperature
        self.views = stored.views
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

    def predict(self, picture: Picture, *, tta: Optional[int] = None) -> Dict[str, float]:
        """Return the probability of each class for one photograph.

        ``picture`` is a file, a PIL image, or uint8 pixels of shape (height, width) or (height, width, 3).
        It is prepared as in training, and made grey where the network takes grey. ``tta`` is as in
        :meth:`probabilities`. Raises :class:`~skinfl.errors.DataError` for what is no image.
        """
        shares = self.probabilities(self.pixels(picture)[None], tta=tta)[0]
        return {name: float(share) for name, share in zip(self.classes, shares)}

    def probabilities(self, pixels: np.ndarray, *, tta: Optional[int] = None) -> np.ndarray:
        """Return the probabilities, float64 of shape (n, classes), of photographs that are prepared already.

        ``pixels`` is uint8 of shape (n, image_size, image_size, 1 or 3), or what gives such an array when it
        is sliced; it is made grey, or grey repeated, as the network takes it. They are computed where the
        network is, fewer at once where memory is too small.

        ``tta``, 1 to 8: over how many views of each photograph, turned and mirrored, logits are averaged
        (test-time augmentation); None: over as many as in training, one but for features of several views.

        Raises :class:`~skinfl.errors.ModelError` where the network's answer is not a number.
        """
        tta = self.views if tta is None else tta
        if isinstance(tta, bool) or not isinstance(tta, (int, np.integer)) or not 1 <= tta <= VIEWS:
            raise SettingsError(f"tta = {tta!r}: must be a number of views from 1 to {VIEWS}")
        parts = [np.zeros((0, len(self.classes)))]
        done, batch = 0, BATCH
        while done < len(pixels):
            try:
                parts.append(self._probabilities(np.asarray(pixels[done : done + batch]), tta))
                done += batch
            except (RuntimeError, MemoryError) as error:
                if batch == 1 or not is_out_of_memory(error):
                    raise
                batch //= 2
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise ModelError("the network's answers are not numbers: its training diverged, train it again")
        return found

    def _probabilities(self, pixels: np.ndarray, tta: int) -> np.ndarray:
        part = self._in_its_colours(pixels)
        with torch.no_grad():
            views = (torch.from_numpy(turned(part, view)).permute(0, 3, 1, 2) for view in range(tta))
            answers = [self(view.to(self.mean.device)).double().cpu() for view in views]
        logits = torch.stack(answers).mean(dim=0)
        shares: np.ndarray = torch.softmax(logits / self.temperature, dim=1).numpy()
        return shares

    def _in_its_colours(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[3] == self.channels:
            return np.ascontiguousarray(pixels)
        if self.channels == 3:
            return np.repeat(pixels, 3, axis=3)
        # Pillow's rounding of ITU-R 601, which training's grey comes from
        grey = pixels.astype(np.int64) @ np.array([19595, 38470, 7471]) + 0x8000
        return (grey >> 16).astype(np.uint8)[..., None]

    def pixels(self, picture: Picture) -> np.ndarray:
        """Return a picture as the network takes it, uint8 of shape (image_size, image_size, channels).

        Raises :class:`~skinfl.errors.DataError` for what is no image.
        """
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
