from __future__ import annotations

import numpy as np
import pytest
from encrypted_networks import random_images, random_network

from skinfl.errors import MessageError, ModelError, ProtectionError
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.network import Bounds
from skinfl.inference.clinic.client import LatencyClient
from skinfl.protection.he.standard import MODULUS_BITS

#: the paper's network for one grey image: what its figures are quoted for
PAPER = random_network(28, maps=20, units=100)


class Both:
    """A circuit and a client of it."""

    def __init__(self, network, bounds):
        self.network = network
        self.circuit = LatencyCircuit(network, bounds)
        self.client = LatencyClient(self.circuit.spec)
        self.keys = self.circuit.keys(*self.client.evaluation_keys())

    def answer(self, image):
        return self.circuit.infer(self.client.encrypt(image), self.keys)

    def logits(self, image):
        return self.client.decrypt(self.answer(image))


@pytest.fixture(scope="module")
def both(network, bounds):
    return Both(network, bounds)


@pytest.mark.parametrize(
    "network",
    [
        PAPER,
        random_network(28, channels=3, classes=8, maps=20, units=100),
        random_network(8, classes=2, maps=1, units=1),
        random_network(9, channels=2, classes=3, units=7),
        random_network(13, classes=8, maps=7, units=3),
        random_network(11, kernel=3, padding=1, maps=5, units=33),
    ],
    ids=lambda n: f"{n.image_size}px-{n.channels}ch-{n.classes}cl-{len(n.conv)}maps-{len(n.hidden)}units",
)
def test_decrypted_logits_are_those_of_the_network(network, bounds):
    both = Both(network, bounds)
    images = random_images(network, 2)
    expected = network.logits(images)
    found = np.array([both.logits(image) for image in images])
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_the_papers_network_takes_26_keys_and_less_than_200_kb(bounds):
    circuit = LatencyCircuit(PAPER, bounds)
    client = LatencyClient(circuit.spec)
    assert len(circuit.spec.rotations) + 1 == 26
    upload = client.encrypt(random_images(PAPER, 1)[0])
    assert len(upload) == 1
    assert len(upload[0]) <= 200_000


def test_the_primes_actually_used_are_128_bit_secure(both):
    data = both.circuit.ckks.context.key_context_data()
    modulus = 1
    for prime in data.parms().coeff_modulus():
        modulus *= prime.value()
    assert modulus.bit_length() <= MODULUS_BITS[data.parms().poly_modulus_degree()] == 218


def test_the_answer_repeats_in_all_slots_so_that_no_partial_sum_leaves(both):
    import tenseal.sealapi as sealapi

    from skinfl.inference.ckks import read

    image = random_images(both.network, 1)[0]
    plain = sealapi.Plaintext()
    ciphertext = read(sealapi.Ciphertext(), both.circuit.ckks.context, both.answer(image))
    both.client._decryptor.decrypt(ciphertext, plain)
    slots = np.array(both.circuit.ckks.encoder.decode_complex(plain)).reshape(-1, both.circuit.spec.period)
    expected = np.zeros(both.circuit.spec.period)
    expected[: both.network.classes] = both.network.logits(image[None])[0]
    assert np.abs(slots.imag).max() < 0.05
    assert np.abs(slots.real - expected).max() < 0.05


def test_two_encryptions_of_one_image_differ(both):
    image = random_images(both.network, 1)[0]
    assert both.client.encrypt(image) != both.client.encrypt(image)


def test_room_grows_with_the_bound_until_there_is_none(network):
    near, far = (LatencyCircuit(network, Bounds(30.0, b)).spec.logit_range for b in (60.0, 1000.0))
    assert 60 <= near < 1000 <= far
    with pytest.raises(ModelError, match="logits reach 1e"):
        LatencyCircuit(network, Bounds(30.0, 1e6))
    with pytest.raises(ModelError, match="hidden units reach"):
        LatencyCircuit(network, Bounds(1e5, 60.0))
    with pytest.raises(ModelError, match="hidden units do not fit"):
        LatencyCircuit(random_network(8, maps=1, units=9000), Bounds(30.0, 60.0))


