"""How keys are agreed once per run, and the protection's roles that follow from them.

Trust model: each hospital knows the others' long-lived public keys from its own folder, not from the
coordinator. With them it authenticates the fresh keys of the run, which the coordinator passes on but
can neither read nor replace. Sealed with a fresh key is also a digest of the whole ``join`` request, so
hospitals that were told different stories (other settings, other members) cannot read each other.
The coordinator's own key is as good as the TLS connection: it is the end that opens sums of secret
shares, or adds ciphertexts.

Protocol, once per run:

1. Each hospital makes a fresh X25519 key pair. The first also makes what hospitals hold in common: the
   secret that proves sums; under homomorphic encryption the encryption key, which that secret is made of,
   and the key that sums are sealed to.
2. It seals its public key to the long-lived key of each hospital that will seal to it, open what it
   seals, or mask with it: those that play parties, or if it plays one itself or nobody does, all. What is
   sealed is bound to the run,
   both names and the digest of the request. The common keys go to all, if it made them.
3. The coordinator hands each hospital what was sealed to it. The keys of hospitals that it has nothing to
   do with come in the clear: they only enter the fingerprint, which differs if anyone is told others.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.protection import wire
from skinfl.protection.base import AggregatorSide, HospitalSide, OpenerSide, Protection
from skinfl.protection.keys import CommonKeys, Directory, open_keys, public_bytes, seal_keys
from skinfl.protection.roles import AGGREGATOR
from skinfl.protection.sealing import Channel, agree


class Members(NamedTuple):
    """Who takes part in a run: all hospitals in order, and which hospital plays each party."""

    hospitals: Tuple[str, ...]
    parties: Dict[str, str]


class OwnKeys(NamedTuple):
    """What one hospital holds in a run: its fresh private key, and once known, the rest."""

    private: bytes
    public_keys: Dict[str, bytes]
    common: Optional[CommonKeys]


def digest(request: bytes) -> str:
    """Return what identifies a ``join`` request."""
    return hashlib.sha256(request).hexdigest()


class Sealed(NamedTuple):
    """What one hospital seals for the others on joining, by hospital: its fresh public key, and the
    common keys if it made them.
    """

    keys: Dict[str, bytes]
    common: Dict[str, bytes]


def needed(name: str, members: Members) -> FrozenSet[str]:
    """Return the hospitals whose fresh keys hospital ``name`` must know to be theirs.

    Where hospitals play parties these and the others seal to each other; where none does, each masks its
    ciphertexts with every other (plaintext has no use for any). It works both ways: hospital a needs b's
    exactly where b needs a's.
    """
    hosts = frozenset(members.parties.values())
    return (frozenset(members.hospitals) if name in hosts or not hosts else hosts) - {name}


def seal(
    name: str,
    private: bytes,
    long_lived: Mapping[str, bytes],
    members: Members,
    run: str,
    request_digest: str,
    fresh: bytes,
    common: Optional[CommonKeys],
) -> Sealed:
    """Seal hospital ``name``'s fresh public key to those that need it, the common keys to all others.

    ``private`` is its long-lived key, ``long_lived`` are everyone's public ones; ``request_digest`` is the
    digest of the request to join.
    """
    key = _private(private)
    sealed = {}
    for peer in needed(name, members):
        writer = Channel(key, long_lived[peer]).writer(_header(run, request_digest, name, peer))
        writer.write(fresh)
        sealed[peer] = writer.finish()
    if common is None:
        return Sealed(sealed, {})
    own = seal_keys(common, holder=name, private=key, hospitals=long_lived, run=_bound(run, request_digest))
    return Sealed(sealed, {peer: message for peer, message in own.items() if peer != name})


def unseal_key(
    name: str, private: bytes, peer: str, long_lived: bytes, run: str, request_digest: str, message: bytes
) -> bytes:
    """Return the fresh public key that ``peer`` sealed to hospital ``name``.

    Raises :class:`~skinfl.errors.MessageError` for anything else.
    """
    envelope = wire.parse(message)
    if envelope.header._replace(salt=b"") != _header(run, request_digest, peer, name):
        raise MessageError(peer, "its key was sealed for another run, hospital or other settings")
    key = bytes(Channel(_private(private), long_lived).open(envelope))
    if len(key) != 32:
        raise MessageError(peer, f"its key has {len(key)} bytes, not 32")
    return key


def unseal_common(
    name: str,
    private: bytes,
    holder: str,
    long_lived: Mapping[str, bytes],
    run: str,
    request_digest: str,
    message: bytes,
) -> CommonKeys:
    """Return the common keys that ``holder`` sealed to hospital ``name``."""
    return open_keys(
        message,
        name=name,
        private=_private(private),
        holder=holder,
        hospitals=long_lived,
        run=_bound(run, request_digest),
    )


def assign_parties(protection: Protection, hospitals: Sequence[str], hosts: Sequence[str]) -> Dict[str, str]:
    """Return which hospital plays each aggregating party; none where the coordinator aggregates.

    ``hosts`` names the hospitals that play parties where those are fewer than all; the default is the
    first ones.
    """
    names = getattr(protection, "party_names", lambda _: ())(hospitals)
    if tuple(names) == tuple(hospitals):
        return {name: name for name in hospitals}
    chosen = list(hosts) or list(hospitals)[: len(names)]
    if len(set(chosen)) != len(names) or not set(chosen) <= set(hospitals):
        raise SettingsError(
            f"{len(names)} parties need {len(names)} different hospitals of this run, "
            f"{', '.join(chosen) or 'none'} given: name them with party-hospitals"
        )
    return dict(zip(names, chosen))


class Keying(ABC):
    """How a protection's roles follow from the keys, at a hospital and at the coordinator."""

    def __init__(self, protection: Protection, members: Members):
        self.protection: Any = protection
        self.members = members

    def new_common(self) -> Optional[CommonKeys]:
        """Make the keys that all hospitals share, where there are any."""
        return None

    def secret(self, own: OwnKeys) -> bytes:
        """Return the hospitals' common secret, which proves sums and keys digests; empty where none is."""
        return b"" if own.common is None else own.common.secret.data

    @abstractmethod
    def hospital(self, name: str, own: OwnKeys, coordinator: bytes) -> HospitalSide:
        """Return a hospital's side; ``coordinator`` is the coordinator's public key."""

    def party(self, party: str, own: OwnKeys, coordinator: bytes) -> AggregatorSide:
        """Return the side of a party that a hospital plays."""
        raise ProtectionError(f"under {self.protection.name} no hospital aggregates")

    def opener(self, own: OwnKeys, coordinator: bytes) -> OpenerSide:
        """Return the opener's side at a hospital."""
        raise ProtectionError(f"under {self.protection.name} no hospital opens sums")

    def coordinator_parties(
        self, private: bytes, public_keys: Mapping[str, bytes], key_id: bytes, opener_key: bytes
    ) -> Dict[str, AggregatorSide]:
        """Return the parties that the coordinator plays."""
        return {}

    def coordinator_opener(self, private: bytes, public_keys: Mapping[str, bytes]) -> Optional[OpenerSide]:
        """Return the opener's side where it is the coordinator."""
        return None


