"""X25519 key pairs of the roles, and the directory of their public halves."""

from __future__ import annotations

from typing import Dict, Mapping, NamedTuple, Tuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from skinfl.protection import wire


class Directory(NamedTuple):
    """Everyone's public key (raw X25519, 32 bytes). Whoever can alter it can read what is sealed by it.

    ``parties`` are the aggregating parties: several for secret sharing, one for encryption.
    """

    hospitals: Mapping[str, bytes]
    parties: Mapping[str, bytes]
    opener: bytes

    @property
    def fingerprint(self) -> str:
        """A digest of all names and keys; messages made under another directory are refused."""
        return wire.fingerprint(sorted(self.hospitals.items()), sorted(self.parties.items()), self.opener)


class Keyring(NamedTuple):
    """The private keys of all roles: exists only where one process plays all of them."""

    hospitals: Dict[str, X25519PrivateKey]
    parties: Dict[str, X25519PrivateKey]
    opener: X25519PrivateKey


def public_bytes(private: X25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public half."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def generate(hospitals: Tuple[str, ...], parties: Tuple[str, ...]) -> Tuple[Keyring, Directory]:
    """Make fresh keys for all roles of one run."""
    keyring = Keyring(
        {name: X25519PrivateKey.generate() for name in hospitals},
        {name: X25519PrivateKey.generate() for name in parties},
        X25519PrivateKey.generate(),
    )
    directory = Directory(
        {name: public_bytes(key) for name, key in keyring.hospitals.items()},
        {name: public_bytes(key) for name, key in keyring.parties.items()},
        public_bytes(keyring.opener),
    )
    return keyring, directory
