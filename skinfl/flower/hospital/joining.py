"""Joining a run at a hospital: what it refuses, and the keys it makes.

A hospital refuses what its folder does not allow: another protection, a larger model, hospitals whose
keys it was not given, fewer others than its minimum.
"""

from __future__ import annotations

from typing import Any, Dict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.assembly import Network, network_of, rules_of
from skinfl.data.dataset import LesionDataset
from skinfl.errors import ProtectionError, SettingsError
from skinfl.federation.common import STATISTICS_ROUND
from skinfl.federation.rules import KINDS, TRAIN
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.membership import check_others, keying_of, pack_keys
from skinfl.flower.hospital.store import Answer, RunStore
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.protection.keys import private_bytes, public_bytes
from skinfl.settings import Settings, from_mapping


def join(
    folder: HospitalFolder, fields: Dict[str, Any], request_digest: str, train: LesionDataset, held: int
) -> bytes:
    """Join a run and return the answer; joining the same run once more gives the same answer.

    ``request_digest`` is the request's digest, which what is sealed is bound to. ``held``: photographs from
    which training, validation and, unless they lie apart, test images are taken. Raises
    :class:`~skinfl.errors.ProtectionError` for what the folder does not allow, and where this hospital
    joined the run on other terms: what it has answered since holds for these.
    """
    store = RunStore(folder.state, fields["run"])
    known = store.answered("join")
    if known is not None and known.request == request_digest:
        return known.answer
    if known is not None:
        raise ProtectionError(
            f"{folder.name} has joined run {fields['run'][:8]} on other terms: start a new run for these"
        )
    settings = told_settings(fields)
    members = keys.Members(tuple(fields["hospitals"]), dict(fields["parties"]))
    _check_members(folder, settings, members)
    folder.check_settings(settings, len(members.parties))
    if fields["unit"] & (fields["unit"] - 1):
        # whether a hospital refuses would tell, unit by unit, how many images it holds
        raise ProtectionError(f"unit = {fields['unit']}: {folder.name} agrees on powers of two only")
    if held > fields["unit"]:
        # nor may it hang on how many of them a run holds out, which could be chosen as finely
        raise ProtectionError(
            f"{folder.name} holds more images than the agreed unit of {fields['unit']}: raise unit"
        )
    found = network(folder, folder.with_own_weights(settings), train, fields["unit"])
    rules = rules_of(settings, found, members.hospitals, train, fields["unit"], request_digest)
    first = rules.start(fields["run"], found.layout.flatten(found.model))

    private = X25519PrivateKey.generate()
    public = public_bytes(private)
    common = keying_of(settings, members).new_common() if folder.name == members.hospitals[0] else None
    long_lived = {name: folder.sealing_keys[name] for name in members.hospitals}
    sealed = keys.seal(
        folder.name, folder.sealing_key(), long_lived, members, fields["run"], request_digest, public, common
    )
    answer = protocol.encode_answer(
        {
            "classes": list(train.classes),
            "image_shape": list(train.photograph_shape),
            "layout": rules.vectors(TRAIN).digest,
            "model": first.digest,
            "weights": found.learner.sha256,
            "public_key": public,
            "sealed": sealed.keys,
            "common": sealed.common,
            "key_id": b"" if common is None else common.secret.id,
            "opener_key": b"" if common is None else public_bytes(common.opener),
        }
    )
    store.begin()
    layouts = {kind: rules.vectors(kind) for kind in KINDS}
    packed = {kind: [list(map(list, made.segments)), made.transforms] for kind, made in layouts.items()}
    store.write("joined", {"request_digest": request_digest, "layouts": packed, **fields})
    store.write("keys", pack_keys(keys.OwnKeys(private_bytes(private), {folder.name: public}, common)))
    store.keep_answer("join", Answer(request_digest, STATISTICS_ROUND, answer))
    return answer


def told_settings(fields: Dict[str, Any]) -> Settings:
    """Return a run's settings as the coordinator tells them; what is wrong with these it may know."""
    try:
        return from_mapping(fields["settings"])
    except SettingsError as error:
        raise ProtectionError(f"the run's settings: {error}") from None


def network(folder: HospitalFolder, settings: Settings, dataset: LesionDataset, unit: int) -> Network:
    """Return the network and what goes with it; refuse a model that is larger than the folder allows."""
    found = network_of(settings, dataset, unit)
    if found.layout.size > folder.maximum_parameters:
        raise ProtectionError(
            f"{folder.name} trains models of at most {folder.maximum_parameters} values, "
            f"{settings.model} has {found.layout.size}"
        )
    return found


def _check_members(folder: HospitalFolder, settings: Settings, members: keys.Members) -> None:
    if settings.protection not in folder.protections:
        raise ProtectionError(
            f"{folder.name} lets no update out under {settings.protection!r}: its protections are "
            + ", ".join(folder.protections)
        )
    strangers = [name for name in members.hospitals if name not in folder.sealing_keys]
    if strangers:
        raise ProtectionError(
            f"{folder.name} has no key of {strangers[0]!r}: provision all hospitals together"
        )
    if members.hospitals.count(folder.name) != 1 or len(set(members.hospitals)) != len(members.hospitals):
        raise ProtectionError(f"{folder.name} is asked to join a run that does not name each hospital once")
    hosts = list(members.parties.values())
    if len(set(hosts)) != len(hosts) or not set(hosts) <= set(members.hospitals):
        raise ProtectionError("each aggregating party must be a hospital of its own")
    check_others(folder, members.hospitals, "this run")