class PlaintextKeying(Keying):
    """No keys at all."""

    def hospital(self, name: str, own: OwnKeys, coordinator: bytes) -> HospitalSide:
        """Return a side that sends plainly."""
        return self.protection.setup(self.members.hospitals).hospitals[name]

    def coordinator_parties(
        self, private: bytes, public_keys: Mapping[str, bytes], key_id: bytes, opener_key: bytes
    ) -> Dict[str, AggregatorSide]:
        """Return the one aggregator."""
        return self.protection.setup(self.members.hospitals).aggregators

    def coordinator_opener(self, private: bytes, public_keys: Mapping[str, bytes]) -> Optional[OpenerSide]:
        """Return the reader of the sum."""
        return self.protection.setup(self.members.hospitals).opener


class SharingKeying(Keying):
    """Secret sharing: hospitals play the parties, the coordinator opens."""

    def new_common(self) -> Optional[CommonKeys]:
        """Make the secret that proves sums."""
        return CommonKeys(self.protection.new_key(len(self.members.hospitals)), X25519PrivateKey.generate())

    def hospital(self, name: str, own: OwnKeys, coordinator: bytes) -> HospitalSide:
        """Return a side that shares."""
        directory = self._directory(own, coordinator)
        return self.protection.hospital(name, _private(own.private), directory, _common(own).secret)

    def party(self, party: str, own: OwnKeys, coordinator: bytes) -> AggregatorSide:
        """Return a party's side."""
        return self.protection.party(party, _private(own.private), self._directory(own, coordinator))

    def coordinator_opener(self, private: bytes, public_keys: Mapping[str, bytes]) -> Optional[OpenerSide]:
        """Return the side that reconstructs the sum."""
        key = _private(private)
        own = OwnKeys(private, dict(public_keys), None)
        return self.protection.opener(key, self._directory(own, public_bytes(key)))

    def _directory(self, own: OwnKeys, coordinator: bytes) -> Directory:
        parties = {party: own.public_keys[host] for party, host in self.members.parties.items()}
        return Directory(own.public_keys, parties, coordinator)


