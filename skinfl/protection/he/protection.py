"""Homomorphic encryption as a protection: its options, their checks, and who gets which role."""

from __future__ import annotations

import os
from typing import Dict, NamedTuple, Optional, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.errors import ProtectionError, SettingsError, nearest
from skinfl.protection import keys, wire
from skinfl.protection.base import AggregatorSide, HospitalSide, OpenerSide, Protection, Roles
from skinfl.protection.he.ckks import CkksPacking, choose_parameters
from skinfl.protection.he.roles import HeAggregator, HeHospital, HeOpener, Packing, SecretKey
from skinfl.protection.he.seal import dump, sealapi
from skinfl.protection.keys import Directory
from skinfl.protection.options import check_clip, check_precision, check_rounding
from skinfl.protection.roles import AGGREGATOR, Terms, check_hospitals
from skinfl.protection.sealing import Channel
from skinfl.protection.words import FixedPointWords

SCHEMES = ("ckks-layers", "ckks-vector")
DEFAULT_CLIP = 64.0
MINIMUM_SENDERS = 2


class _Plan(NamedTuple):
    """All public parameters of one setup."""

    terms: Terms
    packing: Packing


class He(Protection):
    """Homomorphic encryption under one key of all hospitals; the trust model heads :mod:`.roles`.

    ``degree`` None takes the smallest that is 128-bit secure and carries the sum. ``precision`` None
    takes 22 fractional bits, or fewer where that many don't fit. Sums are exact on the fixed-point
    grid, so the errors are those of :class:`~skinfl.protection.smpc.protection.Smpc`.
    """

    name = "he"
    aggregator_sees = "ciphertexts; an update only if it colludes with a hospital"

    def __init__(
        self,
        *,
        scheme: str = "ckks-layers",
        degree: Optional[int] = None,
        precision: Optional[int] = None,
        clip: float = DEFAULT_CLIP,
        rounding: str = "nearest",
    ):
        if scheme not in SCHEMES:
            raise SettingsError(f"unknown he_scheme {scheme!r}: {nearest(str(scheme), SCHEMES)}")
        self.scheme = scheme
        self.degree = degree
        self.precision = check_precision(precision)
        self.clip = check_clip(clip)
        self.rounding = check_rounding(rounding, ("truncate", "nearest"))

    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make all keys in this process and hand each role its own."""
        names = check_hospitals(hospitals, MINIMUM_SENDERS)
        keyring, directory = keys.generate(names, (AGGREGATOR,))
        secret = self.new_key(len(names))
        return Roles(
            {name: self.hospital(name, key, directory, secret) for name, key in keyring.hospitals.items()},
            {AGGREGATOR: self.party(keyring.parties[AGGREGATOR], directory, secret.id)},
            self.opener(keyring.opener, directory, secret),
        )

    def new_key(self, hospitals: int) -> SecretKey:
        """Make a key for that many hospitals. Its holder gives it to hospitals only."""
        context = self._packing(hospitals).context
        return SecretKey(os.urandom(16), dump(sealapi.KeyGenerator(context).secret_key()))

    def hospital(
        self, name: str, private: X25519PrivateKey, directory: Directory, secret: SecretKey
    ) -> HospitalSide:
        """Make hospital ``name``'s role from its private key and the hospitals' common one."""
        plan = self._plan(directory, secret.id)
        link = Channel(private, directory.parties[AGGREGATOR])
        return HeHospital(name, plan.terms, plan.packing, secret, link)

    def party(self, private: X25519PrivateKey, directory: Directory, key_id: bytes) -> AggregatorSide:
        """Make the aggregator's role from its private key; of the encryption key it gets the id only."""
        plan = self._plan(directory, key_id)
        links = {hospital: Channel(private, public) for hospital, public in directory.hospitals.items()}
        return HeAggregator(AGGREGATOR, plan.terms, plan.packing, links, Channel(private, directory.opener))

    def opener(self, private: X25519PrivateKey, directory: Directory, secret: SecretKey) -> OpenerSide:
        """Make the opener's role; ``private`` is the hospitals' common key for receiving sums."""
        plan = self._plan(directory, secret.id)
        return HeOpener(plan.terms, plan.packing, secret, Channel(private, directory.parties[AGGREGATOR]))

    @property
    def fingerprint(self) -> str:
        """A digest of all parameters."""
        return wire.fingerprint(sorted(self.describe().items()))

    def describe(self) -> Dict[str, object]:
        """Return the parameters; None means derived from the number of hospitals."""
        return {
            "protection": self.name,
            "he_scheme": self.scheme,
            "degree": self.degree,
            "precision": self.precision,
            "clip": self.clip,
            "rounding": self.rounding,
        }

    def _packing(self, hospitals: int) -> Packing:
        parameters, precision = choose_parameters(
            hospitals=hospitals, clip=self.clip, precision=self.precision, degree=self.degree
        )
        words = FixedPointWords(
            hospitals=hospitals,
            capacity=parameters.capacity,
            clip=self.clip,
            precision=precision,
            rounding=self.rounding,
        )
        return CkksPacking(parameters, words, self.scheme == "ckks-layers")

    def _plan(self, directory: Directory, key_id: bytes) -> _Plan:
        hospitals = check_hospitals(tuple(directory.hospitals), MINIMUM_SENDERS)
        if set(directory.parties) != {AGGREGATOR}:
            raise ProtectionError(f"the directory must hold the key of {AGGREGATOR} and of no other party")
        packing = self._packing(len(hospitals))
        mark = wire.fingerprint(self.fingerprint, hospitals, directory.fingerprint, key_id)
        return _Plan(Terms(self.name, mark, hospitals, MINIMUM_SENDERS), packing)
