"""A coordinator that does what it likes, among real hospitals, all in this process.

It holds what every coordinator holds: the connection to each hospital, its own key, and the roles that the
protocol gives it. No line of a hospital's code is changed. Only :class:`Contributions` looks over the
hospitals' shoulders, to tell what the coordinator took from what it only guessed.

What the tests of training need of the package's insides is imported here and taken from here: when modules
move, this is the place to adapt.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flower_helpers import HOSPITALS, LocalMessaging, federation_of, small_dataset

from skinfl.assembly import FederatedData, initial_model, strategy_of
from skinfl.data.splits import train_test_split
from skinfl.errors import MessageError, ProtectionError, TrainingError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.federation.hospital import STATISTICS_ROUND, HospitalAgent, statistics_layout
from skinfl.federation.messages import encode_server
from skinfl.federation.strategies.base import ServerState
from skinfl.federation.update import StateLayout
from skinfl.flower import protocol
from skinfl.flower.coordinator.gathering import gather, take_roles
from skinfl.flower.coordinator.log import RunLog
from skinfl.flower.coordinator.messaging import Request
from skinfl.flower.coordinator.options import Options
from skinfl.flower.coordinator.transport import RemoteTransport
from skinfl.flower.hospital.membership import open_run
from skinfl.flower.hospital.site import Site
from skinfl.flower.local.simulation import largest_part
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened
from skinfl.protection.keys import private_bytes
from skinfl.protection.roles import AGGREGATOR, OPENER
from skinfl.protection.smpc import additive
from skinfl.run import CHECKPOINT
from skinfl.settings import Settings

__all__ = [
    "AGGREGATOR",
    "CHECKPOINT",
    "CLASSES",
    "FOUR",
    "Contributions",
    "HostileCoordinator",
    "HostilePost",
    "RemoteTransport",
    "RunLog",
    "additive",
    "hospitals_in",
    "load_checkpoint",
    "protocol",
]

FOUR = (*HOSPITALS, "hospital-4")
CLASSES = 7

#: hospital -> party -> message
Messages = Dict[str, Dict[str, bytes]]


class Hospitals(NamedTuple):
    """Hospitals with folders of their own, and the data that was handed out to them."""

    folder: Path
    federated: FederatedData


def hospitals_in(folder: Path, names: Sequence[str] = HOSPITALS) -> Hospitals:
    """Provision hospitals below ``folder``, each with its part of the small data set."""
    if tuple(names) == HOSPITALS:
        return Hospitals(*federation_of(folder))
    dataset = small_dataset()
    owner = np.arange(len(dataset)) % len(names)
    parts = {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}
    return Hospitals(*federation_of(folder, FederatedData(dataset, train_test_split(dataset, seed=1), parts)))


class Contributions:
    """What each hospital really put under protection; ``patch`` is pytest's monkeypatch."""

    def __init__(self, patch: Any):
        self._seen: Dict[Tuple[str, int], List[np.ndarray]] = {}
        original = HospitalAgent._report

        def report(agent: HospitalAgent, round: int, vector: np.ndarray) -> None:
            self._seen.setdefault((agent.name, round), []).append(np.array(vector, np.float64))
            original(agent, round, vector)

        patch.setattr(HospitalAgent, "_report", report)

    def all(self, hospital: str, round: int) -> List[np.ndarray]:
        """Return all vectors that a hospital protected for a round, in order."""
        return self._seen.get((hospital, round), [])

    def last(self, hospital: str, round: int) -> np.ndarray:
        """Return the last one; there must be one."""
        return self._seen[hospital, round][-1]


