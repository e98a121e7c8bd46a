"""Secret sharing as a protection: its options, their checks, and who gets which role."""

from __future__ import annotations

import os
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.errors import ProtectionError, SettingsError, nearest
from skinfl.protection import keys, wire
from skinfl.protection.base import AggregatorSide, HospitalSide, OpenerSide, Protection, Roles
from skinfl.protection.encoder import FixedPointEncoder, fit_precision
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.keys import Directory, SecretKey
from skinfl.protection.options import check_clip, check_parties, check_precision, check_rounding, party_names
from skinfl.protection.roles import MINIMUM_SENDERS, OPENER, Session, check_hospitals
from skinfl.protection.sealing import Channel
from skinfl.protection.smpc.additive import AdditiveHospital, AdditiveOpener, AdditiveParty
from skinfl.protection.smpc.field import Field
from skinfl.protection.smpc.ring import Ring
from skinfl.protection.smpc.shamir import ShamirHospital, ShamirOpener, ShamirParty

SCHEMES = ("additive", "shamir")
DEFAULT_PARTIES = 3
DEFAULT_CLIP = 64.0
#: bytes of the hospitals' common secret
SECRET = 32


class _Plan(NamedTuple):
    """All public parameters of one setup."""

    session: Session
    encoder: FixedPointEncoder
    arithmetic: Union[Ring, Field]
    parties: Tuple[str, ...]
    threshold: int


