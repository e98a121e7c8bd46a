"""How a hospital comes to hold the common state: by computing it from proved sums, never by being given it.

It starts from the model that seed and settings make. Each sum that it is told must prove itself, with the
hospitals' secret; then it is applied by the same rules as at the coordinator. A hospital that missed rounds
is handed the state before the last sum: that is the right one if the sum proves itself under the
task that was made of it, since its senders vouch with their contributions for the state that they started
from. Any other model is refused before an image is touched.

Without protection (plaintext) sums prove nothing, and a hospital believes what it is told.
"""

from __future__ import annotations

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.federation.common import CommonState
from skinfl.federation.messages import decode_common, decode_told, encode_common, take_over
from skinfl.federation.rules import EVALUATE, Rules
from skinfl.flower import protocol
from skinfl.flower.hospital.membership import Run, check_others
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.protection.base import HospitalSide

_STATE = "common"


def held(run: Run, rules: Rules, first_model: np.ndarray) -> CommonState:
    """Return the common state that this hospital holds: on its disk, or else the first."""
    kept = run.store.read(_STATE)
    if kept is None:
        return rules.start(run.name, first_model)
    return decode_common(kept["state"], rules.strategy.state_layout(rules.layout))


def follow(
    folder: HospitalFolder, run: Run, rules: Rules, side: HospitalSide, own: CommonState, news: bytes
) -> CommonState:
    """Return the common state after the sum in ``news``, if it holds one that this hospital lacks.

    Raises :class:`~skinfl.errors.ProtectionError` for a sum that is not proved, and for a state that its
    senders did not start from.
    """
    parts = take_over(news)
    if parts["told"] is None:
        return own
    told = decode_told(parts["told"])
    if told.round <= own.round:
        return own  # known: a round has one sum
    if told.kind == EVALUATE:
        raise MessageError(protocol.COORDINATOR, "the sum of an evaluation changes no model")
    start = own
    if told.base != own.digest:
        if parts["base"] is None:
            raise ProtectionError(
                f"{folder.name} has missed the rounds before {told.round}: hand it the state they ended with"
            )
        start = decode_common(parts["base"], rules.strategy.state_layout(rules.layout))
        if start.digest != told.base or start.run != run.name or not own.round < start.round < told.round:
            raise ProtectionError("the state that was handed over is not the one the last sum started from")
    check_others(folder, (*told.senders, folder.name), f"the sum of round {told.round}")
    task = told.task(start)
    if start.ranges is not None:
        side.set_ranges(start.ranges)
    opened = side.verify(told.words, told.senders, rules.exchange(task))
    common = rules.apply(task, opened).common
    run.store.write(_STATE, {"state": encode_common(common)})
    return common
