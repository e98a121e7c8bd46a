"""Thousands of encrypted images at once: one ciphertext for each pixel, an image in each slot.

All slots do the same, so a linear layer is a matrix times ciphertexts, that is a matrix product of plain
integers modulo every prime: no rotation, no key switching, no keys at the server. With primes of 27 bits
and weights as integers, every product and sum stays below 2^53, where float64 is exact, so BLAS does it.

1. Convolution on the residues of the pixels, as integers of 2^CONV_BITS; bias.
2. Square, residue by residue: (c0, c1) becomes (c0², 2 c0 c1, c1²), a ciphertext of three polynomials,
   which the secret key opens without relinearisation.
3. Hidden layer on these residues.
4. In SEAL, for each hidden unit: bias, two rescalings, square (five polynomials), times the output
   weights, which are one number for all slots.

Trust model: as in :mod:`skinfl.inference.circuit.latency`. The number of images is hidden
too, as empty slots look like any other.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List, Sequence, Tuple

import msgpack
import numpy as np
from threadpoolctl import threadpool_limits

from skinfl.errors import ModelError, ProtectionError
from skinfl.inference.circuit.network import Bounds, Collapsed
from skinfl.inference.circuit.residues import from_residues
from skinfl.inference.ckks import Ckks, read
from skinfl.inference.parameters import BatchSpec
from skinfl.inference.processes import python
from skinfl.protection.he import seal
from skinfl.protection.he.residues import residues
from skinfl.protection.he.seal import sealapi

DEGREE = 8192
PRIME_BITS = 27
BITS = (PRIME_BITS,) * 6
#: binary logarithms of the scales; the output's is what the logits' bound leaves room for
INPUT_BITS, CONV_BITS, HIDDEN_BITS = 20, 14, 15
OUTPUT_BITS = (8, 15)
#: columns of residues that are multiplied together: what keeps a block in the processor's cache
BLOCK = 128
#: exit status of a process that was given something else than fresh ciphertexts
_REFUSED = 3


class BatchCircuit:
    """A collapsed network laid out for batches of encrypted images.

    ``bounds`` are as for :class:`~skinfl.inference.circuit.latency.LatencyCircuit`; ``workers`` processes
    read ciphertexts and as many threads multiply. ``spec`` is what clients need to know.

    Raises :class:`~skinfl.errors.ModelError` that says why a network does not fit.
    """

    def __init__(self, network: Collapsed, bounds: Bounds, workers: int = 0):
        self._ckks = Ckks(DEGREE, BITS)
        self._workers = workers or os.cpu_count() or 1
        self._network = network
        self._conv = np.rint(network.conv.reshape(len(network.conv), -1) * 2.0**CONV_BITS)
        self._conv_bias = np.rint(network.conv_bias * 2.0 ** (INPUT_BITS + CONV_BITS))
        self._hidden = np.rint(network.hidden * 2.0**HIDDEN_BITS)
        self._gather = _gather(network)
        largest_sum = max(
            np.abs(self._conv).sum(1).max() * 2.0**PRIME_BITS + 2.0**PRIME_BITS,
            np.abs(self._hidden).sum(1).max() * 2.0 ** (PRIME_BITS - 1),
        )
        if largest_sum >= 2.0**53:
            raise ModelError("the network's weights are too large for exact sums: train with weight decay")

        primes = self._ckks.primes
        self._scale1 = 2.0 ** (2 * (INPUT_BITS + CONV_BITS) + HIDDEN_BITS)
        scale2 = (self._scale1 / primes[-1] / primes[-2]) ** 2
        room = math.log2(float(np.prod([float(p) for p in primes[:-2]])) / 2 / scale2)
        self._output_bits = min(OUTPUT_BITS[1], math.floor(room - math.log2(bounds.logits)))
        if self._output_bits < OUTPUT_BITS[0]:
            raise ModelError(
                f"logits reach {bounds.logits:.3g}, a batch has room for {2 ** (room - OUTPUT_BITS[0]):.3g}: "
                "train with weight decay"
            )
        if (np.rint(np.abs(network.output) * 2.0**self._output_bits).max(1) == 0).any():
            raise ModelError("a class's weights are all zero: it can never be told, train the network again")
        self.spec = BatchSpec(
            channels=network.channels,
            image_size=network.image_size,
            classes=network.classes,
            degree=DEGREE,
            bits=BITS,
            input_bits=INPUT_BITS,
        ).check()

    def infer(self, pixels: Sequence[bytes]) -> List[bytes]:
        """Return one ciphertext for each class, from one for each pixel (channel, row, column).

        Raises :class:`~skinfl.errors.ProtectionError` for what is not a fresh batch of this specification.
        """
        if len(pixels) != self.spec.pixels:
            raise ProtectionError(f"{len(pixels)} ciphertexts for a batch of {self.spec.pixels} pixels")
        return [seal.dump(logit) for logit in self._tail(self.linear(self.ingest(pixels)))]

    def ingest(self, pixels: Sequence[bytes]) -> np.ndarray:
        """Read ciphertexts into residues: uint32, shape (pixels, 2, primes, degree)."""
        if self._workers == 1:
            return _read(pixels)
        found = np.empty((len(pixels), *_shape(self._ckks)), np.uint32)
        edges = np.linspace(0, len(pixels), self._workers + 1).astype(int)

        def read_part(start: int, stop: int) -> None:
            found[start:stop] = _read_elsewhere(pixels[start:stop])

        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(read_part, edges[:-1], edges[1:]):
                pass
        return found

    def linear(self, pixels: np.ndarray) -> np.ndarray:
        """Return the hidden layer's residues: uint64, shape (units, 3, primes, degree)."""
        units = np.empty((len(self._hidden), 3, len(self._ckks.primes), DEGREE), np.uint64)
        blocks = [(p, j) for p in range(len(self._ckks.primes)) for j in range(0, DEGREE, BLOCK)]

        def one(block: Tuple[int, int]) -> None:
            prime, start = block
            columns = slice(start, start + BLOCK)
            units[:, :, prime, columns] = self._block(pixels[:, :, prime, columns], self._ckks.primes[prime])

        with threadpool_limits(1), ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(one, blocks):
                pass
        return units

    def _block(self, pixels: np.ndarray, prime: int) -> np.ndarray:
        """Return steps 1 to 3 modulo one prime, for residues of shape (pixels, 2, columns)."""
        columns = pixels.shape[2]
        # One more row of zeros is what lies outside the image.
        padded = np.zeros((len(pixels) + 1, 2 * columns))
        padded[:-1] = pixels.reshape(len(pixels), -1)
        maps = self._conv @ padded[self._gather].reshape(len(self._gather), -1)
        maps = maps.reshape(len(self._conv), -1, 2, columns)
        maps[:, :, 0] += (self._conv_bias % prime)[:, None, None]
        _reduce(maps, prime)
        first, second = maps.reshape(-1, 2, columns).transpose(1, 0, 2)
        squares = np.empty((len(first), 3, columns))
        np.multiply(first, first, out=squares[:, 0])
        np.multiply(first, second, out=squares[:, 1])
        squares[:, 1] *= 2
        np.multiply(second, second, out=squares[:, 2])
        _reduce(squares, prime)
        units = self._hidden @ squares.reshape(len(squares), -1)
        _reduce(units, prime)
        units[units < 0] += prime
        return units.reshape(-1, 3, columns)

    def _tail(self, units: np.ndarray) -> List[Any]:
        """Return the logits' ciphertexts, of five polynomials each."""
        ckks, evaluator = self._ckks, self._ckks.evaluator
        output = self._network.output
        logits: List[Any] = [None] * len(output)
        plain = sealapi.Plaintext()
        for unit, values in enumerate(units):
            ciphertext = from_residues(values, ckks, 0, self._scale1)
            ckks.encoder.encode(float(self._network.hidden_bias[unit]), ckks.levels[0], self._scale1, plain)
            evaluator.add_plain_inplace(ciphertext, plain)
            evaluator.rescale_to_next_inplace(ciphertext)
            evaluator.rescale_to_next_inplace(ciphertext)
            evaluator.multiply_inplace(ciphertext, ciphertext)
            for k, weight in enumerate(output[:, unit]):
                if np.rint(abs(weight) * 2.0**self._output_bits) == 0:
                    continue  # SEAL refuses to multiply by 0
                ckks.encoder.encode(float(weight), ckks.levels[2], 2.0**self._output_bits, plain)
                product = sealapi.Ciphertext()
                evaluator.multiply_plain(ciphertext, plain, product)
                if logits[k] is None:
                    logits[k] = product
                else:
                    evaluator.add_inplace(logits[k], product)
        for logit, bias in zip(logits, self._network.output_bias):
            ckks.encoder.encode(float(bias), ckks.levels[2], logit.scale, plain)
            evaluator.add_plain_inplace(logit, plain)
        return logits


