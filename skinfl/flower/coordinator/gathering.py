"""Gathering at the coordinator: who takes part in a run, and with which keys."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import msgpack
import numpy as np

from skinfl.assembly import FederatedData
from skinfl.data.dataset import LesionDataset
from skinfl.data.splits import Split
from skinfl.errors import CheckpointError, SkinflError, TrainingError
from skinfl.files import read_checked, write_checked
from skinfl.flower import keys, protocol
from skinfl.flower.coordinator.asking import CoordinatorRoles
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer, Request
from skinfl.flower.coordinator.options import Options
from skinfl.models.registry import is_file
from skinfl.protection.build import protection_of
from skinfl.settings import OF_THE_MACHINE, Settings, bound_to_rounds


class Joined(NamedTuple):
    """Who takes part in a run, on which terms (a digest of what they were told), and each one's answer."""

    run: str
    terms: str
    members: keys.Members
    answers: Dict[str, Dict[str, Any]]

    @property
    def first(self) -> Dict[str, Any]:
        """The first hospital's answer; under homomorphic encryption it made the common keys."""
        return self.answers[self.members.hospitals[0]]

    def blank(self) -> LesionDataset:
        """Return a data set without images, of the hospitals' classes and image shape."""
        channels, height, width = self.first["image_shape"]
        none: List[Any] = []
        images = np.zeros((0, height, width, channels), np.uint8)
        return LesionDataset("remote", images, none, self.first["classes"], none, none)

    def federated(self) -> FederatedData:
        """Return what the coordinator holds of the hospitals' data: nothing."""
        none = np.zeros(0, np.int64)
        partition = dict.fromkeys(self.members.hospitals, none)
        return FederatedData(self.blank(), Split(none, none, "grouped", 0), partition)


def gather(
    settings: Settings,
    options: Options,
    messaging: Messaging,
    hospitals: Sequence[str],
    private: bytes,
    say: Callable[[str], None],
) -> Joined:
    """Have hospitals join a run; where one refuses or does not answer, the others join another without it.

    ``private`` is the coordinator's key. Raises :class:`~skinfl.errors.TrainingError` where too few
    are left, or where they differ in classes, image shape or network.
    """
    names: Tuple[str, ...] = messaging.connected(hospitals, options.connect_timeout)
    protection = protection_of(settings)
    while True:
        run = secrets.token_hex(16)
        if len(names) < options.minimum_hospitals:
            raise TrainingError(
                f"{len(names)} of {len(hospitals)} hospitals take part ({', '.join(names) or 'none'}), "
                f"{options.minimum_hospitals} are needed: start the others, or lower minimum-hospitals"
            )
        parties = keys.assign_parties(protection, names, options.party_hospitals)
        # how many rounds there will be is nobody's business, and may change on resuming, unless the learning
        # rate goes by them; what concerns virtual workers and the coordinator's own files is nobody's either
        scheduled = bound_to_rounds(settings) or settings.warmup_rounds
        told = settings.replace(
            hospitals=len(names),
            rounds=settings.rounds if scheduled else 1,
            data="",
            partition=None,
            metadata=None,
            plugins=(),
        )
        if is_file(told.pretrained):  # where it lies is nobody's business: each hospital has its own copy
            told = told.replace(pretrained=f"./{Path(told.pretrained).name}")
        # and a hospital's own folder says what it computes on
        told = told.replace(
            **{name: Settings().asdict()[name] for name in OF_THE_MACHINE if name != "threads"}
        )
        fields = {
            "run": run,
            "settings": told.asdict(),
            "hospitals": list(names),
            "parties": parties,
            "coordinator_key": keys.public_of(private),
            "unit": options.unit,
        }
        request = Request(protocol.encode_request("join", fields))
        answers: Dict[str, Dict[str, Any]] = {}
        for name, reply in messaging.ask("join", 0, dict.fromkeys(names, request), options.round_timeout):
            try:
                if isinstance(reply, NoAnswer):
                    raise reply
                answer = protocol.decode_answer("join", name, reply)
                keys.check_public(name, private, answer["public_key"])
                if name == names[0] and answer["opener_key"]:
                    keys.check_public(name, private, answer["opener_key"])
                answers[name] = answer
            except SkinflError as error:
                say(f"run {run[:8]}: {name} does not take part: {error}")
        for name, reason in (_unlike(answers) if answers else {}).items():
            say(f"run {run[:8]}: {name} does not take part: {reason}")
            del answers[name]
        if len(answers) == len(names):
            say(f"run {run[:8]}: {len(names)} hospitals joined: {', '.join(names)}")
            members = keys.Members(names, parties)
            return Joined(run, keys.digest(request.body), members, {name: answers[name] for name in names})
        names = tuple(name for name in names if name in answers)


def write_joined(path: Path, joined: Joined) -> None:
    """Keep who takes part: a coordinator that is started again goes on with them and no others."""
    content = {"run": joined.run, "terms": joined.terms, "members": joined.members._asdict()}
    packed = msgpack.packb({**content, "answers": joined.answers}, use_bin_type=True)
    write_checked(path, packed, private=True)


def read_joined(path: Path) -> Joined:
    """Return what :func:`write_joined` wrote; raises :class:`~skinfl.errors.CheckpointError`."""
    try:
        found = msgpack.unpackb(read_checked(path), raw=False)
        members = keys.Members(tuple(found["members"]["hospitals"]), found["members"]["parties"])
        return Joined(found["run"], found["terms"], members, found["answers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): restore it, or start a new run in another out"
        ) from None


def take_roles(settings: Settings, joined: Joined, private: bytes) -> CoordinatorRoles:
    """Return the coordinator's own roles, and what each hospital is to be handed of the others' keys."""
    public = {name: answer["public_key"] for name, answer in joined.answers.items()}
    protection = protection_of(settings)
    keying = keys.keying(protection, joined.members)
    sealed: Dict[str, Dict[str, Any]] = {}
    for name in joined.members.hospitals:
        keys_to = {peer: a["sealed"][name] for peer, a in joined.answers.items() if name in a["sealed"]}
        common = joined.first["common"].get(name, b"")
        sealed[name] = {"keys": keys_to, "public": public, "common": common}
    first = joined.first
    return CoordinatorRoles(
        joined.members,
        sealed,
        keying.coordinator_parties(private, public, first["key_id"], first["opener_key"]),
        keying.coordinator_opener(private, public),
    )


#: in which all hospitals must agree: their data's kind, and the network that they build for it
_ALIKE = ("classes", "image_shape", "weights", "layout", "model")


def _unlike(answers: Dict[str, Dict[str, Any]]) -> Dict[str, str]:
    """Return the hospitals that differ from most in what must be alike, and how.

    Raises :class:`~skinfl.errors.TrainingError` where there is no majority.
    """
    found = {name: [answer[field] for field in _ALIKE] for name, answer in answers.items()}
    most = max(found.values(), key=list(found.values()).count)
    model = next(name for name in found if found[name] == most)
    reasons = {}
    for name, own in found.items():
        for field, value, usual in zip(_ALIKE, own, most):
            if value != usual and name not in reasons:
                reasons[name] = (
                    f"{name} and {model} differ in {field}: {value} and {usual}; "
                    "they need data of one kind and one release"
                )
    if 2 * len(reasons) >= len(found):
        raise TrainingError(next(iter(reasons.values())))
    return reasons
