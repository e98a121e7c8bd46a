"""OpenMined's SyMPC itself as a protection: its sessions, its shares, its machines.

Trust model: that of :mod:`skinfl.openmined.library`. SyMPC's random integers come from torchcsprng,
which the operating system seeds, but from half the ring only, [0, 2^63). The last party's share is an
encoded value minus such a word: it is uniform over an interval of 2^63 integers that the value shifts. Two
values that differ by d steps are therefore told apart with a chance of d / 2^63. The package's own
sharing draws from the whole ring and has no such remainder.

SyMPC (Session, SessionManager.setup_mpc, MPCTensor, ShareTensor) runs as in its commit 91cf991, on PySyft
0.5's virtual machines. Left aside is its decoder: it computes in float32, too coarse for the counts.
"""

from __future__ import annotations

import operator
from functools import lru_cache, reduce
from typing import Any, List, Sequence, Tuple

import numpy as np
import torch

from skinfl.errors import SettingsError
from skinfl.openmined.library import Library, LibraryProtection

try:
    import syft  # first: it watches for the import of sympc
    import sympc
    from sympc.config import Config
    from sympc.session import Session, SessionManager
    from sympc.tensor import MPCTensor, ShareTensor
except ImportError as error:
    raise SettingsError(
        f"protection 'sympc' needs OpenMined's SyMPC ({error}): make environment-sympc.yml's environment "
        "and install SyMPC there as docs/environments.md says, or take protection 'smpc', which needs neither"
    ) from None


@lru_cache(maxsize=None)
def _machine(party: str) -> syft.VirtualMachineClient:
    """Return the client of a party's machine, which takes a second to start and serves all sessions."""
    return syft.VirtualMachine(name=party).get_root_client()


class SympcLibrary(Library):
    """A session of SyMPC between virtual machines, one for each party."""

    def __init__(self, parties: Tuple[str, ...], precision: int):
        self._config = Config(encoder_base=2, encoder_precision=precision)
        self.clients = {party: _machine(party) for party in parties}
        self._session = Session(parties=list(self.clients.values()), config=self._config)
        SessionManager.setup_mpc(self._session)
        self._ids = {party: self._session.rank_to_uuid[rank] for rank, party in enumerate(parties)}

    def encode(self, values: np.ndarray) -> np.ndarray:
        return ShareTensor(data=torch.from_numpy(values), config=self._config).tensor.numpy()

    def share(self, integers: np.ndarray) -> List[np.ndarray]:
        shares = MPCTensor.generate_shares(
            self._share(integers), self._session.nr_parties, tensor_type=self._session.tensor_type
        )
        return [share.tensor.numpy() for share in shares]

    def keep(self, party: str, share: np.ndarray) -> Any:
        share_tensor = self._share(share)
        share_tensor.session_uuid = self._ids[party]
        pointer = share_tensor.send(self.clients[party])
        pointer.gc_enabled = True  # or the machine would keep the share when the pointer is gone
        return pointer

    def add(self, pointers: Sequence[Any]) -> np.ndarray:
        return reduce(operator.add, pointers).get().tensor.numpy()

    def reconstruct(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        return ShareTensor.reconstruct([self._share(integers) for integers in sums]).numpy()

    def _share(self, integers: np.ndarray) -> ShareTensor:
        """Return ``integers`` as a ShareTensor, without encoding them again."""
        share = ShareTensor(config=self._config)
        share.tensor = torch.from_numpy(np.array(integers))
        return share


class Sympc(LibraryProtection):
    """SyMPC's additive sharing. Its default precision is 16 fractional bits."""

    name = "sympc"
    library = f"sympc {sympc.__version__}, syft {syft.__version__}"

    def set_up(self, parties: Tuple[str, ...]) -> SympcLibrary:
        """Start SyMPC with a virtual machine for each party."""
        return SympcLibrary(parties, self.precision)
