"""The roles' keys: how they are made, agreed on, kept in files, and compared.

Trust model: everyone knows everyone's true X25519 public key (the :class:`Directory`): exchanged before
the run over a channel that the aggregator can't alter, or compared by :func:`readable`. On that rests
how hospitals come by a common encryption key without the aggregator: one of them, the key holder,
makes it for one run and seals it to each hospital's public key. The aggregator may relay the sealed
keys; it can't read, replace or replay them. The key holder can leak the key, as any hospital can.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from skinfl.errors import MessageError, ProtectionError, WriteError
from skinfl.files import write_bytes
from skinfl.protection import wire
from skinfl.protection.sealing import Channel

_SCHEME = "key agreement"


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


class SecretKey(NamedTuple):
    """The hospitals' common encryption key. ``id`` names it in public; ``data`` is SEAL's serialisation."""

    id: bytes
    data: bytes


class CommonKeys(NamedTuple):
    """What all hospitals share and nobody else has: the encryption key, and the key that sums are
    sealed to.
    """

    secret: SecretKey
    opener: X25519PrivateKey


def public_bytes(private: X25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public half."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def private_bytes(private: X25519PrivateKey) -> bytes:
    """Return the 32 bytes of the private half."""
    return private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def readable(public: bytes) -> str:
    """Return a public key's fingerprint in groups of four, for two people to compare by telephone."""
    digits = wire.fingerprint("public key", public)
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def check_own(name: str, private: X25519PrivateKey, listed: Optional[bytes]) -> None:
    """Refuse a role whose name the directory lacks or lists with another key.

    Without this every message would be refused as altered, and nobody would know why.
    """
    if listed is None:
        raise ProtectionError(f"the directory has no key of {name!r}: list all roles' public keys in it")
    if public_bytes(private) != listed:
        raise ProtectionError(
            f"the private key of {name!r} isn't the one whose public half the directory lists"
        )


def generate(hospitals: Sequence[str], parties: Sequence[str]) -> Tuple[Keyring, Directory]:
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


def seal_keys(
    keys: CommonKeys, *, holder: str, private: X25519PrivateKey, hospitals: Mapping[str, bytes], run: str
) -> Dict[str, bytes]:
    """Return the common keys sealed to each hospital for one run, keyed by hospital.

    ``private`` is the holder's own key, ``hospitals`` are all hospitals' public ones. Keys are made
    anew for each run; ``run`` keeps the sealed ones from being used again.
    """
    content = msgpack.packb([keys.secret.id, keys.secret.data, private_bytes(keys.opener)], use_bin_type=True)
    sealed = {}
    for name, public in hospitals.items():
        header = wire.Header(_SCHEME, "key", _mark(hospitals), run, 0, holder, name, "")
        writer = Channel(private, public).writer(header, len(content))
        writer.write(content)
        sealed[name] = writer.finish()
    return sealed


def open_keys(
    message: bytes,
    *,
    name: str,
    private: X25519PrivateKey,
    holder: str,
    hospitals: Mapping[str, bytes],
    run: str,
) -> CommonKeys:
    """Return the common keys from the holder's message to hospital ``name``.

    Raises :class:`~skinfl.errors.MessageError` for a message of someone else, to someone else, of
    another run, or altered.
    """
    envelope = wire.parse(message)
    header = envelope.header
    expected = (_SCHEME, "key", _mark(hospitals), run, holder, name)
    found = (header.scheme, header.kind, header.fingerprint, header.run, header.sender, header.recipient)
    if found != expected:
        raise MessageError(header.sender, f"it isn't {holder}'s key for {name} in run {run!r}")
    content = Channel(private, hospitals[holder]).open(envelope)
    identity, data, opener = msgpack.unpackb(bytes(content), raw=False)
    return CommonKeys(SecretKey(identity, data), X25519PrivateKey.from_private_bytes(opener))


def write_key_file(path: Path, content: bytes) -> None:
    """Write a secret to a new file that only its owner may read (mode 600); never overwrite one."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ProtectionError(f"cannot write the key file {path}: there is no folder {path.parent}")
    try:
        write_bytes(path, content, private=True, overwrite=False)
    except FileExistsError as error:
        raise ProtectionError(f"{path} exists: keys are never overwritten; name another file") from error
    except WriteError as error:
        raise ProtectionError(f"cannot write the key file {path}: {error.reason}") from error


def read_key_file(path: Path) -> bytes:
    """Read a secret from a file; refuse one that others may read."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise ProtectionError(
                    f"others may read the key file {path} (mode {mode:o}): chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise ProtectionError(f"cannot read the key file {path}: {error.strerror}") from error


def _mark(hospitals: Mapping[str, bytes]) -> str:
    return wire.fingerprint(sorted(hospitals.items()))
