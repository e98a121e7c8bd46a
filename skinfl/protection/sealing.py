"""Messages that only their recipient can read and that nobody can alter unseen.

Trust model: each party knows the true X25519 public key of its peers (exchanged at setup, or
provisioned). A relay, for instance the coordinator that passes messages on, learns who writes to
whom and how much, nothing else; it can drop a message but not change, redirect or replay one.

A static-static X25519 agreement authenticates both ends, as in HPKE's authenticated mode (RFC 9180)
without the ephemeral key. Its secret goes through HKDF-SHA256 with a fresh random salt, bound to the
message's whole header (run, round, names, layout, fingerprint), and keys AES-128-GCM. A key therefore
seals one message only. Keys are made anew for each run, which limits what a stolen one can open.
"""

from __future__ import annotations

import io
import os
import zlib
from abc import ABC, abstractmethod
from typing import Union

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire

SALT = 32
_TAG = 16
_CHECKSUM = 4
_STEP = 1 << 18


def agree(private: X25519PrivateKey, peer: bytes) -> bytes:
    """Return the secret that ``private`` and the holder of the public key ``peer`` have in common.

    Raises :class:`~skinfl.errors.ProtectionError` for what is no public key, or one that gives no secret.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer))
    except (ValueError, TypeError) as error:
        raise ProtectionError(f"a public key in the directory is not a valid X25519 key: {error}") from error


class Writer(ABC):
    """Takes a message's body piece by piece and gives the finished message."""

    def __init__(self, head: bytes, reserve: int):
        self._buffer = io.BytesIO()
        self._start = len(head) + 5
        # The buffer is enlarged once, and its content handed over at the end without a copy.
        self._buffer.seek(self._start + reserve)
        self._buffer.write(bytes(_TAG))
        self._buffer.seek(0)
        self._buffer.write(head)
        self._buffer.seek(self._start)

    @abstractmethod
    def write(self, data: Union[bytes, np.ndarray]) -> None:
        """Append ``data``: bytes, or a contiguous array."""

    @abstractmethod
    def _tag(self) -> bytes:
        """Return the tag over all that was written."""

    def finish(self) -> bytes:
        """Return the message."""
        self._buffer.write(self._tag())
        end = self._buffer.tell()
        self._buffer.truncate(end)
        self._buffer.seek(self._start - 5)
        self._buffer.write(wire.encode_length(end - self._start))
        return self._buffer.getvalue()


class Link(ABC):
    """One direction between two roles: writes messages at one end, opens them at the other."""

    @abstractmethod
    def writer(self, header: wire.Header, reserve: int = 0) -> Writer:
        """Begin a message; ``reserve`` is the body's length where it is known beforehand."""

    @abstractmethod
    def open(self, envelope: wire.Envelope) -> bytearray:
        """Return a message's body, or raise MessageError where it was altered."""


class Plain(Link):
    """No secrecy and no authentication: a checksum (CRC-32) against damage on the way."""

    class _Writer(Writer):
        def __init__(self, head: bytes, reserve: int):
            super().__init__(head, reserve)
            self._sum = zlib.crc32(head)

        def write(self, data: Union[bytes, np.ndarray]) -> None:
            view = memoryview(data).cast("B")
            self._sum = zlib.crc32(view, self._sum)
            self._buffer.write(view)

        def _tag(self) -> bytes:
            return self._sum.to_bytes(_CHECKSUM, "big")

    def writer(self, header: wire.Header, reserve: int = 0) -> Writer:
        """Begin a message with a checksum."""
        return self._Writer(wire.encode_head(header), reserve)

    def open(self, envelope: wire.Envelope) -> bytearray:
        """Return the body, or refuse one whose checksum is wrong."""
        body, tag = envelope.body[:-_CHECKSUM], envelope.body[-_CHECKSUM:]
        if zlib.crc32(body, zlib.crc32(envelope.head)).to_bytes(_CHECKSUM, "big") != tag:
            raise MessageError(envelope.header.sender, "its checksum is wrong: damaged on the way")
        return bytearray(body)


class Channel(Link):
    """An authenticated, encrypted link between the holders of two X25519 keys."""

    def __init__(self, private: X25519PrivateKey, peer: bytes):
        self._secret = agree(private, peer)

    class _Writer(Writer):
        def __init__(self, head: bytes, reserve: int, cipher: Cipher):
            super().__init__(head, reserve)
            self._encryptor = cipher.encryptor()
            self._encryptor.authenticate_additional_data(head)
            self._scratch = np.empty(_STEP + _TAG, np.uint8)

        def write(self, data: Union[bytes, np.ndarray]) -> None:
            view = memoryview(data).cast("B")
            for start in range(0, len(view), _STEP):
                length = self._encryptor.update_into(view[start : start + _STEP], memoryview(self._scratch))
                self._buffer.write(self._scratch[:length])

        def _tag(self) -> bytes:
            self._encryptor.finalize()
            return self._encryptor.tag

    def writer(self, header: wire.Header, reserve: int = 0) -> Writer:
        """Begin a sealed message; the header is authenticated with it."""
        salt = os.urandom(SALT)
        head = wire.encode_head(header._replace(salt=salt))
        return self._Writer(head, reserve, self._cipher(head, salt))

    def open(self, envelope: wire.Envelope) -> bytearray:
        """Return the body, or refuse a message that its sender did not seal for this recipient."""
        sealed, tag = envelope.body[:-_TAG], bytes(envelope.body[-_TAG:])
        if len(tag) != _TAG or len(envelope.header.salt) != SALT:
            raise MessageError(envelope.header.sender, "it isn't sealed")
        decryptor = self._cipher(envelope.head, envelope.header.salt).decryptor()
        decryptor.authenticate_additional_data(envelope.head)
        body = bytearray(len(sealed) + _TAG)
        decryptor.update_into(sealed, body)
        try:
            decryptor.finalize_with_tag(tag)
        except InvalidTag as error:
            raise MessageError(
                envelope.header.sender, "its tag is wrong: altered, or sealed with another key"
            ) from error
        del body[len(sealed) :]
        return body

    def _cipher(self, head: bytes, salt: bytes) -> Cipher:
        derived = HKDF(SHA256(), 28, salt, b"skinfl sealed message 1" + head).derive(self._secret)
        return Cipher(algorithms.AES(derived[:16]), modes.GCM(derived[16:]))