class HostilePost(LocalMessaging):
    """Connections to the hospitals; ``rewrite`` changes the settings that one is told on joining."""

    def __init__(self, hospitals: Hospitals, names: Sequence[str]):
        super().__init__(hospitals.folder)
        self.sites = {name: Site(read_hospital(hospitals.folder / name)) for name in names}
        self.rewrite: Callable[[str, Dict[str, Any]], Dict[str, Any]] = lambda hospital, settings: settings

    def ask(self, kind, round, requests, timeout, *, insist=False):
        if kind == "join":
            requests = {name: self._rewritten(name, request) for name, request in requests.items()}
        return super().ask(kind, round, requests, timeout, insist=insist)

    def _rewritten(self, name: str, request: Request) -> Request:
        kind, fields = protocol.decode_request(request.body)
        settings = self.rewrite(name, fields["settings"])
        return request._replace(body=protocol.encode_request(kind, {**fields, "settings": settings}))


class HostileCoordinator:
    """One run, of which the coordinator asks what it likes, in whatever order.

    Making it has the hospitals join and agree on keys. Every method raises a
    :class:`~skinfl.errors.SkinflError` where a hospital refuses. ``rewrite`` is given to
    :class:`HostilePost`.
    """

    def __init__(
        self,
        hospitals: Hospitals,
        settings: Settings,
        names: Sequence[str] = HOSPITALS,
        rewrite: Optional[Callable[[str, Dict[str, Any]], Dict[str, Any]]] = None,
    ):
        self.names = tuple(names)
        self.run = secrets.token_hex(16)
        self.unit = largest_part(hospitals.federated)
        self._folder = hospitals.folder
        self._post = HostilePost(hospitals, names)
        if rewrite is not None:
            self._post.rewrite = rewrite
        private = private_bytes(X25519PrivateKey.generate())
        self._roles = take_roles(settings, self._join(settings, private), private)
        self._informed: set = set()
        model = initial_model(settings, hospitals.federated.dataset)
        self.layout = StateLayout(model)
        self.strategy = strategy_of(settings, self.unit)
        self.start: ServerState = self.strategy.init(self.layout.flatten(model), self.layout)
        self._layouts = {STATISTICS_ROUND: statistics_layout(1, CLASSES)}

    def _join(self, settings: Settings, private: bytes) -> Any:
        said: List[str] = []
        try:
            joined = gather(
                settings, Options(unit=self.unit), self._post, self.names, self.run, private, said.append
            )
        except TrainingError as error:
            raise TrainingError("; ".join([str(error), *said])) from error
        if joined.members.hospitals != self.names:
            raise ProtectionError("; ".join(said))
        return joined

    def ask(self, kind: str, hospital: str, fields: Mapping[str, Any], server: bytes = b"") -> Dict[str, Any]:
        """Send one request to one hospital and return its answer."""
        sealed = {} if hospital in self._informed else self._roles.sealed[hospital]
        request = protocol.encode_request(kind, {"run": self.run, **fields, "sealed": sealed})
        answer = self._post.sites[hospital].answer(request, server)
        found = protocol.decode_answer(kind, hospital, answer)
        self._informed.add(hospital)
        return found

    def statistics(self, hospital: str) -> Dict[str, Any]:
        """Ask for the sums before training."""
        return self.ask("statistics", hospital, {})

    def train(self, hospital: str, state: Optional[ServerState] = None, **changes: Any) -> Dict[str, Any]:
        """Ask for a round of training from ``state``; ``changes`` replace fields of the request."""
        fields = {**self._task(), "participants": list(self.names), "evaluate": False, **changes}
        return self.ask("train", hospital, fields, encode_server(state or self.start))

    def evaluate(self, hospital: str, state: Optional[ServerState] = None, **changes: Any) -> Dict[str, Any]:
        """Ask for the metrics of ``state``."""
        fields = {**self._task(), "last": False, **changes}
        return self.ask("evaluate", hospital, fields, encode_server(state or self.start))

    def _task(self) -> Dict[str, Any]:
        return {
            "round": 1,
            "normalisation": [[0.5], [0.25]],
            "class_weights": [1.0] * CLASSES,
            "accepted_round": -1,
            "ranges": None,
        }

    def model(self, vector: np.ndarray) -> ServerState:
        """Return the state that brings a model of the coordinator's own making."""
        cut = self.layout.n_parameters
        return self.start.replace(parameters=vector[:cut], statistics=vector[cut:])

    def first_layer(self) -> slice:
        """Return where the first layer's weights lie in an update."""
        return next(iter(self.strategy.contribution_layout(self.layout).slices().values()))

    def exchange(self, round: int = 1) -> Exchange:
        """Return which sum a round's messages belong to."""
        layout = self._layouts.get(round) or self.strategy.contribution_layout(self.layout)
        return Exchange(self.run, round, layout)

    def sum_of(
        self,
        messages: Messages,
        senders: Optional[Sequence[str]] = None,
        *,
        round: int = 1,
        hosts: Optional[Sequence[str]] = None,
    ) -> Opened:
        """Have the messages of ``senders`` added up, by ``hosts`` where hospitals add, and opened."""
        senders = tuple(senders or messages)
        if self._roles.aggregators:
            aggregator = self._roles.aggregators[AGGREGATOR]
            for name in senders:
                aggregator.receive(messages[name][AGGREGATOR], self.exchange(round))
            return self.opened_by(senders[-1], aggregator.combine(senders, self.exchange(round)), round)
        sums: Dict[str, bytes] = {}
        for host in hosts or self.names:
            own = [party for party, at in self._roles.members.parties.items() if at == host]
            shares = {party: {name: messages[name][party] for name in senders} for party in own}
            fields = {"round": round, "messages": shares, "senders": list(senders)}
            answer = self.ask("combine", host, fields)
            for name, reason in answer["refused"].items():
                raise MessageError(name, reason)
            sums.update(answer["sums"])
        return self._roles.opener.open(sums, self.exchange(round))

    def opened_by(self, hospital: str, message: bytes, round: int = 1) -> Opened:
        """Have a hospital open what is called an encrypted sum."""
        answer = self.ask("open", hospital, {"round": round, "combined": {AGGREGATOR: message}})
        return Opened(np.frombuffer(answer["total"], "<f8"), tuple(answer["senders"]))

    def ciphertexts(self, messages: Messages, hospital: str, round: int = 1) -> List[Any]:
        """Return the SEAL ciphertexts in a hospital's message, as the aggregator may read them."""
        aggregator = self._roles.aggregators[AGGREGATOR]
        envelope = wire.parse(messages[hospital][AGGREGATOR])
        body = aggregator._links[hospital].open(envelope)
        return aggregator.read(envelope.header, body, self.exchange(round))

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

    def forged_sum(self, ciphertexts: Sequence[Any], senders: Sequence[str], round: int = 1) -> bytes:
        """Return any ciphertexts under the aggregator's true seal, labelled as the sum of ``senders``."""
        aggregator, exchange = self._roles.aggregators[AGGREGATOR], self.exchange(round)
        header = wire.Header(
            aggregator.session.scheme,
            "sum",
            aggregator.session.fingerprint,
            exchange.run,
            exchange.round,
            AGGREGATOR,
            OPENER,
            exchange.layout.digest,
            tuple(sorted(senders)),
        )
        writer, codec = aggregator._opener.writer(header), self.packing.codec()
        unmasked = np.zeros((codec.ring.primes.size, codec.ring.degree), np.uint64)
        for ciphertext in ciphertexts:
            writer.write(codec.encode(ciphertext, unmasked))
        return writer.finish()

    @property
    def packing(self) -> Any:
        """How vectors lie in ciphertexts: public."""
        return self._roles.aggregators[AGGREGATOR]._packing

    def common_key(self) -> bytes:
        """Return the hospitals' common key from a hospital's own disk: to compare with, not to use."""
        run = open_run(read_hospital(self._folder / self.names[0]), self.run, {})
        return run.own.common.secret.data
