"""Homomorphic encryption as a protection: its options, their checks, and who gets which role."""

from __future__ import annotations

import os
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union, cast

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.errors import ProtectionError, SettingsError, nearest
from skinfl.protection import keys, wire
from skinfl.protection.base import AggregatorSide, HospitalSide, OpenerSide, Protection, Roles
from skinfl.protection.encoder import Encoder, FixedPointEncoder
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.he import bfv, ckks
from skinfl.protection.he.masks import PairSeeds
from skinfl.protection.he.roles import HeAggregator, HeHospital, HeOpener, Packing
from skinfl.protection.he.seal import dump, sealapi
from skinfl.protection.keys import Directory, SecretKey
from skinfl.protection.options import check_clip, check_precision, check_rounding
from skinfl.protection.quantise import QuantisedEncoding, Quantiser
from skinfl.protection.roles import AGGREGATOR, MINIMUM_SENDERS, OPENER, Session, check_hospitals
from skinfl.protection.sealing import Channel

SCHEMES = ("ckks-layers", "ckks-vector", "bfv")
DEFAULT_BITS = 16
DEFAULT_CLIP = 64.0


class _Plan(NamedTuple):
    """All public parameters of one setup."""

    session: Session
    directory: Directory
    encoding: Union[FixedPointEncoder, QuantisedEncoding]
    packing: Packing


