"""Packing of quantised integers into BFV slots, several to a slot.

Trust model: that of :mod:`.roles`; a packing holds public parameters only.

A slot is an integer modulo the plain modulus t. It holds L lanes in mixed radix: with M one more than
the largest sum of a lane over all hospitals, the slot is w_0 + w_1 M + ... + w_(L-1) M^(L-1), and as
M^L <= t no lane ever carries into the next. BFV is exact as long as the error stays below q / (2 t);
each of n summed ciphertexts adds at most 21 + 1 to it, so q >= 45 n t leaves a margin and sums can't
come out wrong. Both bounds are worst cases, checked at setup.

Fan and Vercauteren, "Somewhat practical fully homomorphic encryption", IACR ePrint 2012/144; Smart and
Vercauteren, "Fully homomorphic SIMD operations", 2014, for the slots.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.encoder import Decoded
from skinfl.protection.he.roles import Packing
from skinfl.protection.he.seal import PRIME_BITS, batching_prime, bfv_context, primes, sealapi
from skinfl.protection.he.standard import MODULUS_BITS, check_security
from skinfl.protection.layout import Layout
from skinfl.protection.quantise import QuantisedEncoding

DEGREES = (2048, 4096, 8192)
#: least ratio of q to t, per hospital
_NOISE_RATIO = 45
#: SEAL keeps the last prime of a longer chain for keys that are not used here
_SPECIAL_BITS = 20
_NARROWEST = 30
#: batching primes exist at every degree from here on
_NARROWEST_PLAIN = 20


class BfvParameters(NamedTuple):
    """``degree`` N, bits of the primes (special one included), plain modulus t, ``lanes`` of ``radix``."""

    degree: int
    prime_bits: Tuple[int, ...]
    plain_modulus: int
    lanes: int
    radix: int


@lru_cache(maxsize=None)
def choose_parameters(*, hospitals: int, largest: int, degree: Optional[int]) -> BfvParameters:
    """Return the secure parameters whose ciphertexts take the fewest bytes per word.

    ``largest`` is the largest word of one hospital. Messages carry a coefficient in whole bytes per prime.
    """
    radix = hospitals * largest + 1
    degrees = DEGREES if degree is None else (degree,)
    candidates = []
    for n in degrees:
        check_security(n, [])
        for lanes in range(1, int(PRIME_BITS / math.log2(radix)) + 1):
            found = _narrowest(n, lanes, radix, hospitals)
            if found is not None:
                data = found.prime_bits[: max(1, len(found.prime_bits) - 1)]
                cost = sum(math.ceil(bits / 8) for bits in data) / lanes
                candidates.append((cost, sum(data) / lanes, n, found))
    if not candidates:
        raise ProtectionError(
            f"no secure BFV parameters hold sums of {hospitals} hospitals"
            + ("" if degree is None else f" at degree {degree}")
            + ": take fewer bits or a larger degree"
        )
    return min(candidates, key=lambda candidate: candidate[:3])[3]


def _narrowest(degree: int, lanes: int, radix: int, hospitals: int) -> Optional[BfvParameters]:
    """Return the shortest chain for so many lanes, or None where none is secure or wide enough."""
    plain_bits = max((radix**lanes).bit_length(), _NARROWEST_PLAIN)
    plain = batching_prime(degree, min(plain_bits, PRIME_BITS))
    if plain < radix**lanes:
        return None
    needed = _NOISE_RATIO * hospitals * plain
    for bits in range(max(_NARROWEST, needed.bit_length()), 2 * PRIME_BITS + 1):
        chain = (bits,) if bits <= PRIME_BITS else (bits - bits // 2, bits // 2, _SPECIAL_BITS)
        if sum(chain) > MODULUS_BITS[degree]:
            return None
        moduli = primes(degree, chain)
        if math.prod(moduli[: max(1, len(chain) - 1)]) >= needed and plain not in moduli:
            return BfvParameters(degree, chain, plain, lanes, radix)
    return None


class BfvPacking(Packing):
    """Quantised integers in lanes of BFV slots."""

    ntt_form = False

    def __init__(self, parameters: BfvParameters, encoding: QuantisedEncoding):
        self.parameters = parameters
        self.context = bfv_context(parameters.degree, parameters.prime_bits, parameters.plain_modulus)
        self._encoding = encoding
        self._encoder = sealapi.BatchEncoder(self.context)

    def sizes(self, layout: Layout, agreement: str) -> List[int]:
        """Return how many integers each ciphertext holds."""
        most = self.parameters.degree * self.parameters.lanes
        total = self._encoding.size(layout, agreement)
        return [min(most, total - start) for start in range(0, total, most)]

    def encode(self, integers: np.ndarray, plaintext: object) -> None:
        """Put integers into lanes: the first N integers are every slot's lowest lane, and so on."""
        slots = np.zeros(self.parameters.degree, np.int64)
        for lane in reversed(list(self._lanes(integers))):
            slots *= self.parameters.radix
            slots[: len(lane)] += lane
        self._encoder.encode(slots.tolist(), plaintext)

    def decode(self, plaintext: object, count: int) -> np.ndarray:
        """Return the first ``count`` integers of a decrypted sum."""
        rest = np.array(self._encoder.decode_uint64(plaintext), np.uint64)
        radix = np.uint64(self.parameters.radix)
        lanes = []
        for _ in range(self.parameters.lanes):
            upper = rest // radix
            lanes.append((rest - upper * radix).astype(np.int64))
            rest = upper
        return np.concatenate(lanes)[:count]

    def vector(self, integers: np.ndarray, layout: Layout, senders: int, agreement: str) -> Decoded:
        """Return what is decoded, with the ranges agreed for the next round."""
        return self._encoding.decode(integers, layout, senders, agreement)

    def _lanes(self, integers: np.ndarray) -> Iterator[np.ndarray]:
        for lane in range(self.parameters.lanes):
            yield integers[lane * self.parameters.degree : (lane + 1) * self.parameters.degree]
