"""A coordinator that does what it likes, among real hospitals, all in this process.

It holds what every coordinator holds: the connection to each hospital, its own key, and the roles that the
protocol gives it. No line of a hospital's code is changed. Only :class:`Contributions` looks over the
hospitals' shoulders, to tell what the coordinator took from what it only guessed.

What the tests of training need of the package's insides is imported here and taken from here: when modules
move, this is the place to adapt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flower_helpers import HOSPITALS, LocalMessaging, small_dataset, small_federated

from skinfl.assembly import FederatedData, network_of, rules_of
from skinfl.data.splits import train_test_split
from skinfl.errors import MessageError, ProtectionError, TrainingError, UnprovedSum
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.federation.common import CommonState
from skinfl.federation.hospital import HospitalAgent
from skinfl.federation.messages import News, Told, encode_common, encode_told, hand_over, tell
from skinfl.federation.rules import EVALUATE, STATISTICS, TRAIN, Task
from skinfl.flower import protocol
from skinfl.flower.coordinator.gathering import gather, take_roles
from skinfl.flower.coordinator.log import RunLog
from skinfl.flower.coordinator.messaging import Request
from skinfl.flower.coordinator.options import Options
from skinfl.flower.coordinator.transport import RemoteTransport
from skinfl.flower.hospital.membership import open_run
from skinfl.flower.hospital.site import Site
from skinfl.flower.local.data_folders import hand_out
from skinfl.flower.local.simulation import largest_part
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.flower.provisioning.provision import provision
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened
from skinfl.protection.keys import private_bytes
from skinfl.protection.roles import AGGREGATOR, OPENER
from skinfl.protection.smpc import additive, shamir
from skinfl.protection.words import encode_words
from skinfl.run import CHECKPOINT
from skinfl.settings import Settings

__all__ = [
    "AGGREGATOR",
    "CHECKPOINT",
    "CLASSES",
    "EVALUATE",
    "FOUR",
    "STATISTICS",
    "TRAIN",
    "Contributions",
    "HostileCoordinator",
    "HostilePost",
    "RemoteTransport",
    "RunLog",
    "UnprovedSum",
    "additive",
    "hospitals_in",
    "load_checkpoint",
    "protocol",
    "shamir",
]

FOUR = (*HOSPITALS, "hospital-4")
CLASSES = 7

#: hospital -> party -> message
Messages = Dict[str, Dict[str, bytes]]


class Hospitals(NamedTuple):
    """Hospitals with folders of their own, and the data that was handed out to them."""

    folder: Path
    federated: FederatedData


def hospitals_in(folder: Path, names: Sequence[str] = HOSPITALS, **terms: Any) -> Hospitals:
    """Provision hospitals below ``folder``, each with its part of the small data set.

    ``terms``: what is not as hospitals are set up unless told otherwise, as for ``provision``.
    """
    federated = small_federated()
    if tuple(names) != HOSPITALS:
        dataset = small_dataset()
        owner = np.arange(len(dataset)) % len(names)
        parts = {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}
        federated = FederatedData(dataset, train_test_split(dataset, seed=1), parts)
    provision(list(names), "localhost", folder / "federation", listen="127.0.0.1", **terms)
    hand_out(federated, folder / "federation")
    return Hospitals(folder / "federation", federated)


class Contributions:
    """What each hospital really put under protection; ``patch`` is pytest's monkeypatch."""

    def __init__(self, patch: Any):
        self._seen: Dict[Tuple[str, str, int], List[np.ndarray]] = {}
        original = HospitalAgent._protect

        def protect(agent: HospitalAgent, vector: np.ndarray, task: Task) -> Any:
            known = self._seen.setdefault((agent.name, task.kind, task.round), [])
            known.append(np.array(vector, np.float64))
            return original(agent, vector, task)

        patch.setattr(HospitalAgent, "_protect", protect)

    def all(self, hospital: str, round: int, kind: str = "") -> List[np.ndarray]:
        """Return all vectors that a hospital protected for a round, in order."""
        return self._seen.get((hospital, kind or (TRAIN if round else STATISTICS), round), [])

    def last(self, hospital: str, round: int, kind: str = "") -> np.ndarray:
        """Return the last one; there must be one."""
        return self.all(hospital, round, kind)[-1]


