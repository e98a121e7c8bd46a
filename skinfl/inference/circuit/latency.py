"""One encrypted image, one answer, as fast as one core allows.

Pixels lie in the slots as :mod:`skinfl.inference.packing` says.

1. Convolution and bias: rotations by -1, 0, 1 columns, then by rows and halves. The wanted real part of
   z is z + conj(z), the factor 1/2 being in the weights.
2. Square, relinearise, rescale (the first of two rescalings).
3. Hidden layer: unit k is the real, unit k + units/2 the imaginary part of row k of a complex matrix;
   diagonals by baby-step giant-step, then folding, which leaves every row's value in all its copies.
4. With P = y + conj(y) = 2 Re y and Q = y - conj(y) = 2i Im y, the sum P² + J Q² = 4 (Re² y ± i Im² y),
   where J = -X^(N/2) is -i in even slots and +i in odd ones, as SEAL orders slots by powers of 3. One
   relinearisation and one rescaling serve both squares.
5. Output layer as in 3, with the sign of 4 in its weights. The answer repeats in all slots, so that no
   partial sum leaves the server. A row of zeros follows the logits, see
   :mod:`skinfl.inference.clinic.client`.

There is no rescaling between a linear map and the square after it: the chain of primes is 52, 54, 52 bits
and 60 for key switching, 218 together, the most that is 128-bit secure at degree 8192. What the logits'
bound leaves is shared out between the weights of the hidden and the output layer, whose rounding is most of
the error: for logits up to 64 they get 19 and 17 bits. The prime for key switching is larger than the
others, because SEAL's digits lie in 0..q and not around 0: times the key's error, their mean q/2 is a
geometric series in X, and so a hundredfold error in slot 0, where X = exp(i pi / N) is nearly 1. It falls
with the ratio of that prime to the others.

Trust model. The server is honest but curious: it computes the right circuit, and sees ciphertexts under
a key it does not have. It learns the parameters, when and how often it is asked, nothing of the image. The
client learns the logits, hence something of the network: answers to many chosen images can rebuild it, and
the ciphertext's noise depends on the weights (no circuit privacy). What a client decrypts must not go back
to the server, nor to anyone who sees its ciphertexts: CKKS's noise in it tells of the key (Li and
Micciancio, "On the security of homomorphic encryption on approximate numbers", EUROCRYPT 2021).
"""

from __future__ import annotations

import math
from typing import Any, Sequence, Tuple

import numpy as np

from skinfl.errors import ModelError, ProtectionError
from skinfl.inference.circuit.maps import MapLayout
from skinfl.inference.circuit.network import Bounds, Collapsed
from skinfl.inference.circuit.slots import SlotMap, SlotTerms, diagonals
from skinfl.inference.ckks import Ckks, Keys, galois_element, read
from skinfl.inference.parameters import LatencySpec
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

DEGREE = 8192
BITS = (52, 54, 52, 60)
#: binary logarithms of the scales of pixels and of the convolution's weights
INPUT_BITS, CONV_BITS = 19, 18
#: least and most of the hidden layer's, and of the output's: below, an answer is too coarse; above, more
#: buys nothing
HIDDEN_BITS = (17, 20)
OUTPUT_BITS = (11, 20)


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


