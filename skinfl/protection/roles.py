"""What the schemes' roles have in common: checking messages, keeping them, and sending them on.

Each class here can be built from its own keys alone, so that it serves in one process and on machines
of their own alike.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import (
    Callable,
    Dict,
    Generic,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

import numpy as np

from skinfl.errors import MessageError, ProtectionError, UnprovedSum
from skinfl.protection import wire
from skinfl.protection.authenticator import Authenticated, Authenticator
from skinfl.protection.base import AggregatorSide, Exchange, HospitalSide, Opened
from skinfl.protection.encoder import Decoded, Encoder
from skinfl.protection.keys import SecretKey
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.trailer import Trailer

#: names of the roles that aren't hospitals
AGGREGATOR = "aggregator"
OPENER = "opener"
#: a sum of fewer would show a single update
MINIMUM_SENDERS = 2

Content = TypeVar("Content")


class Session(NamedTuple):
    """What all roles of one setup agree on: the scheme's name, the fingerprint of its parameters and
    keys, the hospitals, and how many must be in a sum for it to hide each of them.
    """

    scheme: str
    fingerprint: str
    hospitals: Tuple[str, ...]
    minimum: int


def check_hospitals(hospitals: Sequence[str], minimum: int) -> Tuple[str, ...]:
    """Return the hospitals' names as a tuple, or refuse too few, empty or repeated ones."""
    names = tuple(hospitals)
    if len(names) < minimum:
        raise ProtectionError(
            f"{minimum} or more hospitals are needed, {len(names)} given: a sum of one hides nothing"
        )
    if len(set(names)) != len(names) or not all(names):
        raise ProtectionError("hospitals need distinct, non-empty names")
    return names


def keyed(secret: bytes, digest: str) -> str:
    """Return a digest as it may be shown to those who lack the hospitals' secret: not to be guessed from.

    The empty one stays empty, and all of them as they are where hospitals have no secret (plaintext).
    """
    return wire.fingerprint(secret, digest) if secret and digest else digest


def begin_update(
    session: Session,
    link: Link,
    sender: str,
    recipient: str,
    exchange: Exchange,
    *,
    secret: bytes = b"",
    reserve: int = 0,
    agreement: str = "",
) -> Writer:
    """Begin a hospital's message to a party; ``secret`` is the hospitals' common one."""
    header = wire.Header(
        session.scheme,
        "update",
        session.fingerprint,
        exchange.run,
        exchange.round,
        sender,
        recipient,
        exchange.layout.digest,
        agreement=agreement,
        task=keyed(secret, exchange.task),
        base=exchange.base,
        attempt=exchange.attempt,
    )
    return link.writer(header, reserve)


class EncodingHospital(HospitalSide):
    """A hospital whose vector is encoded as integers, which a subclass then shares or encrypts.

    ``secret`` is the hospitals' common one: it authenticates the integers.
    """

    def __init__(self, name: str, session: Session, encoder: Encoder, secret: SecretKey):
        self.name = name
        self._session = session
        self._secret = secret.data
        self._authenticator = Authenticator(secret.data)
        self._encoder = Authenticated(encoder, self._authenticator, name)

    def verify(self, words: np.ndarray, senders: Sequence[str], exchange: Exchange) -> Opened:
        """Return what the words stand for, once they are proved to be the senders' sum."""
        encoder, layout = self._encoder, exchange.layout
        size = words.size if encoder.fits(words.size, layout) else encoder.size(layout)
        return proved(
            words,
            senders,
            exchange,
            session=self._session,
            authenticator=self._authenticator,
            trailer=encoder.trailer,
            size=size,
            decode=lambda checked: encoder.decode(checked, layout, len(senders)),
        )

    def set_ranges(self, ranges: np.ndarray) -> None:
        """Take over what the last sum says."""
        self._encoder.set_ranges(ranges)

    def state(self) -> Dict[str, np.ndarray]:
        """Return what a resumed run needs."""
        return self._encoder.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        self._encoder.load_state(state)

    def _watched(self, blocks: Iterable[np.ndarray], total: int) -> Iterator[np.ndarray]:
        """Yield blocks of integers, ``total`` in all, and tell :attr:`progress` when each is dealt with."""
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            if self.progress is not None:
                self.progress(done, total)


