"""What a hospital does with the coordinator's requests: everything but how they travel.

Nothing of Flower is in here: a :class:`Site` answers bytes with bytes. What it refuses is in
:mod:`skinfl.flower.hospital.joining` and :mod:`skinfl.flower.hospital.adding`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from skinfl.errors import MessageError, MissingExtra, ProtectionError, SkinflError, printable
from skinfl.flower import protocol
from skinfl.flower.hospital import adding
from skinfl.flower.hospital.membership import end_run, open_run
from skinfl.flower.hospital.store import locked
from skinfl.flower.provisioning.folders import HospitalFolder

if TYPE_CHECKING:
    from skinfl.flower.hospital.training import Trainer


class Site:
    """One hospital, set up by its folder. ``say`` prints a line where its own people read it."""

    def __init__(self, folder: HospitalFolder, say: Callable[[str], None] = print):
        self._folder = folder
        self._say = say

    def answer(self, request: bytes, server: bytes = b"") -> bytes:
        """Answer a request; ``server`` is what comes with some kinds: news of the last sum, or its words.

        One request at a time, however many come: what was answered before is on disk when the next is
        looked at. What goes wrong in a way that the coordinator should know is a refusal, which has no
        data in it, see :func:`refusal_of`.
        """
        try:
            return self._answer(request, server)
        except SkinflError as error:
            self._say(printable(f"{self._folder.name} refuses: {error}"))
            return protocol.encode_refusal(refusal_of(error, self._folder.name))

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


def refusal_of(error: SkinflError, hospital: str) -> SkinflError:
    """Return what the coordinator is told of an error at a hospital.

    Why it takes no part in what it was asked, in full. What else goes wrong names the hospital's folders, its
    device or how many steps it trained, from which follows how many images it holds: that is for its own log.
    """
    if isinstance(error, (ProtectionError, MissingExtra)):
        return error
    return ProtectionError(f"{hospital} cannot do it ({type(error).__name__}): its own log says why")
