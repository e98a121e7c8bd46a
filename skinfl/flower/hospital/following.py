"""How a hospital comes to hold the common state: by computing it from proved sums, never by being given it.

It starts from the model that seed and settings make. Each sum that it is told must prove itself, with the
hospitals' secret; then it is applied by the same rules as at the coordinator. A hospital that missed rounds
is handed the state before the last sum: that is the right one if the sum proves itself under the task that
was made of it, and if as many of its senders as this hospital wants others in a sum vouch for that state,
each under a key that only the two of them have. Any other model is refused before an image is touched.

One hospital that works with the coordinator holds the secret that proves sums, and can tell others a false
sum, as by a false update; it cannot vouch for others.

Without protection (plaintext) sums prove nothing, and a hospital believes what it is told.
"""

from __future__ import annotations

import hmac
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.federation.common import CommonState
from skinfl.federation.messages import Told, decode_common, decode_told, encode_common, take_over
from skinfl.federation.rules import EVALUATE, Rules, Task
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.adding import contributed
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
    last = take_over(news)
    if last.told is None:
        return own
    told = decode_told(last.told)
    if told.round <= own.round:
        return own  # known: a round has one sum
    if told.kind == EVALUATE:
        raise MessageError(protocol.COORDINATOR, "the sum of an evaluation changes no model")
    start = own
    if told.base != own.digest:
        if last.base is None:
            raise ProtectionError(
                f"{folder.name} has missed the rounds before {told.round}: hand it the state they ended with"
            )
        start = decode_common(last.base, rules.strategy.state_layout(rules.layout))
        if start.digest != told.base or start.run != run.name or not own.round < start.round < told.round:
            raise ProtectionError("the state that was handed over is not the one the last sum started from")
        rules.check_fits(start)
        _check_vouchers(folder, run, told, last.vouchers)
    check_others(folder, (*told.senders, folder.name), f"the sum of round {told.round}")
    task = told.task(start)
    own_part = contributed(run, told.kind, told.round)
    if own_part is not None and own_part.exchange.task != rules.exchange(task).task:
        raise ProtectionError(
            f"{folder.name} took part in round {told.round} with another task than its sum is told with"
        )
    if start.ranges is not None:
        side.set_ranges(start.ranges)
    opened = side.verify(told.words, told.senders, rules.exchange(task))
    common = rules.apply(task, opened).common
    run.store.write(_STATE, {"state": encode_common(common)})
    return common


def vouchers_of(folder: HospitalFolder, run: Run, task: Task) -> Dict[str, bytes]:
    """Return what tells each other hospital which state this one starts a task from."""
    return {
        peer: _voucher(folder, run, folder.name, peer, (task.kind, task.round, task.common.digest))
        for peer in run.members.hospitals
        if peer != folder.name
    }


def _check_vouchers(folder: HospitalFolder, run: Run, told: Told, vouchers: Mapping[str, Any]) -> None:
    """Refuse a state that too few of the hospitals in the sum vouch for."""
    found = 0
    for name in set(told.senders) & set(run.members.hospitals) - {folder.name}:
        expected = _voucher(folder, run, name, folder.name, (told.kind, told.round, told.base))
        given = vouchers.get(name)
        found += isinstance(given, bytes) and hmac.compare_digest(given, expected)
    if found < folder.minimum_others:
        raise ProtectionError(
            f"{found} other hospitals vouch for the state that was handed to {folder.name}, "
            f"{folder.minimum_others} are needed"
        )


def _voucher(
    folder: HospitalFolder, run: Run, sender: str, recipient: str, of: Tuple[str, int, str]
) -> bytes:
    """Return a voucher between this hospital and another; ``of``: kind and round of a sum, and its base."""
    (peer,) = {sender, recipient} - {folder.name}
    return keys.voucher(folder.sealing_key(), folder.sealing_keys[peer], (sender, recipient), run.terms, *of)
