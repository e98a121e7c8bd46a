"""What a clinic runs: keys, encryption, decryption. Nothing here leaves the clinic but what is returned.

The secret key lives in this object and is never written or sent. Decrypted logits are for the clinic's
eyes: see the trust model in :mod:`skinfl.inference.circuit.latency` for why they must not be sent back.
"""

from __future__ import annotations

from typing import Callable, Iterator, List, Sequence, Tuple

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.inference.ckks import Ckks, galois_element, read
from skinfl.inference.packing import pack
from skinfl.inference.parameters import BatchSpec, LatencySpec
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


class BatchClient:
    """Encrypts batches of images and decrypts their answers; the key never leaves it."""

    def __init__(self, spec: BatchSpec):
        self.spec = spec.check()
        self._ckks = Ckks(spec.degree, spec.bits)
        secret = sealapi.KeyGenerator(self._ckks.context).secret_key()
        self._encryptor = sealapi.Encryptor(self._ckks.context, secret)
        self._decryptor = sealapi.Decryptor(self._ckks.context, secret)

    def encrypt(self, images: np.ndarray) -> Iterator[bytes]:
        """Yield one ciphertext for each pixel of normalised images, shape (n, channels, size, size).

        Raises :class:`~skinfl.errors.ProtectionError` for more images than slots or other shapes.
        """
        shape = (self.spec.channels, self.spec.image_size, self.spec.image_size)
        if (
            images.shape[1:] != shape
            or not 0 < len(images) <= self.spec.images
            or not np.isfinite(images).all()
        ):
            raise ProtectionError(
                f"a batch has 1 to {self.spec.images} images of shape {shape} with finite pixels, "
                f"not {images.shape}"
            )
        for pixel in images.reshape(len(images), -1).T:
            plain = self._ckks.encode(pixel, 0, 2.0**self.spec.input_bits)
            yield seal.dump(self._encryptor.encrypt_symmetric(plain))

    def decrypt(self, answer: Sequence[bytes], images: int) -> np.ndarray:
        """Return the logits of the first ``images`` slots, shape (images, classes).

        Raises :class:`~skinfl.errors.MessageError` for an answer that is damaged.
        """
        if len(answer) != self.spec.classes:
            raise MessageError("server", f"{len(answer)} ciphertexts for {self.spec.classes} classes")
        logits = []
        plain = sealapi.Plaintext()
        for blob in answer:
            try:
                ciphertext = read(sealapi.Ciphertext(), self._ckks.context, blob)
                self._decryptor.decrypt(ciphertext, plain)
                logits.append(self._ckks.encoder.decode_double(plain)[:images])
            except (ProtectionError, RuntimeError, ValueError) as error:
                raise MessageError("server", f"it is no answer: {error}") from error
        return np.array(logits).T

    def logits(self, images: np.ndarray, evaluate: Callable[[List[bytes]], Sequence[bytes]]) -> np.ndarray:
        """Return the logits of any number of normalised images, shape (n, classes).

        ``evaluate`` is asked for the answer to each batch's ciphertexts.
        """
        found = []
        for start in range(0, len(images), self.spec.images):
            part = images[start : start + self.spec.images]
            found.append(self.decrypt(evaluate(list(self.encrypt(part))), len(part)))
        return np.concatenate(found)
