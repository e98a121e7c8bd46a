from __future__ import annotations

import os

import numpy as np
import pytest

from skinfl.errors import ModelError, ProtectionError
from skinfl.inference.circuit.slots import SlotMap, diagonals
from skinfl.inference.ckks import Ckks, Keys, galois_element, read
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi
from skinfl.seeds import numpy_rng

DEGREE = 4096


class Party:
    """Encrypts and decrypts with one key, and lends its evaluation keys."""

    def __init__(self, steps):
        self.ckks = Ckks(DEGREE, (36, 28, 45))
        self.generator = sealapi.KeyGenerator(self.ckks.context)
        self.secret = self.generator.secret_key()
        elements = [galois_element(step, DEGREE) for step in steps] + [2 * DEGREE - 1]
        galois, relin = self.generator.create_galois_keys(elements), self.generator.create_relin_keys()
        context = self.ckks.context
        self.keys = Keys(
            read(sealapi.GaloisKeys(), context, seal.dump(galois)),
            read(sealapi.RelinKeys(), context, seal.dump(relin)),
        )

    def serialised(self, values):
        encryptor = sealapi.Encryptor(self.ckks.context, self.secret)
        return seal.dump(encryptor.encrypt_symmetric(self.ckks.encode(values, 0, 2.0**28)))

    def encrypt(self, values):
        return read(sealapi.Ciphertext(), self.ckks.context, self.serialised(values))

    def decrypt(self, ciphertext):
        plain = sealapi.Plaintext()
        sealapi.Decryptor(self.ckks.context, self.secret).decrypt(ciphertext, plain)
        return np.array(self.ckks.encoder.decode_complex(plain))


@pytest.fixture(scope="module")
def party():
    return Party([1, 2, 3, 4, -3, 8, 1024])


@pytest.fixture(scope="module")
def slots():
    rng = numpy_rng(0, "slots")
    return rng.normal(size=DEGREE // 2) + 1j * rng.normal(size=DEGREE // 2)


@pytest.mark.parametrize("step", [1, -3, 1024, 2048 + 1, 0])
def test_rotation_moves_slots_left(party, slots, step):
    rotated = party.ckks.rotate(party.encrypt(slots), step, party.keys)
    assert np.abs(party.decrypt(rotated) - np.roll(slots, -step)).max() < 1e-3


def test_elements_of_steps_are_powers_of_three():
    assert [galois_element(step, 4096) for step in (0, 1, 2)] == [1, 3, 9]
    assert galois_element(-1, 4096) * 3 % 8192 == 1


def test_conjugation_and_folding(party, slots):
    assert (
        np.abs(party.decrypt(party.ckks.conjugate(party.encrypt(slots), party.keys)) - slots.conj()).max()
        < 1e-3
    )
    folded = party.encrypt(slots)
    party.ckks.add_rotations(folded, (1, 2), party.keys)
    expected = sum(np.roll(slots, -k) for k in range(4))
    assert np.abs(party.decrypt(folded) - expected).max() < 1e-3


def test_slot_map_is_its_definition(party, slots):
    rng = numpy_rng(1, "terms")
    second = slots[::-1].copy()
    terms = {
        giant: {(i, baby): rng.normal(size=2048) * (1 + 1j) for i in (0, 1) for baby in (0, 1)}
        for giant in (0, -3, 1024)
    }
    slot_map = SlotMap(party.ckks, terms, 0, 2.0**20)
    assert slot_map.steps == {0, 1, -3, 1024}
    found = slot_map.apply([party.encrypt(slots), party.encrypt(second)], party.keys)
    expected = sum(
        weights * np.roll((slots, second)[i], -(giant + baby))
        for giant, inner in terms.items()
        for (i, baby), weights in inner.items()
    )
    assert np.abs(party.decrypt(found) - expected).max() < 1e-2


def test_weights_that_round_to_zero_are_left_out(party, slots):
    terms = {0: {(0, 0): np.ones(2048), (0, 1): np.full(2048, 1e-9)}, 8: {(0, 0): np.zeros(2048)}}
    found = SlotMap(party.ckks, terms, 0, 2.0**20).apply([party.encrypt(slots)], party.keys)
    assert np.abs(party.decrypt(found) - slots).max() < 1e-3
    with pytest.raises(ModelError, match="all zero"):
        SlotMap(party.ckks, {0: {(0, 0): np.zeros(2048)}}, 0, 2.0**20)


@pytest.mark.parametrize("rows,columns,babies", [(4, 16, 2), (8, 8, 4), (2, 32, 2), (8, 64, 8)])
def test_diagonals_and_folding_multiply_by_a_matrix(rows, columns, babies):
    rng = numpy_rng(2, rows, columns)
    matrix, vector = rng.normal(size=(rows, columns)), rng.normal(size=columns)
    partial = sum(
        weights * np.roll(vector, -(giant + baby))
        for giant, inner in diagonals(matrix, babies).items()
        for (_, baby), weights in inner.items()
    )
    folded = partial.reshape(-1, rows).sum(0)
    assert np.allclose(folded, matrix @ vector)


def test_bytes_that_are_no_ciphertext_are_refused(party, slots):
    blob = party.serialised(slots)
    for bad in (
        b"",
        blob[:15],
        blob[:-1],
        blob + b"x",
        os.urandom(200),
        blob[:16] + os.urandom(len(blob) - 16),
    ):
        with pytest.raises(ProtectionError):
            read(sealapi.Ciphertext(), party.ckks.context, bad)
    with pytest.raises(ProtectionError, match="SEAL cannot read"):
        read(sealapi.Ciphertext(), Ckks(DEGREE, (36, 29, 44)).context, blob)


def test_insecure_parameters_are_refused():
    with pytest.raises(ProtectionError, match="128-bit"):
        Ckks(8192, (58, 49, 54, 58))
    with pytest.raises(ProtectionError, match="SEAL refuses"):
        Ckks(8192, (2, 61, 61))
