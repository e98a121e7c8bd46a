"""How requests reach hospitals: one call, whatever lies between.

Trust model: whoever carries messages may lose, delay or repeat them. Bodies are checked by who reads them,
and what is secret in them is protected before it gets here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Iterator, Mapping, NamedTuple, Sequence, Tuple, Union

from skinfl.errors import SkinflError


class NoAnswer(SkinflError):
    """A hospital that is not connected, ended in the middle, or did not answer in time."""


class Request(NamedTuple):
    """An encoded request (:mod:`skinfl.flower.protocol`) and the model state that it brings, if any."""

    body: bytes
    server: bytes = b""


#: a hospital's encoded answer, or why there is none
Reply = Union[bytes, NoAnswer]


class Messaging(ABC):
    """Carries requests to hospitals by name and brings their answers."""

    @abstractmethod
    def connected(self, wanted: Sequence[str], patience: float) -> Tuple[str, ...]:
        """Wait up to ``patience`` seconds for the wanted hospitals; return those that are connected."""

    @abstractmethod
    def ask(
        self,
        kind: str,
        round: int,
        requests: Mapping[str, Request],
        timeout: float,
        *,
        insist: bool = False,
    ) -> Iterator[Tuple[str, Reply]]:
        """Send all requests and give each answer as it comes; ``kind`` is one of the protocol's.

        Every hospital that is asked is given once; one without an answer after ``timeout`` seconds as
        :class:`NoAnswer`, one that is not connected right away unless ``insist`` says to wait for it.
        """
