"""Read spoiled SEAL objects as a worker does; run as a process, since SEAL may take it along.

    python seal_fuzz.py MODEL image=60 relin=40 galois=8

tries as many of each kind. What is spoiled is the content below SEAL's compression, where SEAL's own checks
look. Prints kind and seed before each is tried, and at the end how many were read.
"""

from __future__ import annotations

import random
import struct
import sys

import numpy as np
from hostile_client import (
    Keys,
    LatencyCircuit,
    LatencyClient,
    ProtectionError,
    compressed,
    load_model,
    prepare,
    read,
    sealapi,
    uncompressed,
)

NUMBERS = (0, 1, 2, 3, 2**31, 2**32, 2**61, 2**63, 2**64 - 1, 8192, 16384)


def spoiled(rng: random.Random, content: bytes) -> bytes:
    """Return the content with a few bytes changed, taken out or put in, mostly near its start."""
    found = bytearray(content)
    near = 400 if rng.random() < 0.7 else len(found)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at = rng.randrange(min(near, len(found)))
        kind = rng.randrange(5)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 2:
            del found[at : at + rng.choice([1, 8, 97])]
        elif kind == 3:
            found[at:at] = bytes(rng.choice([1, 8]))
        else:
            del found[max(at, 20) :]
    return bytes(found)


def main(model: str, *wanted: str) -> None:
    """Try all that is ``wanted``; an error that is not a refusal ends the process."""
    served = prepare(load_model(model))
    circuit = LatencyCircuit(served.network, served.bounds)
    client = LatencyClient(circuit.spec)
    galois, relin = client.evaluation_keys()
    spec = circuit.spec
    image = client.encrypt(np.zeros((spec.channels, spec.image_size, spec.image_size)))
    keys, context = circuit.keys(galois, relin), circuit.ckks.context
    circuit.infer(image, keys)
    taken = 0
    for kind, number in (word.split("=") for word in wanted):
        genuine = {"image": image[0], "relin": relin, "galois": galois}[kind]
        content = uncompressed(genuine)
        for seed in range(int(number)):
            print(kind, seed, flush=True)
            blob = compressed(spoiled(random.Random(seed), content), genuine)
            try:
                if kind == "image":
                    circuit.infer([blob, *image[1:]], keys)
                elif kind == "relin":
                    circuit.infer(image, Keys(keys.galois, read(sealapi.RelinKeys(), context, blob)))
                else:
                    circuit.infer(image, Keys(read(sealapi.GaloisKeys(), context, blob), keys.relin))
                taken += 1
            except ProtectionError:
                pass
    print("read", taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
