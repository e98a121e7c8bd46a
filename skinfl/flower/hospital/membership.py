"""A hospital's part in a run that it joined: its keys, its limits, and the sums it has made.

Nothing here needs torch, so that adding up shares does not wait for it to be loaded.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.errors import MessageError, ProtectionError
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.store import RunStore
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.protection.build import protection_of
from skinfl.protection.keys import CommonKeys, SecretKey, private_bytes
from skinfl.protection.layout import Layout
from skinfl.settings import Settings, from_mapping


class Run(NamedTuple):
    """A run that this hospital joined, as its files tell it."""

    store: RunStore
    name: str
    settings: Settings
    members: keys.Members
    coordinator: bytes
    unit: int
    own: keys.OwnKeys
    #: of what is summed, by kind of sum
    layouts: Dict[str, Layout]
    #: digest of the request to join
    terms: str

    def keying(self) -> keys.Keying:
        """Return how the protection's roles follow from the keys."""
        return keying_of(self.settings, self.members)


def open_run(folder: HospitalFolder, run: str, sealed: Dict[str, Any]) -> Run:
    """Return a run that was joined, with what the others sealed to this hospital taken in.

    Raises :class:`~skinfl.errors.ProtectionError` where it was not joined, or a key is still missing.
    """
    store = RunStore(folder.state, run)
    joined, held = store.read("joined"), store.read("keys")
    if joined is None or held is None:
        raise ProtectionError(f"{folder.name} has not joined run {run[:8]}, or has ended it")
    own = unpack_keys(held)
    members = keys.Members(tuple(joined["hospitals"]), joined["parties"])
    if sealed:
        if set(sealed) != {"keys", "public", "common"}:
            raise MessageError("coordinator", "what the others sealed is not complete")
        own = _take_in_keys(folder, own, run, members, joined["request_digest"], sealed)
        store.write("keys", pack_keys(own))
    if len(own.public_keys) < len(members.hospitals):
        raise ProtectionError(f"{folder.name} has not been given the other hospitals' keys yet")
    settings = from_mapping(joined["settings"])
    layouts = {name: Layout(*packed) for name, packed in joined["layouts"].items()}
    return Run(
        store,
        run,
        settings,
        members,
        joined["coordinator_key"],
        joined["unit"],
        own,
        layouts,
        joined["request_digest"],
    )


def end_run(run: Run) -> bytes:
    """Forget the keys: what was recorded on the way stays sealed from now on."""
    run.store.remove("keys")
    return protocol.encode_answer({})


def check_others(folder: HospitalFolder, names: Sequence[str], where: str) -> None:
    """Refuse a run, round or sum of fewer other hospitals than the folder's minimum."""
    needed, found = folder.minimum_others + 1, len(set(names))
    if found < needed:
        raise ProtectionError(
            f"{folder.name} contributes to sums of at least {needed} hospitals, {where} has {found}"
        )


def keying_of(settings: Settings, members: keys.Members) -> keys.Keying:
    """Return how the protection that the settings name gets its roles from keys."""
    return keys.keying(protection_of(settings), members)


def pack_keys(own: keys.OwnKeys) -> Dict[str, Any]:
    """Return keys as a record of the store."""
    common = None
    if own.common is not None:
        common = [own.common.secret.id, own.common.secret.data, private_bytes(own.common.opener)]
    return {"private": own.private, "public_keys": own.public_keys, "common": common}


def unpack_keys(held: Dict[str, Any]) -> keys.OwnKeys:
    """Return what :func:`pack_keys` packed."""
    common = None
    if held["common"] is not None:
        identity, data, opener = held["common"]
        common = CommonKeys(SecretKey(identity, data), X25519PrivateKey.from_private_bytes(opener))
    return keys.OwnKeys(held["private"], held["public_keys"], common)


def _take_in_keys(
    folder: HospitalFolder,
    own: keys.OwnKeys,
    run: str,
    members: keys.Members,
    request_digest: str,
    sealed: Dict[str, Any],
) -> keys.OwnKeys:
    """Return the keys with those that the other hospitals sealed to this one."""
    public, common, private = dict(own.public_keys), own.common, folder.sealing_key()
    long_lived = {name: folder.sealing_keys[name] for name in members.hospitals}
    must = keys.needed(folder.name, members)
    for peer in (name for name in members.hospitals if name != folder.name):
        given = sealed["keys" if peer in must else "public"].get(peer)
        if not isinstance(given, bytes):
            raise MessageError(peer, f"its key for {folder.name} is missing")
        if peer in must:
            given = keys.unseal_key(folder.name, private, peer, long_lived[peer], run, request_digest, given)
        public[peer] = given
    if sealed["common"]:
        holder = members.hospitals[0]
        common = keys.unseal_common(
            folder.name, private, holder, long_lived, run, request_digest, sealed["common"]
        )
    return keys.OwnKeys(own.private, {n: public[n] for n in members.hospitals if n in public}, common)
