"""What a clinic runs: keys, encryption, decryption. Nothing here leaves the clinic but what is returned.

The secret key lives in this object and is never written or sent. Decrypted logits are for the clinic's
eyes: see the trust model in :mod:`skinfl.inference.circuit.latency` for why they must not be sent back.
"""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.inference.circuit.ckks import Ckks, galois_element, read
from skinfl.inference.circuit.packing import pack
from skinfl.inference.parameters import LatencySpec
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

#: how far, as a share of the logit range, what must be 0 or equal may be off
TOLERANCE = 0.02


class LatencyClient:
    """Makes keys for one server's specification, encrypts images, decrypts answers."""

    def __init__(self, spec: LatencySpec):
        self.spec = spec.check()
        self._ckks = Ckks(spec.degree, spec.bits)
        self._generator = sealapi.KeyGenerator(self._ckks.context)
        secret = self._generator.secret_key()
        # Symmetric encryption: noise of the size of the error only, and half the ciphertext is a seed.
        self._encryptor = sealapi.Encryptor(self._ckks.context, secret)
        self._decryptor = sealapi.Decryptor(self._ckks.context, secret)

    def evaluation_keys(self) -> Tuple[bytes, bytes]:
        """Return the rotation keys and the relinearisation key for the server; they open nothing."""
        elements = [galois_element(step, self.spec.degree) for step in self.spec.rotations]
        galois = self._generator.create_galois_keys([*elements, 2 * self.spec.degree - 1])
        return seal.dump(galois), seal.dump(self._generator.create_relin_keys())

    def encrypt(self, image: np.ndarray) -> List[bytes]:
        """Encrypt a normalised image of shape (channels, image_size, image_size)."""
        shape = (self.spec.channels, self.spec.image_size, self.spec.image_size)
        if image.shape != shape or not np.isfinite(image).all():
            raise ProtectionError(f"an image must have shape {shape} and finite pixels, not {image.shape}")
        encrypted = []
        for slots in pack(image, self.spec):
            plain = self._ckks.encode(slots, 0, 2.0**self.spec.input_bits)
            encrypted.append(seal.dump(self._encryptor.encrypt_symmetric(plain)))
        return encrypted

    def decrypt(self, answer: bytes) -> np.ndarray:
        """Return the logits in an answer, shape (classes,).

        The answer repeats in all slots, and after the logits come zeros. A logit beyond the range wraps
        around in the ciphertext and would look like any other number; but it wraps as a multiple of an
        algebraic integer, which is not 0 in any slot, so the zeros are gone. An answer under another key
        or of a broken circuit shows likewise.

        Raises :class:`~skinfl.errors.MessageError` for an answer that is damaged or shows such traces.
        """
        try:
            ciphertext = read(sealapi.Ciphertext(), self._ckks.context, answer)
            plain = sealapi.Plaintext()
            self._decryptor.decrypt(ciphertext, plain)
            slots = np.array(self._ckks.encoder.decode_double(plain))
        except (ProtectionError, RuntimeError, ValueError) as error:
            raise MessageError("server", f"it is no answer: {error}") from error
        copies = slots.reshape(-1, self.spec.period)
        answer_row = copies.mean(0)
        largest = TOLERANCE * self.spec.logit_range
        spread = np.abs(copies - answer_row).max()
        leftover = np.abs(answer_row[self.spec.classes :]).max()
        if not (spread <= largest and leftover <= largest):
            raise MessageError(
                "server",
                "it does not decrypt to an answer: the image is unlike any photograph, or the keys differ",
            )
        return answer_row[: self.spec.classes]