def _gather(network: Collapsed) -> np.ndarray:
    """Return which pixel each place of the kernel meets at each output, shape (places, side²).

    Pixels count by channel, row and column; the number after the last stands for the padding.
    """
    size, p = network.image_size, network.padding
    channels, height, width = network.conv.shape[1:]
    numbers = np.full((channels, size + 2 * p, size + 2 * p), channels * size * size)
    numbers[:, p : p + size, p : p + size] = np.arange(channels * size * size).reshape(channels, size, size)
    stop = network.stride * (network.side - 1) + 1
    return np.array(
        [
            numbers[c, i : i + stop : network.stride, j : j + stop : network.stride].reshape(-1)
            for c in range(channels)
            for i in range(height)
            for j in range(width)
        ]
    )


def _reduce(values: np.ndarray, prime: int) -> None:
    """Reduce integers below 2^53 modulo ``prime`` to -prime/2 .. prime/2, in place and exactly."""
    quotient = values * (1.0 / prime)
    np.rint(quotient, out=quotient)
    quotient *= prime
    values -= quotient


def _shape(ckks: Ckks) -> Tuple[int, int, int]:
    """Return the shape of a fresh ciphertext's residues."""
    return 2, len(ckks.primes), DEGREE


def _read(blobs: Sequence[bytes]) -> np.ndarray:
    """Return the residues of fresh ciphertexts: uint32, shape (ciphertexts, 2, primes, degree)."""
    ckks = Ckks(DEGREE, BITS)
    found = np.empty((len(blobs), *_shape(ckks)), np.uint32)
    for blob, place in zip(blobs, found):
        ciphertext = read(sealapi.Ciphertext(), ckks.context, blob)
        fresh = (
            ciphertext.size() == 2
            and ciphertext.is_ntt_form()
            and list(ciphertext.parms_id()) == list(ckks.levels[0])
            and ciphertext.scale == 2.0**INPUT_BITS
        )
        if not fresh:
            raise ProtectionError("not a freshly encrypted pixel: its level, size or scale is another")
        place[:] = residues(ciphertext)
    return found


def _read_elsewhere(blobs: Sequence[bytes]) -> np.ndarray:
    """Return what :func:`_read` does, from a process of its own: SEAL's binding holds Python's lock."""
    done = subprocess.run(
        **python("from skinfl.inference.circuit.batch import serve_reading; serve_reading()"),
        input=msgpack.packb(list(blobs), use_bin_type=True),
        stdout=subprocess.PIPE,
    )
    if done.returncode == _REFUSED:
        raise ProtectionError(done.stdout.decode())
    if done.returncode:
        raise ProtectionError(f"a process that reads ciphertexts ended with status {done.returncode}")
    return np.frombuffer(done.stdout, np.uint32).reshape(len(blobs), *_shape(Ckks(DEGREE, BITS)))


def serve_reading() -> None:
    """Read ciphertexts from standard input, write their residues to standard output."""
    blobs = msgpack.unpackb(sys.stdin.buffer.read(), raw=False)
    try:
        found = _read(blobs)
    except ProtectionError as error:
        sys.stdout.write(str(error))
        raise SystemExit(_REFUSED) from None
    sys.stdout.buffer.write(found.data)
