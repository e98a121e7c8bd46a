"""What a hospital does with the coordinator's requests: everything but how they travel.

Nothing of Flower is in here: a :class:`Site` answers bytes with bytes. What it refuses is in
:mod:`skinfl.flower.hospital.joining` and :mod:`skinfl.flower.hospital.adding`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.errors import SkinflError
from skinfl.flower import protocol
from skinfl.flower.hospital.adding import combine, open_sum
from skinfl.flower.hospital.membership import open_run
from skinfl.flower.provisioning.folders import HospitalFolder

if TYPE_CHECKING:
    from skinfl.flower.hospital.training import Trainer


class Site:
    """One hospital, set up by its folder."""

    def __init__(self, folder: HospitalFolder):
        self._folder = folder

    def answer(self, request: bytes, server: bytes = b"") -> bytes:
        """Answer a request; ``server`` is the encoded model state that comes with some kinds.

        What goes wrong in a way that the coordinator should know is a refusal, which has no data in it.
        """
        try:
            return self._answer(request, server)
        except SkinflError as error:
            return protocol.encode_refusal(str(error))

    def _answer(self, request: bytes, server: bytes) -> bytes:
        kind, fields = protocol.decode_request(request)
        if kind == "join":
            return self._trainer().join(fields, request)
        run = open_run(self._folder, fields["run"], fields.pop("sealed"))
        if kind == "combine":
            return combine(self._folder, run, fields)
        if kind == "open":
            return open_sum(self._folder, run, fields)
        if kind == "statistics":
            return self._trainer().statistics(run)
        if kind == "train":
            return self._trainer().train(run, fields, server)
        return self._trainer().evaluate(run, fields, server)

    def _trainer(self) -> Trainer:
        from skinfl.flower.hospital.training import Trainer  # torch takes seconds to load, adding needs none

        return Trainer(self._folder)
