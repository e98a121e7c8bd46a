"""The Homomorphic Encryption Standard's table: the widest modulus that is still 128-bit secure.

Albrecht et al., "Homomorphic Encryption Security Standard", HomomorphicEncryption.org, 2018, Table 1:
classical attacks, ternary secrets (which SEAL uses), error of standard deviation 3.2.
"""

from __future__ import annotations

from typing import Sequence

from skinfl.errors import ProtectionError

#: total bits of the coefficient modulus, special primes included, by polynomial degree
MODULUS_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}


def check_security(degree: int, bits: Sequence[int]) -> None:
    """Refuse parameters below 128 bits of security.

    Raises :class:`~skinfl.errors.ProtectionError` naming the smallest degree that would do.
    """
    if degree not in MODULUS_BITS:
        raise ProtectionError(f"degree {degree}: choose one of {', '.join(map(str, MODULUS_BITS))}")
    total = sum(bits)
    if total > MODULUS_BITS[degree]:
        enough = [n for n, most in MODULUS_BITS.items() if most >= total]
        remedy = f"take degree {enough[0]}" if enough else "use a shorter modulus"
        raise ProtectionError(
            f"degree {degree} with a modulus of {total} bits has less than 128-bit security "
            f"(at most {MODULUS_BITS[degree]} bits there): {remedy}"
        )