class HostilePost(LocalMessaging):
    """Connections to the hospitals; ``rewrite`` changes the settings that one is told on joining."""

    def __init__(self, hospitals: Hospitals, names: Sequence[str]):
        super().__init__(hospitals.folder)
        self.sites = {name: Site(read_hospital(hospitals.folder / name)) for name in names}
        self.rewrite: Callable[[str, Dict[str, Any]], Dict[str, Any]] = lambda hospital, settings: settings
        #: the request to join as it was sent to each hospital
        self.joins: Dict[str, bytes] = {}

    def ask(self, kind, round, requests, timeout, *, insist=False):
        if kind == "join":
            requests = {name: self._rewritten(name, request) for name, request in requests.items()}
            self.joins.update({name: request.body for name, request in requests.items()})
        return super().ask(kind, round, requests, timeout, insist=insist)

    def _rewritten(self, name: str, request: Request) -> Request:
        kind, fields = protocol.decode_request(request.body)
        settings = self.rewrite(name, fields["settings"])
        return request._replace(body=protocol.encode_request(kind, {**fields, "settings": settings}))


class HostileCoordinator:
    """One run, of which the coordinator asks what it likes, in whatever order.

    Making it has the hospitals join and agree on keys. Every method raises a
    :class:`~skinfl.errors.SkinflError` where a hospital refuses. ``rewrite`` is given to
    :class:`HostilePost`. ``common`` is the state as the coordinator computes it; :meth:`move` takes it on.
    """

    def __init__(
        self,
        hospitals: Hospitals,
        settings: Settings,
        names: Sequence[str] = HOSPITALS,
        rewrite: Optional[Callable[[str, Dict[str, Any]], Dict[str, Any]]] = None,
        party_hospitals: Sequence[str] = (),
    ):
        self.names = tuple(names)
        self.unit = largest_part(hospitals.federated)
        self.post = HostilePost(hospitals, names)
        self._folder = hospitals.folder
        self._parties_at = tuple(party_hospitals)
        if rewrite is not None:
            self.post.rewrite = rewrite
        private = private_bytes(X25519PrivateKey.generate())
        joined = self._join(settings, private)
        self.run = joined.run
        self.roles = take_roles(settings, joined, private)
        self._informed: set = set()
        #: by kind and round: what each hospital vouches for, by whom it is for
        self.vouchers: Dict[Tuple[str, int], Dict[str, Dict[str, bytes]]] = {}
        dataset = hospitals.federated.dataset
        network = network_of(settings, dataset, self.unit)
        self.rules = rules_of(settings, network, self.names, dataset, self.unit, joined.terms)
        self.common = self.rules.start(self.run, network.layout.flatten(network.model))
        self.layout = network.layout

    def _join(self, settings: Settings, private: bytes) -> Any:
        said: List[str] = []
        options = Options(unit=self.unit, party_hospitals=self._parties_at)
        try:
            joined = gather(settings, options, self.post, self.names, private, said.append)
        except TrainingError as error:
            raise TrainingError("; ".join([str(error), *said])) from error
        if joined.members.hospitals != self.names:
            raise ProtectionError("; ".join(said))
        return joined

    def ask(self, kind: str, hospital: str, fields: Mapping[str, Any], body: bytes = b"") -> Dict[str, Any]:
        """Send one request to one hospital and return its answer."""
        sealed = {} if hospital in self._informed else self.roles.sealed[hospital]
        request = protocol.encode_request(kind, {"run": self.run, **fields, "sealed": sealed})
        answer = self.post.sites[hospital].answer(request, body)
        found = protocol.decode_answer(kind, hospital, answer)
        self._informed.add(hospital)
        if found.get("vouchers"):
            round = fields.get("round", 0)
            self.vouchers.setdefault((kind, round), {})[hospital] = found["vouchers"]
        return found

    def statistics(self, hospital: str) -> Dict[str, Any]:
        """Ask for the sums before training."""
        return self.ask("statistics", hospital, {})

    def train(self, hospital: str, news: bytes = b"", **changes: Any) -> Dict[str, Any]:
        """Ask for a round of training after ``news``; ``changes`` replace fields of the request."""
        fields = {"round": 1, "participants": list(self.names), "evaluate": False, **changes}
        return self.ask("train", hospital, fields, news)

    def evaluate(self, hospital: str, news: bytes = b"", **changes: Any) -> Dict[str, Any]:
        """Ask for the metrics of the model after ``news``; ``changes`` replace fields of the request."""
        return self.ask("evaluate", hospital, {"round": 1, "participants": list(self.names), **changes}, news)

    def protect(self, hospital: str, cohort: Sequence[str], attempt: int = 1, **changes: Any) -> Any:
        """Ask to protect the last contribution once more, for a smaller cohort."""
        fields = {**_sum_of(1, TRAIN), "cohort": list(cohort), "attempt": attempt, **changes}
        return self.ask("protect", hospital, fields)

    def release(self, hospital: str, cohort: Sequence[str], attempt: int = 0, **changes: Any) -> bytes:
        """Ask for consent to the sum of a cohort."""
        fields = {**_sum_of(1, TRAIN), "cohort": list(cohort), "attempt": attempt, **changes}
        found: bytes = self.ask("release", hospital, fields)["release"]
        return found

    def task(self, kind: str = TRAIN, round: int = 1, **changes: Any) -> Task:
        """Return a task from the state that the coordinator holds."""
        return Task(kind, round, self.common, self.names)._replace(**changes)

    def exchange(self, task: Optional[Task] = None, **changes: Any) -> Exchange:
        """Return which sum a task's messages belong to, as whoever lacks the hospitals' secret knows it."""
        exchange = self.rules.exchange(task or self.task())
        return exchange._replace(task="", base="", **changes)

    def begin(self) -> None:
        """Have the statistics added up as they should be, and move on."""
        messages = {name: self.statistics(name)["messages"] for name in self.names}
        task = self.task(STATISTICS, 0)
        self.move(task, self.sum_of(messages, task=task))

    def move(self, task: Task, opened: Opened) -> Told:
        """Compute the state after a sum, and return the sum as it is told."""
        self.common = self.rules.apply(task, opened).common
        self.told, self.base = tell(task, opened), task.common
        return self.told

    def news(
        self, told: Optional[Told] = None, base: Optional[CommonState] = None, to: Optional[str] = None
    ) -> bytes:
        """Return the last sum as hospitals are told it, or another.

        With ``base``, the state before, and whatever the hospitals have vouched for to hospital ``to``, by
        default the last.
        """
        told = told or self.told
        given = self.vouchers.get((told.kind, told.round), {})
        vouchers = {
            name: by[to or self.names[-1]] for name, by in given.items() if (to or self.names[-1]) in by
        }
        encoded = None if base is None else encode_common(base)
        return hand_over(News(encode_told(told), encoded, vouchers))

    def sum_of(
        self,
        messages: Messages,
        senders: Optional[Sequence[str]] = None,
        *,
        task: Optional[Task] = None,
        hosts: Optional[Sequence[str]] = None,
    ) -> Opened:
        """Have the messages of ``senders`` added up, by ``hosts`` where hospitals add, and opened."""
        senders, task = tuple(senders or messages), task or self.task()
        if self.roles.aggregators:
            exchange = self.exchange(task, cohort=tuple(sorted(senders)))
            combined = self.encrypted_sum(messages, senders, exchange, task.kind)
            return self.opened_by(senders[-1], combined, task, senders)
        sums: Dict[str, bytes] = {}
        parties = self.roles.members.parties
        for host in dict.fromkeys(hosts or parties.values()):
            own = [party for party, at in parties.items() if at == host]
            shares = {party: {name: messages[name][party] for name in senders} for party in own}
            fields = {**_sum_of(task.round, task.kind), "messages": shares, "senders": list(senders)}
            answer = self.ask("combine", host, fields)
            for name, reason in answer["refused"].items():
                raise MessageError(name, reason)
            sums.update(answer["sums"])
        return self.roles.opener.open(sums, self.exchange(task))

    def verified(self, hospital: str, opened: Opened, task: Optional[Task] = None, **changes: Any) -> bool:
        """Have a hospital say whether an opened sum is proved."""
        dtype, words = encode_words(opened.words)
        task = task or self.task()
        fields = {**_sum_of(task.round, task.kind), "senders": list(opened.senders), "dtype": dtype}
        found: bool = self.ask("verify", hospital, {**fields, **changes}, words)["proved"]
        return found

    def encrypted_sum(
        self, messages: Messages, senders: Sequence[str], exchange: Exchange, kind: str = TRAIN
    ) -> bytes:
        """Add the ciphertexts of senders as the aggregator that the coordinator is."""
        aggregator = self.roles.aggregators[AGGREGATOR]
        for name in senders:
            aggregator.receive(messages[name][AGGREGATOR], exchange)
        releases = {
            name: self.release(name, exchange.cohort, exchange.attempt, round=exchange.round, kind=kind)
            for name in senders
        }
        return aggregator.combine(senders, exchange, releases)

    def opened_by(
        self,
        hospital: str,
        message: bytes,
        task: Optional[Task] = None,
        senders: Optional[Sequence[str]] = None,
    ) -> Opened:
        """Have a hospital open what is called an encrypted sum."""
        task = task or self.task()
        fields = {**_sum_of(task.round, task.kind), "combined": {AGGREGATOR: message}}
        answer = self.ask("open", hospital, fields)
        words = np.frombuffer(answer["words"], answer["dtype"]).astype(np.int64)
        return self.roles.aggregators[AGGREGATOR].read_sum(
            words, answer["senders"], self.exchange(task), {AGGREGATOR: message}
        )

    def first_layer(self) -> slice:
        """Return where the first layer's weights lie in an update."""
        return next(iter(self.rules.contribution.slices().values()))

    def ciphertexts(
        self, messages: Messages, hospital: str, exchange: Optional[Exchange] = None
    ) -> List[Any]:
        """Return the SEAL ciphertexts in a hospital's message, as the aggregator may read them."""
        aggregator = self.roles.aggregators[AGGREGATOR]
        envelope = wire.parse(messages[hospital][AGGREGATOR])
        body = aggregator._links[hospital].open(envelope)
        return aggregator.read(envelope.header, body, exchange or self.exchange())

    def added(self, *lists: Sequence[Any]) -> List[Any]:
        """Return the sums of ciphertexts, place by place."""
        from skinfl.protection.he.seal import sealapi

        evaluator = sealapi.Evaluator(self.packing.context)
        sums = []
        for first, *others in zip(*lists):
            total = first
            for other in others:
                previous, total = total, sealapi.Ciphertext()
                evaluator.add(previous, other, total)
            sums.append(total)
        return sums

    def forged_sum(
        self, ciphertexts: Sequence[Any], senders: Sequence[str], model: bytes, releases: Sequence[bytes] = ()
    ) -> bytes:
        """Return any ciphertexts under the aggregator's true seal, labelled as the sum of ``senders``.

        ``model`` is a hospital's genuine message: what its header says of its task is said here. The masks
        that ``releases`` make are taken off.
        """
        from skinfl.protection.he.masks import Mask

        aggregator, known = self.roles.aggregators[AGGREGATOR], wire.parse(model).header
        header = known._replace(
            kind="sum", sender=AGGREGATOR, recipient=OPENER, senders=tuple(sorted(senders)), salt=b""
        )
        writer, codec = aggregator._opener.writer(header), self.packing.codec()
        mask = Mask(codec.ring, (), releases)
        for ciphertext in ciphertexts:
            writer.write(codec.encode(ciphertext, mask.draw()))
        return writer.finish()

    def decrypted(self, ciphertexts: Sequence[Any], releases: Sequence[bytes] = (), senders: int = 1) -> Any:
        """Return the vector in ciphertexts, opened with the key that a friend among the hospitals gave.

        The masks that ``releases`` make are taken off before. None where it is noise, which does not decode.
        """
        from skinfl.protection.he.masks import Mask
        from skinfl.protection.he.roles import load_secret
        from skinfl.protection.he.seal import sealapi

        packing, codec, layout = self.packing, self.packing.codec(), self.rules.vectors(TRAIN)
        secret = load_secret(packing, self.opened_run(self.names[-1]).own.common.secret)
        mask, decryptor = Mask(codec.ring, (), releases), sealapi.Decryptor(packing.context, secret)
        plaintext, integers = sealapi.Plaintext(), []
        for ciphertext, count in zip(ciphertexts, packing.sizes(layout, "")):
            bare = codec.decode(memoryview(codec.encode(ciphertext, mask.draw())), seeded=False)
            decryptor.decrypt(bare, plaintext)
            integers.append(packing.decode(plaintext, count))
        try:
            return packing.vector(np.concatenate(integers), layout, senders, "").vector
        except ProtectionError:
            return None

    @property
    def packing(self) -> Any:
        """How vectors lie in ciphertexts: public."""
        return self.roles.aggregators[AGGREGATOR]._packing

    def opened_run(self, hospital: str) -> Any:
        """Return what a hospital's own disk holds of the run: to collude, or to compare with."""
        return open_run(read_hospital(self._folder / hospital), self.run, {})

    def common_key(self) -> bytes:
        """Return the hospitals' common key from a hospital's own disk: to compare with, not to use."""
        return self.opened_run(self.names[0]).own.common.secret.data


def _sum_of(round: int, kind: str) -> Dict[str, Any]:
    return {"round": round, "kind": kind}