class EncryptionKeying(Keying):
    """Homomorphic encryption: the coordinator adds ciphertexts, hospitals open."""

    def new_common(self) -> Optional[CommonKeys]:
        """Make SEAL's key and the key that sums are sealed to."""
        secret = self.protection.new_key(len(self.members.hospitals))
        return CommonKeys(secret, X25519PrivateKey.generate())

    def hospital(self, name: str, own: OwnKeys, coordinator: bytes) -> HospitalSide:
        """Return a side that encrypts."""
        common = _common(own)
        directory = self._directory(own.public_keys, coordinator, public_bytes(common.opener))
        return self.protection.hospital(name, _private(own.private), directory, common.secret)

    def opener(self, own: OwnKeys, coordinator: bytes) -> OpenerSide:
        """Return the side that decrypts sums."""
        common = _common(own)
        directory = self._directory(own.public_keys, coordinator, public_bytes(common.opener))
        return self.protection.opener(common.opener, directory, common.secret)

    def coordinator_parties(
        self, private: bytes, public_keys: Mapping[str, bytes], key_id: bytes, opener_key: bytes
    ) -> Dict[str, AggregatorSide]:
        """Return the aggregator, which gets the encryption key's id and no key."""
        key = _private(private)
        directory = self._directory(public_keys, public_bytes(key), opener_key)
        return {AGGREGATOR: self.protection.party(key, directory, key_id)}

    def _directory(self, public_keys: Mapping[str, bytes], coordinator: bytes, opener: bytes) -> Directory:
        return Directory(public_keys, {AGGREGATOR: coordinator}, opener)


_KEYINGS: Dict[str, Type[Keying]] = {
    "plaintext": PlaintextKeying,
    "smpc": SharingKeying,
    "he": EncryptionKeying,
}


def keying(protection: Protection, members: Members) -> Keying:
    """Return how this protection's roles follow from keys."""
    if protection.name not in _KEYINGS:
        raise SettingsError(
            f"protection {protection.name!r} runs in one process only: between machines use "
            + ", ".join(sorted(_KEYINGS))
        )
    return _KEYINGS[protection.name](protection, members)


def voucher(
    private: bytes, peer: bytes, names: Tuple[str, str], terms: str, kind: str, round: int, state: str
) -> bytes:
    """Return what tells one hospital that another started from a state: 32 bytes that only the two can make.

    ``private`` is the long-lived key of either, ``peer`` the public one of the other. ``names``: who vouches,
    and to whom. ``terms`` are the run's, ``state`` is the digest of the common state that the sum of this
    kind and round started from.
    """
    key = HKDF(SHA256(), 32, None, b"skinfl voucher 1").derive(agree(_private(private), peer))
    bound = msgpack.packb([list(names), terms, kind, round, state], use_bin_type=True)
    return hmac.new(key, bound, hashlib.sha256).digest()


def check_public(name: str, private: bytes, public: bytes) -> None:
    """Refuse a hospital's public key that nothing can be sealed to; ``private`` is anybody's own."""
    try:
        agree(_private(private), public)
    except ProtectionError as error:
        raise MessageError(name, f"its public key is unusable: {error}") from None


def public_of(private: bytes) -> bytes:
    """Return the public half of a raw private key."""
    return public_bytes(_private(private))


def _header(run: str, request_digest: str, sender: str, recipient: str) -> wire.Header:
    return wire.Header("join", "key", request_digest, run, 0, sender, recipient, "")


def _bound(run: str, request_digest: str) -> str:
    """Return a name of the run that no other request to join shares."""
    return f"{run} {request_digest}"


def _common(own: OwnKeys) -> CommonKeys:
    if own.common is None:
        raise ProtectionError("the hospitals' common key has not arrived: join the run first")
    return own.common


def _private(raw: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(raw)