def proved(
    words: np.ndarray,
    senders: Sequence[str],
    exchange: Exchange,
    *,
    session: Session,
    authenticator: Authenticator,
    trailer: Trailer,
    size: int,
    decode: Callable[[np.ndarray], Decoded],
) -> Opened:
    """Return what the ``size`` words of a sum stand for, by ``decode``, once they are proved."""
    names = tuple(senders)
    if tuple(sorted(set(names))) != names or not set(names) <= set(session.hospitals):
        raise ProtectionError(
            f"the senders of round {exchange.round}'s sum are not distinct hospitals of this run in order"
        )
    if len(names) < session.minimum:
        raise ProtectionError(f"a sum of {len(names)} hospital(s) would show a single update")
    if words.dtype.kind != "i" or words.shape != (size,):
        raise ProtectionError(
            f"the sum of round {exchange.round} has shape {words.shape} and type {words.dtype}, expected "
            f"{size} signed integers: it was made for another layout or agreement"
        )
    authenticator.check(words, names, exchange, trailer)
    try:
        decoded = decode(words.astype(np.int64, copy=False))
    except ProtectionError as error:
        raise UnprovedSum(
            f"the sum of round {exchange.round} {UnprovedSum.MARK} to be one of updates: {error}"
        ) from None
    return Opened(decoded.vector, names, decoded.ranges, decoded.clipped, words)


class Basis(NamedTuple):
    """What a hospital's message rests on, as its header says; the same for all that enter a sum."""

    agreement: str
    task: str
    base: str

    @classmethod
    def of(cls, header: wire.Header) -> Basis:
        """Return a message's."""
        return cls(header.agreement, header.task, header.base)


class Party(AggregatorSide, Generic[Content]):
    """An aggregating party: keeps each hospital's message until the senders are agreed, then adds.

    One sum is made per exchange. A second one over other senders would let whoever sees both subtract
    them and find a single update, so it is refused; so is a sum of fewer than ``session.minimum``.
    """

    def __init__(self, name: str, session: Session, links: Mapping[str, Link], opener: Link):
        self.name = name
        self.session = session
        self._links = dict(links)
        self._opener = opener
        self._current: Optional[Tuple[str, int, str, int]] = None
        self._kept: Dict[str, Content] = {}
        self._basis = Basis("", "", "")
        self._closed: Set[Tuple[str, int, str]] = set()

    @abstractmethod
    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> Content:
        """Check an authentic body's form and return what is to be added; raise MessageError."""

    @abstractmethod
    def add(self, contents: Sequence[Content], exchange: Exchange, writer: Writer) -> None:
        """Add the contents and write the sum."""

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a sum's body where it is known, else 0."""
        return 0

    def take_releases(
        self, senders: Tuple[str, ...], exchange: Exchange, releases: Mapping[str, bytes]
    ) -> None:
        """Check and keep what :meth:`add` needs besides, where :attr:`releases` says that it needs anything.

        Raises :class:`~skinfl.errors.ProtectionError`, on which nothing of the round is lost.
        """

    def receive(self, message: bytes, exchange: Exchange) -> str:
        """Check and keep one hospital's message; return its sender.

        ``exchange.task``, where given, is :func:`keyed`, as in messages. Hospitals that rest on
        another :class:`Basis` than the first to come are refused: see :mod:`.receiving`.
        """
        envelope = wire.parse(message)
        sender = envelope.header.sender
        wire.check(
            envelope.header,
            scheme=self.session.scheme,
            kind="update",
            fingerprint=self.session.fingerprint,
            exchange=exchange,
            recipient=self.name,
            senders=self._links,
        )
        if _key(exchange) in self._closed:
            raise MessageError(sender, f"round {exchange.round} is already added up")
        attempt = (*_key(exchange), exchange.attempt)
        if attempt == self._current and sender in self._kept:
            raise MessageError(sender, "it came before: a replay, or sent twice")
        basis = Basis.of(envelope.header)
        if exchange.task and (basis.task, basis.base) != (exchange.task, exchange.base):
            raise MessageError(sender, "it was made for another task than this party was given")
        if attempt == self._current and self._kept and basis != self._basis:
            raise MessageError(
                sender, "it rests on another task or agreement than the others: tell it the last sum's"
            )
        content = self.read(envelope.header, self._links[sender].open(envelope), exchange)
        if attempt != self._current:  # what an abandoned round or attempt left behind goes
            self._current, self._kept = attempt, {}
        self._basis = basis
        self._kept[sender] = content
        return sender

    def combine(
        self, senders: Sequence[str], exchange: Exchange, releases: Optional[Mapping[str, bytes]] = None
    ) -> bytes:
        """Add the messages of ``senders``, forget all that was received, return the sum."""
        names = tuple(sorted(set(senders)))
        if (*_key(exchange), exchange.attempt) != self._current:
            raise ProtectionError(f"{self.name} holds no messages of round {exchange.round} to add up")
        missing = [name for name in names if name not in self._kept]
        if missing:
            raise ProtectionError(f"{self.name} holds no message of {missing[0]}: agree on the senders first")
        if len(names) < self.session.minimum:
            raise ProtectionError(
                f"a sum of {len(names)} hospital(s) would show a single update: "
                f"at least {self.session.minimum} must take part"
            )
        self.take_releases(names, exchange, releases or {})
        header = wire.Header(
            self.session.scheme,
            "sum",
            self.session.fingerprint,
            exchange.run,
            exchange.round,
            self.name,
            OPENER,
            exchange.layout.digest,
            names,
            *self._basis,
            exchange.attempt,
        )
        writer = self._opener.writer(header, self.reserve(exchange))
        self.add([self._kept[name] for name in names], exchange, writer)
        self._closed.add(_key(exchange))
        self._current, self._kept = None, {}
        return writer.finish()


