"""Who sits out after parties complained: nobody on one word, and nobody for good.

A complaint cannot be checked: shares are sealed to the party that refuses them. So it costs its maker as much
as its target, unless most parties make it.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence


class Benches:
    """Hospitals that contribute to no sum for some rounds: one at first, twice as many each further time.

    Whom most parties accuse, and who accuses alone, sit longer each time; who was accused by few sits one
    round. Who accuses several at once, or from the bench, is not believed at all.
    """

    def __init__(self) -> None:
        self._until: Dict[str, int] = {}
        self._times: Dict[str, int] = {}
        self._reasons: Dict[str, str] = {}

    def sitting(self, round: int) -> Dict[str, str]:
        """Return who sits out a round, and why."""
        return {name: self._reasons[name] for name, until in self._until.items() if round <= until}

    def judge(self, complaints: Mapping[str, Mapping[str, str]], parties: int, round: int) -> Dict[str, str]:
        """Return whom complaints of one round put on the bench, from the next one on, and why.

        ``complaints``: reasons by accuser and accused. ``parties``: how many could have complained.
        """
        found: Dict[str, str] = {}
        sitting = self.sitting(round)
        by_accused: Dict[str, List[str]] = {}
        for accuser in sorted(complaints):
            for accused in complaints[accuser]:
                by_accused.setdefault(accused, []).append(accuser)
        outvoted = {name for name, accusers in by_accused.items() if 2 * len(accusers) > parties}
        for accused in outvoted:
            found[accused] = self._seat(accused, round, _reason(by_accused[accused], accused, complaints))
        for accuser in sorted(complaints):
            alone = [name for name in complaints[accuser] if name not in outvoted]
            if alone and accuser not in found:
                why = f"it refused the share of {', '.join(alone)}, which most others took"
                found[accuser] = self._seat(accuser, round, why)
            if len(alone) == 1 and accuser not in sitting and alone[0] not in found:
                why = _reason(by_accused[alone[0]], alone[0], complaints)
                found[alone[0]] = self._seat(alone[0], round, why, longer=False)
        return found

    def _seat(self, name: str, round: int, reason: str, *, longer: bool = True) -> str:
        times = self._times.get(name, 0) if longer else 0
        if longer:
            self._times[name] = times + 1
        self._until[name] = max(self._until.get(name, 0), round + 2 ** min(times, 16))
        self._reasons[name] = reason
        return reason


def _reason(accusers: Sequence[str], accused: str, complaints: Mapping[str, Mapping[str, str]]) -> str:
    return f"{', '.join(accusers)} refused its share: {complaints[accusers[0]][accused]}"
