"""What a hospital does with the coordinator's requests: everything but how they travel.

Nothing of Flower is in here: a :class:`Site` answers bytes with bytes. What it refuses is in
:mod:`skinfl.flower.hospital.joining` and :mod:`skinfl.flower.hospital.adding`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.errors import MessageError, SkinflError
from skinfl.flower import protocol
from skinfl.flower.hospital import adding
from skinfl.flower.hospital.membership import end_run, open_run
from skinfl.flower.hospital.store import locked
from skinfl.flower.provisioning.folders import HospitalFolder

if TYPE_CHECKING:
    from skinfl.flower.hospital.training import Trainer


class Site:
    """One hospital, set up by its folder."""

    def __init__(self, folder: HospitalFolder):
        self._folder = folder

    def answer(self, request: bytes, server: bytes = b"") -> bytes:
        """Answer a request; ``server`` is what comes with some kinds: news of the last sum, or its words.

        One request at a time, however many come: what was answered before is on disk when the next is
        looked at. What goes wrong in a way that the coordinator should know is a refusal, which has no
        data in it.
        """
        try:
            return self._answer(request, server)
        except SkinflError as error:
            return protocol.encode_refusal(error)

    def _answer(self, request: bytes, server: bytes) -> bytes:
        limit = self._folder.limits.message_bytes
        kind, fields = protocol.decode_request(request, limit)
        if len(server) > limit:
            raise MessageError(protocol.COORDINATOR, f"it brings {len(server)} bytes, {limit} are the limit")
        with locked(self._folder.state, "site"):
            if kind == "join":
                return self._trainer().join(fields, request)
            run = open_run(self._folder, fields["run"], fields.pop("sealed"))
            if kind == "protect":
                return adding.protect_again(self._folder, run, fields)
            if kind == "release":
                return adding.release(self._folder, run, fields)
            if kind == "combine":
                return adding.combine(self._folder, run, fields)
            if kind == "open":
                return adding.open_sum(self._folder, run, fields)
            if kind == "verify":
                return adding.verify(self._folder, run, fields, server)
            if kind == "end":
                return end_run(run)
            if kind == "statistics":
                return self._trainer().statistics(run, fields)
            if kind == "train":
                return self._trainer().train(run, fields, server)
            return self._trainer().evaluate(run, fields, server)

    def _trainer(self) -> Trainer:
        from skinfl.flower.hospital.training import Trainer  # torch takes seconds to load, adding needs none

        return Trainer(self._folder)