class He(Protection):
    """Homomorphic encryption under one key of all hospitals; the trust model heads :mod:`.roles`.

    ``degree`` None takes the lightest that is 128-bit secure and carries the sum.

    CKKS: ``precision`` None takes 22 fractional bits, or fewer where that many don't fit. Sums are exact
    on the fixed-point grid, so the errors are those of :class:`~skinfl.protection.smpc.protection.Smpc`.

    BFV: values are quantised to ``bits`` (8, 12 or 16), the rest is exact; :mod:`..quantise` gives the
    error. ``clip`` None agrees on ranges from round to round, a number fixes one for all. ``rounding``
    is ``"stochastic"`` or ``"nearest"``; ``rounding_seed`` makes stochastic rounding repeatable, for
    experiments. ``error_feedback`` keeps what was cut off for the next round.
    """

    name = "he"
    aggregator_sees = "masked ciphertexts; the sum if it colludes with a hospital"

    def __init__(
        self,
        *,
        scheme: str = "ckks-layers",
        degree: Optional[int] = None,
        precision: Optional[int] = None,
        clip: Optional[float] = None,
        rounding: Optional[str] = None,
        bits: Optional[int] = None,
        rounding_seed: Optional[int] = None,
        error_feedback: bool = False,
    ):
        if scheme not in SCHEMES:
            raise SettingsError(f"unknown he_scheme {scheme!r}: {nearest(str(scheme), SCHEMES)}")
        self.scheme = scheme
        self.degree = degree
        self.precision = check_precision(precision)
        self.bits = bits
        self._quantised: Optional[QuantisedEncoding] = None
        self.rounding_seed = rounding_seed
        self.error_feedback = error_feedback
        if scheme == "bfv":
            if precision is not None:
                raise SettingsError("precision belongs to ckks; with bfv, give bits (8, 12 or 16)")
            self.bits = DEFAULT_BITS if bits is None else bits
            self.clip = None if clip is None else check_clip(clip)
            self.rounding = check_rounding(rounding or "stochastic", ("stochastic", "nearest"))
            self._quantised = QuantisedEncoding(self.bits, self.clip)
        else:
            if bits is not None or rounding_seed is not None or error_feedback:
                raise SettingsError("bits, rounding_seed and error_feedback need he_scheme bfv")
            self.clip = check_clip(DEFAULT_CLIP if clip is None else clip)
            self.rounding = check_rounding(rounding or "nearest", ("truncate", "nearest"))

    def check(self, hospitals: int) -> None:
        """Refuse parameters that are not secure or have no room for the sum."""
        self._build(hospitals)

    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make all keys in this process and hand each role its own."""
        names = check_hospitals(hospitals, MINIMUM_SENDERS)
        keyring, directory = keys.generate(names, (AGGREGATOR,))
        secret = self.new_key(len(names))
        plan = self._plan(directory, secret.id)
        return Roles(
            {name: self._hospital(plan, name, key, secret) for name, key in keyring.hospitals.items()},
            {AGGREGATOR: self._party(plan, keyring.parties[AGGREGATOR])},
            self._opener(plan, keyring.opener, secret),
        )

    def new_key(self, hospitals: int) -> SecretKey:
        """Make a key for that many hospitals. Its holder gives it to hospitals only."""
        _, packing = self._build(hospitals)
        return SecretKey(os.urandom(16), dump(sealapi.KeyGenerator(packing.context).secret_key()))

    def hospital(
        self, name: str, private: X25519PrivateKey, directory: Directory, secret: SecretKey
    ) -> HospitalSide:
        """Make hospital ``name``'s role from its private key and the hospitals' common one."""
        return self._hospital(self._plan(directory, secret.id), name, private, secret)

    def party(self, private: X25519PrivateKey, directory: Directory, key_id: bytes) -> AggregatorSide:
        """Make the aggregator's role from its private key; of the encryption key it gets the id only."""
        return self._party(self._plan(directory, key_id), private)

    def opener(self, private: X25519PrivateKey, directory: Directory, secret: SecretKey) -> OpenerSide:
        """Make the opener's role; ``private`` is the hospitals' common key for receiving sums."""
        return self._opener(self._plan(directory, secret.id), private, secret)

    def _hospital(self, plan: _Plan, name: str, private: X25519PrivateKey, secret: SecretKey) -> HospitalSide:
        keys.check_own(name, private, plan.directory.hospitals.get(name))
        link = Channel(private, plan.directory.parties[AGGREGATOR])
        encoder: Encoder
        if isinstance(plan.encoding, FixedPointEncoder):
            encoder = plan.encoding
        else:
            encoder = Quantiser(
                plan.encoding,
                name,
                salt=secret.data,
                rounding=self.rounding,
                seed=self.rounding_seed,
                error_feedback=self.error_feedback,
            )
        pairs = PairSeeds(name, private, plan.directory.hospitals)
        return HeHospital(name, plan.session, plan.packing, encoder, secret, link, pairs)

    def _party(self, plan: _Plan, private: X25519PrivateKey) -> AggregatorSide:
        directory = plan.directory
        keys.check_own(AGGREGATOR, private, directory.parties[AGGREGATOR])
        links = {hospital: Channel(private, public) for hospital, public in directory.hospitals.items()}
        return HeAggregator(AGGREGATOR, plan.session, plan.packing, links, Channel(private, directory.opener))

    def _opener(self, plan: _Plan, private: X25519PrivateKey, secret: SecretKey) -> OpenerSide:
        keys.check_own(OPENER, private, plan.directory.opener)
        link = Channel(private, plan.directory.parties[AGGREGATOR])
        return HeOpener(plan.session, plan.packing, plan.encoding.trailer, secret, link)

    def error_bound(self, hospitals: int, largest: float) -> float:
        """Return CKKS's error on the grid, or BFV's of quantisation, twice that with error feedback.

        With error feedback the sum carries what the last round cut off, and lacks what this one does.
        """
        if self._quantised is None:
            return hospitals * FixedPoint(self.precision_for(hospitals), rounding=self.rounding).error
        error = hospitals * self._quantised.error(largest, self.rounding)
        return 2 * error if self.error_feedback else error

    @property
    def fingerprint(self) -> str:
        """A digest of all parameters that hospitals and aggregator must share."""
        shared = ("protection", "he_scheme", "degree", "precision", "bits", "clip", "rounding")
        return wire.fingerprint([self.describe()[name] for name in shared])

    def describe(self) -> Dict[str, object]:
        """Return the parameters; None means derived from the number of hospitals."""
        return {
            "protection": self.name,
            "he_scheme": self.scheme,
            "degree": self.degree,
            "precision": self.precision,
            "bits": self.bits,
            "clip": self.clip,
            "rounding": self.rounding,
            "rounding_seeded": self.rounding_seed is not None,
            "error_feedback": self.error_feedback,
        }

    def precision_for(self, hospitals: int) -> int:
        """Return CKKS's fractional bits with that many hospitals; refused for BFV, which quantises."""
        if self.scheme == "bfv":
            raise SettingsError("bfv quantises to bits, it has no precision")
        _, precision = ckks.choose_parameters(
            hospitals=hospitals, clip=self.clip, precision=self.precision, degree=self.degree
        )
        return precision

    def _build(self, hospitals: int) -> Tuple[Union[FixedPointEncoder, QuantisedEncoding], Packing]:
        """Return the layout of integers and their packing for that many hospitals."""
        if self._quantised is not None:
            quantised = self._quantised
            chosen = bfv.choose_parameters(hospitals=hospitals, largest=quantised.largest, degree=self.degree)
            return quantised, bfv.BfvPacking(chosen, quantised)
        parameters, precision = ckks.choose_parameters(
            hospitals=hospitals, clip=self.clip, precision=self.precision, degree=self.degree
        )
        encoding = FixedPointEncoder(
            hospitals=hospitals,
            capacity=parameters.capacity,
            clip=cast(float, self.clip),  # None with bfv alone
            precision=precision,
            rounding=self.rounding,
        )
        return encoding, ckks.CkksPacking(parameters, encoding, self.scheme == "ckks-layers")

    def _plan(self, directory: Directory, key_id: bytes) -> _Plan:
        hospitals = check_hospitals(tuple(directory.hospitals), MINIMUM_SENDERS)
        if set(directory.parties) != {AGGREGATOR}:
            raise ProtectionError(f"the directory must hold the key of {AGGREGATOR} and of no other party")
        encoding, packing = self._build(len(hospitals))
        fingerprint = wire.fingerprint(self.fingerprint, hospitals, directory.fingerprint, key_id)
        return _Plan(
            Session(self.name, fingerprint, hospitals, MINIMUM_SENDERS), directory, encoding, packing
        )


def build(*, he_scheme: str = "ckks-layers", simulation_seed: Optional[int] = None, **options: Any) -> He:
    """Return the protection from options as settings name them.

    ``simulation_seed`` is given where one process plays all roles: BFV's stochastic rounding is then drawn
    from it, so that the run can be repeated.
    """
    if simulation_seed is not None and he_scheme == "bfv":
        options["rounding_seed"] = simulation_seed
    return He(scheme=he_scheme, **options)