@pytest.mark.parametrize("excess", [1.5, 4.0, 7.3, 30.0, 1000.0])
def test_logits_beyond_the_range_are_noticed_and_not_taken_for_others(both, excess):
    """Without the check, wrapped logits are silently wrong by multiples of the range's double."""
    image = random_images(both.network, 1)[0]
    expected = both.network.logits(image[None])[0]
    factor = excess * both.circuit.spec.logit_range / np.abs(expected).max()
    beyond = both.network._replace(
        output=both.network.output * factor, output_bias=both.network.output_bias * 0.01
    )
    expected = beyond.logits(image[None])[0]
    try:
        found = Both(beyond, Bounds(30.0, 60.0)).logits(image)
    except MessageError as error:
        assert "unlike any photograph" in error.reason
    else:  # all logits together decide whether the ciphertext overflows; a little beyond may still fit
        assert excess < 7
        assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_a_logit_just_within_the_range_is_answered(both):
    image = random_images(both.network, 1)[0]
    expected = both.network.logits(image[None])[0]
    factor = 0.9 * both.circuit.spec.logit_range / np.abs(expected).max()
    network = both.network._replace(
        output=both.network.output * factor, output_bias=both.network.output_bias * factor
    )
    found = Both(network, Bounds(30.0, 60.0)).logits(image)
    assert np.abs(found - factor * expected).max() < 0.01 * np.abs(factor * expected).max()


def test_an_answer_under_another_key_is_noticed(both):
    stranger = LatencyClient(both.circuit.spec)
    image = random_images(both.network, 1)[0]
    with pytest.raises(MessageError, match="keys differ"):
        stranger.decrypt(both.answer(image))
    mixed = both.circuit.infer(stranger.encrypt(image), both.keys)
    with pytest.raises(MessageError, match="keys differ"):
        stranger.decrypt(mixed)


def test_a_damaged_answer_is_refused(both):
    answer = both.answer(random_images(both.network, 1)[0])
    for bad in (b"", answer[:-5], answer[:100], b"\x00" * 500):
        with pytest.raises(MessageError, match="no answer"):
            both.client.decrypt(bad)


def test_images_of_another_shape_or_not_finite_are_refused(both):
    for image in (np.zeros((1, 13, 12)), np.zeros((3, 12, 12)), np.full((1, 12, 12), np.nan)):
        with pytest.raises(ProtectionError, match="shape"):
            both.client.encrypt(image)


def test_what_is_no_fresh_image_is_refused(both):
    image = random_images(both.network, 1)[0]
    with pytest.raises(ProtectionError, match="2 ciphertexts"):
        both.circuit.infer(both.client.encrypt(image) * 2, both.keys)
    with pytest.raises(ProtectionError, match="freshly"):
        both.circuit.infer([both.answer(image)], both.keys)
    rescaled = LatencyClient(both.circuit.spec._replace(input_bits=21))
    with pytest.raises(ProtectionError, match="freshly"):
        both.circuit.infer(rescaled.encrypt(image), both.keys)


def test_keys_that_are_not_what_is_needed_are_refused(both):
    galois, relin = both.client.evaluation_keys()
    fewer = LatencyClient(both.circuit.spec._replace(rotations=both.circuit.spec.rotations[1:]))
    with pytest.raises(ProtectionError, match="rotation keys are missing"):
        both.circuit.keys(*fewer.evaluation_keys())
    with pytest.raises(ProtectionError):
        both.circuit.keys(relin, galois)
    with pytest.raises(ProtectionError):
        both.circuit.keys(galois[:-1], relin)
    other = LatencyClient(both.circuit.spec._replace(bits=(54, 52, 52, 60)))
    with pytest.raises(ProtectionError, match="SEAL cannot read"):
        both.circuit.keys(*other.evaluation_keys())
