"""Print which parameters the protections derive from the number of hospitals, as Markdown.

python benchmarks/parameters.py
"""

from __future__ import annotations

from skinfl.errors import ProtectionError
from skinfl.protection import build_protection
from skinfl.protection.he import bfv, ckks
from skinfl.protection.quantise import BITS, QuantisedEncoding

HOSPITALS = (2, 5, 10, 30, 100, 1000, 10000)
SHARING = ({"ring": 32}, {"ring": 64}, {"smpc_scheme": "shamir", "ring": 32})


def chain(degree: int, bits: object) -> str:
    return f"{degree}, [{', '.join(map(str, bits))}]"


def main() -> None:
    quantised = [f"BFV {bits} bit: N, primes, lanes" for bits in BITS]
    head = ["hospitals", "ring 2^32", "ring 2^64", "field 2^31-1", "CKKS: N, primes, precision", *quantised]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for hospitals in HOSPITALS:
        cells = [str(hospitals)]
        cells += [str(build_protection("smpc", **options).precision_for(hospitals)) for options in SHARING]
        try:
            found, precision = ckks.choose_parameters(
                hospitals=hospitals, clip=64.0, precision=None, degree=None
            )
            cells.append(f"{chain(found.degree, [found.prime_bits])}, {precision}")
        except ProtectionError:
            cells.append("does not fit")
        for bits in BITS:
            largest = QuantisedEncoding(bits, None).largest
            packed = bfv.choose_parameters(hospitals=hospitals, largest=largest, degree=None)
            cells.append(f"{chain(packed.degree, packed.prime_bits)}, {packed.lanes}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
