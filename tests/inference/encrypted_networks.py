"""Small random networks in collapsed form."""

from __future__ import annotations

import numpy as np

from skinfl.inference.circuit.network import Collapsed
from skinfl.seeds import numpy_rng


def random_network(size=12, channels=1, classes=7, maps=6, units=20, kernel=5, padding=1) -> Collapsed:
    rng = numpy_rng(3, size, channels, classes)
    side = (size + 2 * padding - kernel) // 2 + 1
    conv = rng.normal(size=(maps, channels, kernel, kernel)) * 0.35 / np.sqrt(channels * kernel * kernel)
    hidden = rng.normal(size=(units, maps * side * side)) / np.sqrt(maps * side * side)
    output = rng.normal(size=(classes, units)) / np.sqrt(units)
    return Collapsed(
        conv=conv,
        conv_bias=rng.normal(size=maps) * 0.3 + 0.7,
        hidden=hidden,
        hidden_bias=rng.normal(size=units) * 0.3,
        output=output,
        output_bias=rng.normal(size=classes),
        image_size=size,
        stride=2,
        padding=padding,
    )


def random_images(network: Collapsed, n: int) -> np.ndarray:
    shape = (n, network.channels, network.image_size, network.image_size)
    return numpy_rng(4, "images").normal(size=shape)