class Smpc(Protection):
    """Secret sharing between several parties; the trust models head :mod:`.additive` and :mod:`.shamir`.

    ``parties`` is a number, or ``"hospitals"`` where they are the parties themselves. ``threshold`` is
    for Shamir; the default is a majority. ``precision`` None takes 22 fractional bits, or fewer where
    that many could overflow. The largest error of a sum of n vectors is n * 2^-(precision + 1) with
    rounding ``"nearest"``, just under n * 2^-precision with ``"truncate"``.
    """

    name = "smpc"

    def __init__(
        self,
        *,
        scheme: str = "additive",
        parties: Union[int, str] = DEFAULT_PARTIES,
        threshold: Optional[int] = None,
        ring: int = 32,
        precision: Optional[int] = None,
        clip: float = DEFAULT_CLIP,
        rounding: str = "nearest",
    ):
        if scheme not in SCHEMES:
            raise SettingsError(f"unknown smpc_scheme {scheme!r}: {nearest(str(scheme), SCHEMES)}")
        self.scheme = scheme
        self.parties = check_parties(parties)
        self.threshold = threshold
        self.arithmetic: Union[Ring, Field] = Ring(ring) if scheme == "additive" else Field(ring)
        self.precision = check_precision(precision)
        self.clip = check_clip(clip)
        self.rounding = check_rounding(rounding, ("truncate", "nearest"))
        if isinstance(self.parties, int):
            self._threshold_of(self.parties)

    @property
    def aggregator_sees(self) -> str:
        """One line on what parties see."""
        if self.scheme == "additive":
            who = "all hospitals" if isinstance(self.parties, str) else f"all {self.parties} parties"
            return f"uniform random shares; an update only if {who} collude"
        if isinstance(self.parties, str):
            t = self.threshold or "a majority"
            return f"uniform random shares; an update only if {t} of the hospitals collude"
        number = self._threshold_of(self.parties)
        return f"uniform random shares; an update only if {number} of {self.parties} parties collude"

    def check(self, hospitals: int) -> None:
        """Refuse a precision that could overflow, and a threshold beyond the hospitals."""
        self.precision_for(hospitals)
        self._threshold_of(hospitals if isinstance(self.parties, str) else self.parties)

    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make all keys in this process and hand each role its own."""
        names = check_hospitals(hospitals, MINIMUM_SENDERS)
        keyring, directory = keys.generate(names, self.party_names(names))
        secret = self.new_key(len(names))
        return Roles(
            {name: self.hospital(name, key, directory, secret) for name, key in keyring.hospitals.items()},
            {name: self.party(name, key, directory) for name, key in keyring.parties.items()},
            self.opener(keyring.opener, directory),
        )

    def party_names(self, hospitals: Sequence[str]) -> Tuple[str, ...]:
        """Return the names of the aggregating parties."""
        return party_names(self.parties, hospitals)

    def new_key(self, hospitals: int) -> SecretKey:
        """Make the secret that authenticates sums. Its holder gives it to hospitals only."""
        return SecretKey(os.urandom(16), os.urandom(SECRET))

    def hospital(
        self, name: str, private: X25519PrivateKey, directory: Directory, secret: SecretKey
    ) -> HospitalSide:
        """Make hospital ``name``'s role from its private key and the common secret of :meth:`new_key`."""
        if len(secret.data) != SECRET:
            raise ProtectionError(
                f"the hospitals' secret has {len(secret.data)} bytes, expected {SECRET}: make one by new_key"
            )
        plan = self._plan(directory)
        keys.check_own(name, private, directory.hospitals.get(name))
        links = {party: Channel(private, directory.parties[party]) for party in plan.parties}
        if isinstance(plan.arithmetic, Ring):
            return AdditiveHospital(name, plan.session, plan.encoder, secret, plan.arithmetic, links)
        return ShamirHospital(
            name, plan.session, plan.encoder, secret, plan.arithmetic, plan.threshold, links
        )

    def party(self, name: str, private: X25519PrivateKey, directory: Directory) -> AggregatorSide:
        """Make party ``name``'s role from its own private key and everyone's public ones."""
        plan = self._plan(directory)
        keys.check_own(name, private, directory.parties.get(name))
        links = {hospital: Channel(private, public) for hospital, public in directory.hospitals.items()}
        opener = Channel(private, directory.opener)
        if isinstance(plan.arithmetic, Ring):
            return AdditiveParty(
                name, plan.session, plan.encoder, plan.arithmetic, plan.parties, links, opener
            )
        return ShamirParty(
            name, plan.session, plan.encoder, plan.arithmetic, plan.threshold, plan.parties, links, opener
        )

    def opener(self, private: X25519PrivateKey, directory: Directory) -> OpenerSide:
        """Make the opener's role from its private key and the parties' public ones."""
        plan = self._plan(directory)
        keys.check_own(OPENER, private, directory.opener)
        links = {party: Channel(private, directory.parties[party]) for party in plan.parties}
        if isinstance(plan.arithmetic, Ring):
            return AdditiveOpener(plan.session, plan.encoder, plan.arithmetic, links)
        return ShamirOpener(plan.session, plan.encoder, plan.arithmetic, plan.threshold, links)

    def error_bound(self, hospitals: int, largest: float) -> float:
        """Return a step of the grid for each hospital, half of one where values go to the nearest."""
        return hospitals * FixedPoint(self.precision_for(hospitals), rounding=self.rounding).error

    @property
    def fingerprint(self) -> str:
        """A digest of all parameters."""
        return wire.fingerprint(sorted(self.describe().items()))

    def describe(self) -> Dict[str, object]:
        """Return the parameters; ``precision`` None means derived from the number of hospitals."""
        return {
            "protection": self.name,
            "smpc_scheme": self.scheme,
            "parties": self.parties,
            "threshold": self.threshold,
            "ring": self.arithmetic.bits,
            "precision": self.precision,
            "clip": self.clip,
            "rounding": self.rounding,
        }

    def precision_for(self, hospitals: int) -> int:
        """Return the fractional bits used with that many hospitals."""
        return fit_precision(
            self.precision,
            hospitals=hospitals,
            clip=self.clip,
            capacity=self.arithmetic.capacity,
            scheme=f"{self.scheme} sharing in {self.arithmetic.bits} bits",
        )

    def _threshold_of(self, parties: int) -> int:
        """Return the number of parties that open, or refuse an impossible one."""
        if self.scheme == "additive":
            if self.threshold not in (None, parties):
                raise SettingsError(
                    "additive sharing always needs all parties: leave threshold out, or use shamir"
                )
            return parties
        threshold = parties // 2 + 1 if self.threshold is None else self.threshold
        if not 2 <= threshold <= parties:
            raise SettingsError(f"threshold = {threshold}: must be 2 to the number of parties, {parties}")
        return threshold

    def _plan(self, directory: Directory) -> _Plan:
        hospitals = check_hospitals(tuple(directory.hospitals), MINIMUM_SENDERS)
        parties = self.party_names(hospitals)
        if set(directory.parties) != set(parties):
            raise ProtectionError(f"the directory must hold keys of the parties {', '.join(parties)}")
        precision = self.precision_for(len(hospitals))
        encoder = FixedPointEncoder(
            hospitals=len(hospitals),
            capacity=self.arithmetic.capacity,
            clip=self.clip,
            precision=precision,
            rounding=self.rounding,
            dtype=self.arithmetic.signed,
        )
        fingerprint = wire.fingerprint(self.fingerprint, hospitals, parties, precision, directory.fingerprint)
        session = Session(self.name, fingerprint, hospitals, MINIMUM_SENDERS)
        return _Plan(session, encoder, self.arithmetic, parties, self._threshold_of(len(parties)))


def build(*, smpc_scheme: str = "additive", **options: Any) -> Smpc:
    """Return the protection from options as settings name them."""
    return Smpc(scheme=smpc_scheme, **options)
