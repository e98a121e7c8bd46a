"""What hospitals are told of the common state, as bytes: the sum it moves on by, or the whole of it.

Both are msgpack. A hospital checks a state against the arrays that its own strategy declares, and believes
neither: a sum proves itself (:meth:`~skinfl.protection.base.HospitalSide.verify`), and with it the state that
its senders started from, whose digest is in the task that the proof is bound to.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

import msgpack
import numpy as np

from skinfl.data.normalisation import Normalisation
from skinfl.errors import MessageError
from skinfl.federation.common import CommonState, Prepared
from skinfl.federation.rules import KINDS, Task
from skinfl.federation.state import ServerState, StateArray
from skinfl.protection.base import Opened
from skinfl.protection.unpacking import check_size
from skinfl.protection.words import decode_words, encode_words

_VERSION = 4
_NUMBER = (int, float)
#: values in one message, nested so deep at most: room for every hospital to vouch to every other
_VALUES, _DEPTH = 1 << 21, 4


class Told(NamedTuple):
    """A sum as hospitals are told it.

    ``base``: the digest of the state that its senders started from. ``words``: as in
    :class:`~skinfl.protection.base.Opened`; the rest as in :class:`~skinfl.federation.rules.Task`.
    """

    kind: str
    round: int
    base: str
    participants: Tuple[str, ...]
    evaluate: bool
    senders: Tuple[str, ...]
    words: np.ndarray

    def task(self, common: CommonState) -> Task:
        """Return the task that the senders had, if they started from ``common``."""
        return Task(self.kind, self.round, common, self.participants, self.evaluate)


def tell(task: Task, opened: Opened) -> Told:
    """Return a task's opened sum as it is told."""
    assert opened.words is not None, "every opener gives the words that it opened"
    return Told(
        task.kind,
        task.round,
        task.common.digest,
        task.participants,
        task.evaluate,
        opened.senders,
        opened.words,
    )


def encode_told(told: Told) -> bytes:
    """Return a sum as bytes."""
    dtype, words = encode_words(told.words)
    fields = told._asdict()
    fields.update(participants=list(told.participants), senders=list(told.senders), words=words)
    return msgpack.packb({"version": _VERSION, "dtype": dtype, **fields}, use_bin_type=True)


def decode_told(data: bytes) -> Told:
    """Return the sum that :func:`encode_told` encoded; raises :class:`~skinfl.errors.MessageError`."""

    def read(fields: Dict[str, Any]) -> Told:
        fields["words"] = decode_words(fields.pop("dtype"), fields["words"])
        for name in ("participants", "senders"):
            if type(fields[name]) is not list or not all(type(n) is str for n in fields[name]):
                raise ValueError("it names hospitals otherwise")
            fields[name] = tuple(fields[name])
        told = Told(**fields)
        kinds = (type(told.round), type(told.base), type(told.evaluate))
        if told.kind not in KINDS or kinds != (int, str, bool):
            raise ValueError("its fields are of other kinds")
        return told

    return _decoded("a sum", data, read)


def encode_common(common: CommonState) -> bytes:
    """Return a common state as bytes."""
    prepared = common.prepared
    return msgpack.packb(
        {
            "version": _VERSION,
            "run": common.run,
            "round": common.round,
            "server": {name: array.astype("<f4").tobytes() for name, array in common.server.items()},
            "normalisation": None if prepared is None else [list(part) for part in prepared.normalisation],
            "class_weights": None if prepared is None else _packed(prepared.class_weights),
            "class_shares": None if prepared is None else _packed(prepared.class_shares),
            "accepted": dict(common.accepted),
            "ranges": _packed(common.ranges),
        },
        use_bin_type=True,
    )


def decode_common(data: bytes, declared: Iterable[StateArray]) -> CommonState:
    """Return the state that :func:`encode_common` encoded.

    ``declared`` is the reader's own :meth:`~skinfl.federation.strategies.base.Strategy.state_layout`. Raises
    :class:`~skinfl.errors.MessageError` for any other names, sizes or content.
    """

    def read(fields: Dict[str, Any]) -> CommonState:
        arrays = {name: np.frombuffer(array, "<f4") for name, array in fields.pop("server").items()}
        server = ServerState(declared, arrays)
        normalisation = fields.pop("normalisation")
        weights, shares = (_unpacked(fields.pop(name)) for name in ("class_weights", "class_shares"))
        prepared = None
        if normalisation is not None:
            mean, std = (tuple(map(_number, part)) for part in normalisation)
            if shares is None:
                raise ValueError("it lacks the classes' shares")
            prepared = Prepared(Normalisation(mean, std), weights, shares)
        accepted, ranges = fields.pop("accepted"), _unpacked(fields.pop("ranges"))
        sound = all(type(n) is str and type(r) is int for n, r in accepted.items())
        if not sound or set(fields) != {"run", "round"} or type(fields["round"]) is not int:
            raise ValueError("it has other fields")
        return CommonState(str(fields["run"]), fields["round"], server, prepared, accepted, ranges)

    return _decoded("a common state", data, read)


def _decoded(what: str, data: bytes, read: Callable[[Dict[str, Any]], Any]) -> Any:
    try:
        check_size(data, _VALUES, _DEPTH)
        fields = msgpack.unpackb(data, raw=False, strict_map_key=True)
        version = fields.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.exceptions.UnpackException):
        raise MessageError("coordinator", f"not {what}: cut short or damaged; ask for it again") from None
    if type(version) is not int or version != _VERSION:
        raise MessageError(
            "coordinator", f"{what} of version {str(version)[:20]!r}, this package reads {_VERSION}"
        )
    try:
        return read(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MessageError(
            "coordinator",
            f"{what} that does not fit ({str(error)[:200]}): let all machines run one release with one "
            "network and strategy",
        ) from None


def _number(value: Any) -> float:
    if type(value) not in _NUMBER:
        raise ValueError("a number is something else")
    return float(value)


def _packed(array: Optional[np.ndarray]) -> Optional[bytes]:
    return None if array is None else array.astype("<f8").tobytes()


def _unpacked(content: Any) -> Optional[np.ndarray]:
    return None if content is None else np.frombuffer(content, "<f8").astype(np.float64)


class News(NamedTuple):
    """What brings a hospital up to date.

    ``told``: the last sum, encoded. ``base``: the state that it started from, for who missed what was before.
    ``vouchers``: by hospital, what those in the sum say to this one of that state.
    """

    told: Optional[bytes] = None
    base: Optional[bytes] = None
    vouchers: Mapping[str, Any] = {}


def hand_over(news: News) -> bytes:
    """Return news as bytes."""
    return msgpack.packb({"version": _VERSION, **news._asdict()}, use_bin_type=True)


def take_over(data: bytes) -> News:
    """Return the news that :func:`hand_over` encoded; of nothing, no news."""

    def read(fields: Dict[str, Any]) -> News:
        news = News(**fields)
        if any(type(part) not in (bytes, type(None)) for part in news[:2]) or type(news.vouchers) is not dict:
            raise ValueError("it has other fields")
        return news

    return _decoded("the news of the last sum", data, read) if data else News()
