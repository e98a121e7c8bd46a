from __future__ import annotations

import numpy as np
import pytest
from encrypted_networks import random_images, random_network

from skinfl.errors import ModelError
from skinfl.inference.circuit.maps import MapLayout
from skinfl.inference.packing import pack
from skinfl.inference.parameters import LatencySpec

SLOTS = 4096


def spec_for(network, layout):
    return LatencySpec(
        channels=network.channels,
        image_size=network.image_size,
        classes=network.classes,
        copies=layout.copies,
        period=8,
        degree=2 * SLOTS,
        bits=(58, 48, 54, 58),
        input_bits=20,
        logit_range=256.0,
        rotations=(1,),
    )


@pytest.mark.parametrize(
    "size,channels,maps,kernel,padding",
    [
        (8, 1, 20, 5, 1),
        (9, 3, 20, 5, 1),
        (27, 1, 20, 5, 1),
        (28, 3, 20, 5, 1),
        (12, 2, 7, 3, 1),
        (11, 1, 5, 4, 2),
    ],
)
def test_rotated_slots_make_the_convolution(size, channels, maps, kernel, padding):
    network = random_network(size, channels, maps=maps, kernel=kernel, padding=padding)
    layout = MapLayout(network, SLOTS)
    image = random_images(network, 1)[0]
    inputs = pack(image, spec_for(network, layout))
    z = sum(
        weights * np.roll(inputs[i], -(giant + baby))
        for giant, inner in layout.terms().items()
        for (i, baby), weights in inner.items()
    )
    z = (z + z.conj()).real + layout.spread(network.conv_bias)
    first = network.forward(image[None])[0][0]
    assert np.abs(z[layout.positions.reshape(-1)] - first).max() < 1e-12
    elsewhere = np.ones(SLOTS, bool)
    elsewhere[layout.positions.reshape(-1)] = False
    assert np.abs(z[elsewhere]).max() < 1e-12


def test_the_papers_convolution_takes_eighteen_products_and_seven_rotations():
    terms = MapLayout(random_network(28, maps=20), SLOTS).terms()
    assert sum(len(inner) for inner in terms.values()) == 18
    babies = {baby for inner in terms.values() for _, baby in inner}
    assert len(babies - {0}) + len(set(terms) - {0}) == 7


def test_pixels_lie_where_the_docstring_says():
    network = random_network(8, maps=4)
    layout = MapLayout(network, SLOTS)
    slots = pack(np.arange(64.0).reshape(1, 8, 8), spec_for(network, layout))[0]
    assert layout.copies == 2
    assert slots[:4].tolist() == [0 + 1j, 2 + 3j, 4 + 5j, 6 + 7j]
    assert slots[SLOTS // 2] == 8 + 9j  # row 1
    assert slots[4] == 16 + 17j  # row 2
    assert np.array_equal(slots[16:32], slots[:16])
    assert np.abs(slots[32 : SLOTS // 2]).max() == 0


@pytest.mark.parametrize(
    "network,word",
    [
        (random_network(29, maps=20), "at most 28 pixels"),
        (random_network(12)._replace(stride=1), "stride 1"),
        (random_network(8, kernel=3, padding=3), "less padding"),
    ],
)
def test_what_does_not_fit_is_refused(network, word):
    with pytest.raises(ModelError, match=word):
        MapLayout(network, SLOTS)
