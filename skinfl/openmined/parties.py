"""Aggregating parties on PySyft 0.2.9: shares lie at party workers as tensors and are added there.

Trust model: that of :mod:`skinfl.protection.smpc.additive`. A share reaches its party's worker and no
other; what is fetched from a worker is the sum of the agreed hospitals' shares, never a single one.
"""

from __future__ import annotations

import weakref
from typing import Any, Sequence

import numpy as np
import torch

from skinfl.openmined.hook import add_worker, forget_worker
from skinfl.protection import wire
from skinfl.protection.base import AggregatorSide, Exchange
from skinfl.protection.encoder import BLOCK
from skinfl.protection.prg import Stream
from skinfl.protection.sealing import Writer
from skinfl.protection.smpc.additive import AdditiveParty


class PySyftAdditiveParty(AdditiveParty):
    """An :class:`AdditiveParty` whose shares are kept and added at a ``syft.VirtualWorker``.

    torch's int32 and int64 wrap around on overflow, which is addition in the ring.
    """

    def __init__(self, party: AdditiveParty):
        vars(self).update(vars(party))  # the keys move here with everything else
        self.syft_worker = add_worker(party.name)
        weakref.finalize(self, forget_worker, self.syft_worker)

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> Any:
        """Send the share to the party's worker and return the pointer; a seed is expanded first."""
        share = super().read(header, body, exchange)
        if isinstance(share, bytes):
            share = self._expand(share, self._encoder.size(exchange.layout))
        tensor: Any = torch.from_numpy(share.view(self._ring.signed))  # PySyft adds methods to tensors
        return tensor.send(self.syft_worker)

    def add(self, contents: Sequence[Any], exchange: Exchange, writer: Writer) -> None:
        """Add at the worker, one remote operation for each share, and fetch the sum alone."""
        total = contents[0]
        for pointer in contents[1:]:
            total = total + pointer
        writer.write(total.get().numpy().view(self._ring.unsigned))

    def _expand(self, seed: bytes, size: int) -> np.ndarray:
        stream = Stream(seed)
        share = np.empty(size, self._ring.unsigned)
        for start in range(0, size, BLOCK):
            block = share[start : start + BLOCK]
            block[:] = stream.words(len(block), self._ring.unsigned)
        return share


def hosted(party: AggregatorSide) -> AggregatorSide:
    """Return the party on a worker of its own if it adds additive shares, else the party as it is."""
    return PySyftAdditiveParty(party) if isinstance(party, AdditiveParty) else party