class LatencyCircuit:
    """A collapsed network laid out for encrypted images.

    ``bounds`` are the magnitudes to leave room for (:func:`~skinfl.inference.circuit.network.probe_bounds`).
    ``spec`` is what clients need to know.

    Raises :class:`~skinfl.errors.ModelError` that says why a network does not fit.
    """

    def __init__(self, network: Collapsed, bounds: Bounds):
        self.ckks = Ckks(DEGREE, BITS)
        slots, primes = self.ckks.slots, self.ckks.primes
        self._layout = MapLayout(network, slots)
        units = len(network.hidden)
        self._rows = max(_power_of_two((units + 1) // 2), _power_of_two(network.classes + 1))
        self._period = _power_of_two(network.classes + 1)
        if self._rows > slots:
            raise ModelError(f"{units} hidden units do not fit {slots} slots: use a smaller hidden layer")

        scale = 2.0 ** (INPUT_BITS + CONV_BITS)
        self._conv = SlotMap(self.ckks, self._layout.terms(), 0, 2.0**CONV_BITS)
        self._conv_bias = self.ckks.encode(self._layout.spread(network.conv_bias), 0, scale)
        self._scale1 = scale**2 / primes[-1]

        # The logits' scale is that of the squares, scale1² 4^hidden_bits / prime, times 2^output_bits.
        room = math.log2(primes[0] / 2) - math.log2(self._scale1**2 / primes[-2])
        hidden_bits, output_bits = _weight_bits(room - math.log2(bounds.logits))
        if output_bits < OUTPUT_BITS[0]:
            most = 2 ** (room - 2 * hidden_bits - OUTPUT_BITS[0])
            raise ModelError(
                f"logits reach {bounds.logits:.3g}, the ciphertext has room for {most:.3g}: "
                "train with weight decay"
            )

        scale = self._scale1 * 2.0**hidden_bits
        if 4 * (bounds.second * scale) ** 2 > primes[0] * primes[1] / 2:
            raise ModelError(
                f"hidden units reach {bounds.second:.3g}, beyond the ciphertext: train with weight decay"
            )
        self._hidden = SlotMap(self.ckks, self._hidden_terms(network), 1, 2.0**hidden_bits)
        self._folds1 = _doublings(self._rows, slots)
        self._hidden_bias = self.ckks.encode(
            np.tile(self._complex_rows(network.hidden_bias[:, None])[:, 0], slots // self._rows), 1, scale
        )
        self._scale2 = scale**2 / primes[-2]
        scale = self._scale2 * 2.0**output_bits
        self._output = SlotMap(self.ckks, self._output_terms(network), 2, 2.0**output_bits)
        self._folds2 = _doublings(self._period, self._rows)
        bias = np.zeros(self._period)
        bias[: network.classes] = network.output_bias
        self._output_bias = self.ckks.encode(np.tile(bias, slots // self._period), 2, scale)
        self._quarter_turn = self.ckks.encode(np.tile([-1j, 1j], slots // 2), 2, 1.0)

        steps = {step for m in (self._conv, self._hidden, self._output) for step in m.steps}
        steps.update(self._folds1, self._folds2)
        self.spec = LatencySpec(
            channels=network.channels,
            image_size=network.image_size,
            classes=network.classes,
            copies=self._layout.copies,
            period=self._period,
            degree=DEGREE,
            bits=BITS,
            input_bits=INPUT_BITS,
            logit_range=2.0 ** (room - 2 * hidden_bits - output_bits),
            rotations=tuple(sorted({step % slots for step in steps} - {0})),
        ).check()

    def _complex_rows(self, matrix: np.ndarray) -> np.ndarray:
        """Return real rows k and k + half as one complex row k, padded with zero rows."""
        half = (len(matrix) + 1) // 2
        rows = np.zeros((self._rows, matrix.shape[1]), complex)
        rows[:half] = matrix[:half]
        rows[: len(matrix) - half] += 1j * matrix[half:]
        return rows

    def _hidden_terms(self, network: Collapsed) -> SlotTerms:
        matrix = np.zeros((self._rows, self.ckks.slots), complex)
        matrix[:, self._layout.positions.reshape(-1)] = self._complex_rows(network.hidden)
        return diagonals(matrix, _babies(self._rows))

    def _output_terms(self, network: Collapsed) -> SlotTerms:
        half = (network.output.shape[1] + 1) // 2
        matrix = np.zeros((self._period, self._rows), complex)
        sign = np.where(np.arange(half) % 2 == 0, 1, -1)
        matrix[: network.classes, :half] = network.output[:, :half]
        matrix[: network.classes, : network.output.shape[1] - half] -= (
            1j * network.output[:, half:] * sign[: network.output.shape[1] - half]
        )
        # 1/4 for P² and Q², 1/2 for the real part as z + conj(z).
        matrix = np.tile(matrix / 8, self.ckks.slots // self._rows)
        return diagonals(matrix, _babies(self._period))

    def keys(self, galois: bytes, relin: bytes) -> Keys:
        """Read a client's evaluation keys; raises ProtectionError where they are not what is needed."""
        keys = Keys(
            read(sealapi.GaloisKeys(), self.ckks.context, galois),
            read(sealapi.RelinKeys(), self.ckks.context, relin),
        )
        elements = [galois_element(step, DEGREE) for step in self.spec.rotations]
        if not all(keys.galois.has_key(element) for element in [*elements, 2 * DEGREE - 1]):
            raise ProtectionError("rotation keys are missing: make them for the server's present parameters")
        if not keys.relin.has_key(2):
            raise ProtectionError("the relinearisation key is missing")
        return keys

    def infer(self, image: Sequence[bytes], keys: Keys) -> bytes:
        """Return the encrypted answer to an encrypted image, one ciphertext for each channel.

        Raises :class:`~skinfl.errors.ProtectionError` for ciphertexts that are not fresh ones of this
        specification.
        """
        if len(image) != self.spec.channels:
            raise ProtectionError(f"{len(image)} ciphertexts for an image of {self.spec.channels} channels")
        inputs = [self._fresh(blob) for blob in image]
        try:
            return seal.dump(self.evaluate(inputs, keys))
        except (RuntimeError, ValueError) as error:
            raise ProtectionError(f"the image cannot be evaluated: {error}") from error

    def _fresh(self, blob: bytes) -> Any:
        ciphertext = read(sealapi.Ciphertext(), self.ckks.context, blob)
        fresh = (
            ciphertext.size() == 2
            and ciphertext.is_ntt_form()
            and list(ciphertext.parms_id()) == list(self.ckks.levels[0])
            and ciphertext.scale == 2.0**INPUT_BITS
        )
        if not fresh:
            raise ProtectionError("not a freshly encrypted image: its level, size or scale is another")
        return ciphertext

    def evaluate(self, inputs: Sequence[Any], keys: Keys) -> Any:
        """Evaluate the circuit on ciphertexts in memory: the five steps of the module's docstring."""
        ckks, evaluator = self.ckks, self.ckks.evaluator
        z = self._conv.apply(inputs, keys)
        evaluator.add_inplace(z, ckks.conjugate(z, keys))
        ckks.add_constant(z, self._conv_bias)

        evaluator.square_inplace(z)
        evaluator.relinearize_inplace(z, keys.relin)
        evaluator.rescale_to_next_inplace(z)
        z.scale = self._scale1

        y = self._hidden.apply([z], keys)
        ckks.add_rotations(y, self._folds1, keys)
        ckks.add_constant(y, self._hidden_bias)

        squares = self._square_parts(y, keys)

        logits = self._output.apply([squares], keys)
        ckks.add_rotations(logits, self._folds2, keys)
        evaluator.add_inplace(logits, ckks.conjugate(logits, keys))
        ckks.add_constant(logits, self._output_bias)
        return logits

    def _square_parts(self, y: Any, keys: Keys) -> Any:
        """Return 4 (Re² y ± i Im² y), + in even slots, - in odd ones, one level down."""
        evaluator = self.ckks.evaluator
        conjugated, real = self.ckks.conjugate(y, keys), sealapi.Ciphertext()
        evaluator.add(y, conjugated, real)
        evaluator.sub_inplace(y, conjugated)
        imaginary = y
        for part in (real, imaginary):
            evaluator.square_inplace(part)
            evaluator.rescale_to_next_inplace(part)
        evaluator.multiply_plain_inplace(imaginary, self._quarter_turn)
        imaginary.scale = real.scale
        evaluator.add_inplace(real, imaginary)
        evaluator.relinearize_inplace(real, keys.relin)
        real.scale = self._scale2
        return real


def _weight_bits(spare: float) -> Tuple[int, int]:
    """Return the binary logarithms of the hidden and output weights' scales.

    ``spare`` is what twice the first and the second may take together. Rounding the hidden weights costs
    more than rounding the output's by some two bits: there are more of them.
    """
    hidden_bits = min(max(math.floor((spare + 2) / 3), HIDDEN_BITS[0]), HIDDEN_BITS[1])
    return hidden_bits, min(OUTPUT_BITS[1], math.floor(spare - 2 * hidden_bits))


def _babies(rows: int) -> int:
    """Return the baby steps for so many diagonals: the smallest power of two that is at least the root."""
    return 1 << (rows.bit_length() // 2)


def _doublings(start: int, stop: int) -> Tuple[int, ...]:
    """Return start, 2 start, ... below stop: rotations that sum stop / start slots a period apart."""
    return tuple(start << t for t in range((stop // start).bit_length() - 1))