class Sum(NamedTuple):
    """The parties' opened bodies, keyed by party, the senders they agree on, and the last header."""

    bodies: Dict[str, bytearray]
    senders: Tuple[str, ...]
    header: wire.Header


def read_sums(
    combined: Mapping[str, bytes],
    exchange: Exchange,
    session: Session,
    links: Mapping[str, Link],
    length: Optional[int] = None,
) -> Sum:
    """Check the parties' combined messages and that all of them sum the same hospitals.

    ``length``: of each party's body in bytes, where it is known beforehand.
    """
    bodies: Dict[str, bytearray] = {}
    by_senders: Dict[Tuple[str, ...], List[str]] = {}
    bases = set()
    for party, message in combined.items():
        envelope = wire.parse(message)
        header = envelope.header
        wire.check(
            header,
            scheme=session.scheme,
            kind="sum",
            fingerprint=session.fingerprint,
            exchange=exchange,
            recipient=OPENER,
            senders=links,
        )
        if header.sender != party:
            raise MessageError(header.sender, f"it was handed in as {party}'s")
        body = bodies[party] = links[party].open(envelope)
        if length is not None and len(body) != length:
            raise MessageError(party, f"its sum has {len(body)} bytes, {length} expected")
        known = set(header.senders) <= set(session.hospitals)
        if tuple(sorted(set(header.senders))) != header.senders or not known:
            raise MessageError(party, "its list of senders is not one of this run's hospitals")
        if len(header.senders) < session.minimum:
            raise MessageError(
                party, f"a sum of {len(header.senders)} hospital(s) would show a single update"
            )
        by_senders.setdefault(header.senders, []).append(party)
        bases.add(Basis.of(header))
    if not bodies:
        raise ProtectionError("no party answered, so there is no sum to open")
    if len(bases) > 1:
        raise ProtectionError("the parties summed what hospitals made for different tasks: run again")
    if len(by_senders) > 1:
        views = "; ".join(f"{'+'.join(parties)} summed {len(names)}" for names, parties in by_senders.items())
        raise ProtectionError(
            f"the parties summed different hospitals ({views}): agree on the senders and run again"
        )
    return Sum(bodies, next(iter(by_senders)), header)


def _key(exchange: Exchange) -> Tuple[str, int, str]:
    return exchange.run, exchange.round, exchange.layout.digest
