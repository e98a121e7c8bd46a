"""What a client and a server of encrypted inference must agree on, and how it is checked.

The specification is public: it says how an image is laid out and encrypted, not what the network's
weights are. Both sides derive a fingerprint from it and put it into every message.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Mapping, NamedTuple, Sequence, Tuple

from skinfl.errors import ProtectionError
from skinfl.protection.he.standard import check_security

#: of messages and layouts; another version is refused
VERSION = 2


class LatencySpec(NamedTuple):
    """How one image is encrypted, one ciphertext for each colour channel, and how its answer is read.

    Attributes
    ----------
    channels, image_size, classes: of the network.
    copies: how often each half of the slots repeats the image's pixels of one row parity.
    period: the answer repeats every so many slots, logits first, then zeros.
    degree, bits: of CKKS; ``bits`` are the primes', the last one's for key switching.
    input_bits: binary logarithm of the scale an image is encrypted at.
    logit_range: logits up to this magnitude are answered.
    rotations: steps that the client makes rotation keys for, besides the one to conjugate.
    """

    channels: int
    image_size: int
    classes: int
    copies: int
    period: int
    degree: int
    bits: Tuple[int, ...]
    input_bits: int
    logit_range: float
    rotations: Tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of the specification and the version."""
        return _digest("latency", self)

    @property
    def key_bytes(self) -> int:
        """Bytes of a client's evaluation keys in memory: for each element, a pair for each prime but one."""
        primes = len(self.bits)
        return (len(self.rotations) + 2) * (primes - 1) * 2 * primes * self.degree * 8

    @property
    def image_bytes(self) -> int:
        """Bytes of an encrypted image in memory; in a message it is about half."""
        return self.channels * 2 * (len(self.bits) - 1) * self.degree * 8

    def check(self) -> LatencySpec:
        """Refuse a specification that is insecure or contradicts itself, whoever sent it."""
        check_security(self.degree, self.bits)
        grid = (self.image_size + 1) // 2
        sound = (
            1 <= self.channels <= 16
            and self.image_size >= 2
            and 2 <= self.classes < self.period <= self.degree // 2
            and self.degree // 2 % self.period == 0
            and 1 <= self.copies
            and self.copies * grid * grid <= self.degree // 4
            and len(self.bits) >= 2
            and 10 <= self.input_bits <= 40
            and 0 < self.logit_range < 2**60
            and len(self.rotations) <= 256
            and all(0 < step < self.degree // 2 for step in self.rotations)
        )
        if not sound:
            raise ProtectionError(
                "the parameters for encryption contradict themselves: ask for the model anew"
            )
        return self


class BatchSpec(NamedTuple):
    """How many images are encrypted together, one ciphertext for each pixel, an image in each slot.

    Attributes as in :class:`LatencySpec`.
    """

    channels: int
    image_size: int
    classes: int
    degree: int
    bits: Tuple[int, ...]
    input_bits: int

    @property
    def fingerprint(self) -> str:
        """A digest of the specification and the version."""
        return _digest("batch", self)

    @property
    def pixels(self) -> int:
        """Ciphertexts that a batch consists of."""
        return self.channels * self.image_size**2

    @property
    def images(self) -> int:
        """Images that fit into a batch."""
        return self.degree // 2

    @property
    def batch_bytes(self) -> int:
        """Bytes of an encrypted batch in memory; in a message it is about a quarter."""
        return self.pixels * 2 * (len(self.bits) - 1) * self.degree * 8

    def check(self) -> BatchSpec:
        """Refuse a specification that is insecure or contradicts itself, whoever sent it."""
        check_security(self.degree, self.bits)
        sound = (
            1 <= self.channels <= 16
            and 2 <= self.image_size <= 1024
            and self.classes >= 2
            and len(self.bits) >= 2
            and 10 <= self.input_bits <= 40
        )
        if not sound:
            raise ProtectionError(
                "the parameters for encryption contradict themselves: ask for the model anew"
            )
        return self


def _digest(kind: str, spec: NamedTuple) -> str:
    text = json.dumps([kind, VERSION, to_mapping(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def to_mapping(spec: NamedTuple) -> Dict[str, Any]:
    """Return a specification as JSON can hold it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in spec._asdict().items()}


def from_mapping(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return a checked :class:`LatencySpec` or :class:`BatchSpec` from :func:`to_mapping`'s form.

    Raises :class:`~skinfl.errors.ProtectionError` for anything else.
    """
    integers = [f for f in kind._fields if f not in ("bits", "rotations", "logit_range")]
    sound = (
        isinstance(values, Mapping)
        and set(values) == set(kind._fields)
        and all(type(values[f]) is int for f in integers)
        and all(_integers(values[f]) for f in ("bits", "rotations") if f in values)
        and type(values.get("logit_range", 1.0)) in (int, float)
    )
    if not sound:
        raise ProtectionError("the parameters for encryption are not of this version of skinfl")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}).check()


def _integers(values: Sequence[Any]) -> bool:
    return isinstance(values, (list, tuple)) and all(type(v) is int for v in values)
