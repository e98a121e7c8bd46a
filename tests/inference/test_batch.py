from __future__ import annotations

import numpy as np
import pytest
import tenseal.sealapi as sealapi
from encrypted_networks import random_images, random_network

from skinfl.errors import MessageError, ModelError, ProtectionError
from skinfl.inference.circuit import batch
from skinfl.inference.circuit.batch import BatchCircuit
from skinfl.inference.circuit.network import Bounds
from skinfl.inference.circuit.residues import from_residues
from skinfl.inference.ckks import Ckks, read
from skinfl.inference.clinic.client import BatchClient
from skinfl.protection.he import seal
from skinfl.protection.he.residues import residues
from skinfl.protection.he.standard import MODULUS_BITS
from skinfl.seeds import numpy_rng

SMALL = random_network(6, maps=3, units=6, classes=3, kernel=3)
BOUNDS = Bounds(30.0, 60.0)


@pytest.fixture(scope="module")
def circuit():
    return BatchCircuit(SMALL, BOUNDS, workers=1)


@pytest.fixture(scope="module")
def client(circuit):
    return BatchClient(circuit.spec)


@pytest.fixture(scope="module")
def pixels(client):
    return list(client.encrypt(random_images(SMALL, 50)))


def test_decrypted_logits_are_those_of_the_network(circuit, client, pixels):
    expected = SMALL.logits(random_images(SMALL, 50))
    found = client.decrypt(circuit.infer(pixels), 50)
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_colour_and_a_full_batch():
    network = random_network(4, channels=2, maps=2, units=3, classes=2, kernel=3)
    circuit = BatchCircuit(network, BOUNDS, workers=2)
    client = BatchClient(circuit.spec)
    images = random_images(network, circuit.spec.images)
    found = client.decrypt(circuit.infer(list(client.encrypt(images))), len(images))
    expected = network.logits(images)
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_linear_part_is_exact_modulo_the_prime(circuit):
    """Against Python's integers, which do not round, with residues at both ends of their range."""
    prime = circuit._ckks.primes[0]
    rng = numpy_rng(0, "residues")
    pixels = rng.integers(0, prime, size=(36, 2, 3))
    pixels[:, :, 0] = prime - 1
    found = circuit._block(pixels.astype(np.uint32), prime)
    conv = [[int(w) for w in row] for row in circuit._conv]
    hidden = [[int(w) for w in row] for row in circuit._hidden]
    for column in range(3):
        x = [[int(v) for v in pixels[:, part, column]] + [0] for part in (0, 1)]
        maps = []
        for row, bias in zip(conv, circuit._conv_bias):
            for places in circuit._gather.T:
                c = [sum(w * x[part][p] for w, p in zip(row, places)) for part in (0, 1)]
                c[0] += int(bias)
                maps.append((c[0] * c[0], 2 * c[0] * c[1], c[1] * c[1]))
        for unit, row in enumerate(hidden):
            for part in range(3):
                exact = sum(w * m[part] for w, m in zip(row, maps)) % prime
                assert int(found[unit, part, column]) == exact


def test_the_primes_actually_used_are_128_bit_secure(circuit):
    data = circuit._ckks.context.key_context_data()
    modulus = 1
    for prime in data.parms().coeff_modulus():
        modulus *= prime.value()
    assert modulus.bit_length() <= MODULUS_BITS[data.parms().poly_modulus_degree()]


def test_what_is_no_fresh_batch_is_refused(circuit, client, pixels):
    with pytest.raises(ProtectionError, match="35 ciphertexts for a batch of 36"):
        circuit.infer(pixels[1:])
    with pytest.raises(ProtectionError, match="not a SEAL object"):
        circuit.infer([b"x" * 40, *pixels[1:]])
    other = BatchClient(circuit.spec._replace(input_bits=19))
    with pytest.raises(ProtectionError, match="freshly"):
        circuit.infer(list(other.encrypt(random_images(SMALL, 1))))
    for images in (random_images(SMALL, 0), np.zeros((1, 1, 7, 6)), np.full((1, 1, 6, 6), np.inf)):
        with pytest.raises(ProtectionError, match="a batch has"):
            list(client.encrypt(images))


def test_a_damaged_answer_is_refused(circuit, client, pixels):
    with pytest.raises(MessageError, match="1 ciphertexts for 3 classes"):
        client.decrypt([pixels[0]], 1)
    with pytest.raises(MessageError, match="no answer"):
        client.decrypt([b"", b"", b""], 1)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="logits reach"):
        BatchCircuit(SMALL, Bounds(30.0, 1e9))
    with pytest.raises(ModelError, match="too large for exact sums"):
        BatchCircuit(SMALL._replace(hidden=SMALL.hidden * 1e5), BOUNDS)
    silent = SMALL._replace(output=SMALL.output * np.array([[1.0], [0.0], [1.0]]))
    with pytest.raises(ModelError, match="weights are all zero"):
        BatchCircuit(silent, BOUNDS, workers=1)


@pytest.mark.parametrize("polynomials", [2, 3])
def test_residues_go_out_and_in_unchanged(polynomials):
    ckks = Ckks(4096, (30, 30, 40))
    secret = sealapi.KeyGenerator(ckks.context).secret_key()
    encryptor = sealapi.Encryptor(ckks.context, secret)
    values = np.linspace(-1, 1, 2048)
    blob = seal.dump(encryptor.encrypt_symmetric(ckks.encode(values, 0, 2.0**20)))
    ciphertext = read(sealapi.Ciphertext(), ckks.context, blob)
    if polynomials == 3:
        ckks.evaluator.square_inplace(ciphertext)
    array = residues(ciphertext)
    assert array.shape == (polynomials, 2, 4096)
    assert all((array[:, i] < prime).all() for i, prime in enumerate(ckks.primes))
    for place in ((0, 0, 0), (1, 1, 7), (polynomials - 1, 1, 4095)):
        assert array[place] == ciphertext[int(np.ravel_multi_index(place, array.shape))]
    again = from_residues(array, ckks, 0, ciphertext.scale)
    assert np.array_equal(residues(again), array)
    plain = sealapi.Plaintext()
    sealapi.Decryptor(ckks.context, secret).decrypt(again, plain)
    expected = values if polynomials == 2 else values**2
    assert np.abs(np.array(ckks.encoder.decode_double(plain)) - expected).max() < 1e-2


@pytest.mark.parametrize("blob", [b"", b"\0" * 120])
def test_another_form_of_serialisation_is_refused(monkeypatch, blob):
    ckks = Ckks(4096, (30, 30, 40))
    values = np.zeros((2, 2, 4096), np.uint64)
    values[:, :, 0] = 1
    ciphertext = from_residues(values, ckks, 0, 2.0**20)
    monkeypatch.setattr("skinfl.protection.he.residues.dump", lambda _: blob)
    with pytest.raises(ProtectionError, match="serialises otherwise"):
        residues(ciphertext)


def test_residues_beyond_their_prime_are_refused():
    ckks = Ckks(4096, (30, 30, 40))
    values = np.full((2, 2, 4096), ckks.primes[0], np.uint64)
    with pytest.raises(ProtectionError, match="SEAL cannot read"):
        from_residues(values, ckks, 0, 2.0**20)


def test_block_size_divides_the_degree():
    assert batch.DEGREE % batch.BLOCK == 0
