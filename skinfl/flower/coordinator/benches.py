"""Who sits out after parties complained: nobody on one word, and nobody for good.

A complaint cannot be checked: shares are sealed to the party that refuses them. So it costs its maker as much
as its target, unless most parties make it.
"""

from __future__ import annotations

from typing import Dict, Mapping


class Benches:
    """Hospitals that contribute to no sum for some rounds: one at first, twice as many each further time."""

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
        for accused in {name for by in complaints.values() for name in by}:
            accusers = sorted(name for name, by in complaints.items() if accused in by)
            why = f"{', '.join(accusers)} refused its share: {complaints[accusers[0]][accused]}"
            found[accused] = why
            if 2 * len(accusers) <= parties:
                for accuser in accusers:
                    found.setdefault(accuser, f"it refused the share of {accused}, which most others took")
        for name, reason in found.items():
            times = self._times[name] = self._times.get(name, 0) + 1
            self._until[name] = round + 2 ** min(times - 1, 16)
            self._reasons[name] = reason
        return found
